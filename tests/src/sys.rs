// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The processor's time stamp counter.
#![allow(unsafe_code)]

use std::arch::x86_64::_rdtsc;

/// The counter now.
pub fn time_stamp() -> u64 {
    // SAFETY: RDTSC has no operand, every x86-64 processor has it, and nothing here forbids it (prctl(2), PR_SET_TSC).
    unsafe { _rdtsc() }
}
