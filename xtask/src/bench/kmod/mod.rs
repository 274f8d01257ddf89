// SPDX-License-Identifier: Apache-2.0 OR MIT
//! famfs.ko compared with the alternatives that give programs the same memory: the device itself,
//! and file systems with DAX.
//!
//! Everything is measured twice: by the number of instructions, in a guest whose clock counts them,
//! and by time, in a guest with two processors. The goals apply to the instructions: they are the
//! same in every run, while the time under emulation depends on the load of the host.

mod devdax;
mod disk;
mod file_system;
mod files;
mod fio;
mod guest;
mod pmem;
mod trees;

use anyhow::Result;

use super::Measurement;
use crate::{image, paths};
use disk::Bench;
use guest::Clock;

/// Boots four guests one after the other: two views of the pool with two clocks each.
pub fn run() -> Result<Vec<Measurement>> {
    let bench = Bench::new(&image::run()?, &paths::target().join("vm/bench-kmod"))?;
    let mut measurements = Vec::new();
    for clock in [Clock::Instructions, Clock::Time] {
        eprintln!("Measuring /dev/dax by {clock} ...");
        measurements.extend(devdax::run(&bench, clock)?);
        eprintln!("Measuring /dev/pmem by {clock} ...");
        measurements.extend(pmem::run(&bench, clock)?);
    }
    Ok(measurements)
}

/// Boots a guest for each clock, with trees of small files.
pub fn trees() -> Result<Vec<Measurement>> {
    let bench = Bench::new(&image::run()?, &paths::target().join("vm/bench-trees"))?;
    trees::run(&bench)
}
