// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Fuzz targets. Each is a function of any bytes that ends without a panic. Its module describes
//! the input and the invariants that it asserts.
//!
//! `cargo xtask test fuzz` runs each for a fixed time with libFuzzer, from `corpus/TARGET`;
//! `cargo test -p fuzz` replays `corpus/` and `crashes/` without a fuzzer. A new target is a
//! module here, a line in [`TARGETS`], a program in `fuzz_targets/`, and a corpus.

pub mod archive;
pub mod image;
pub mod map;
pub mod messages;
pub mod plan;
pub mod queue;
pub mod replies;
pub mod superblock;
pub mod transfer;
pub mod tree;
pub mod view;

use std::alloc::System;
use std::sync::{Mutex, PoisonError};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

/// Counts allocations, so that targets can limit them.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("archive", archive::run),
    ("map", map::run),
    ("messages", messages::run),
    ("plan", plan::run),
    ("queue", queue::run),
    ("replies", replies::run),
    ("superblock", superblock::run),
    ("transfer", transfer::run),
    ("tree", tree::run),
    ("view", view::run),
];

/// Runs `op` and asserts that it allocates at most `limit` bytes in total, including what it frees
/// meanwhile: memory may follow the input, but not what the input only claims.
///
/// # Panics
/// If it allocates more. Other threads' allocations count too, except those in here.
pub fn bounded<T>(limit: usize, op: impl FnOnce() -> T) -> T {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let region = Region::new(ALLOCATOR);
    let result = op();
    let allocated = region.change().bytes_allocated;
    assert!(allocated <= limit, "{allocated} bytes allocated, at most {limit} expected");
    result
}
