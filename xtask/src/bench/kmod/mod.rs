// SPDX-License-Identifier: Apache-2.0 OR MIT
//! famfs.ko against what else gives programs the same memory: the device itself, and the file
//! systems with DAX.
//!
//! Everything is measured by the number of instructions, in a guest whose clock counts them,
//! and by time, in a guest with two processors. The goals are for the instructions: they are
//! the same in every run, where the time under emulation depends on what else the host does.

mod devdax;
mod disk;
mod file_system;
mod files;
mod fio;
mod guest;
mod pmem;

use anyhow::Result;

use super::Measurement;
use crate::{image, paths};
use disk::Bench;
use guest::Clock;

/// Boots four guests one after the other: two views of the pool, two clocks.
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
