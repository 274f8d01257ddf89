// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Fuzz target; its input and invariants are described in `fuzz::transfer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::transfer::run(data));
