// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests the launcher without virtual machines: `up`, `ps`, `exec` and `down` with a
//! [stand-in](stand_in) for QEMU.
//!
//! The stand-in is this same program: a [`Host`](host::Host) links to it under a name that begins
//! with `qemu`. Under its own name, cloud-hypervisor has [another](cloud_hypervisor). An `up` takes
//! a tenth of a second, so hundreds of starts can be killed at random moments.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it is")]

mod change;
mod cloud_hypervisor;
mod copies;
mod descriptors;
mod emitted;
mod guest_copy;
#[path = "../support/harmful.rs"]
mod harmful;
mod health;
mod host;
#[path = "../support/kernel.rs"]
mod kernel;
mod kills;
mod life;
#[path = "../support/loop_device.rs"]
mod loop_device;
mod network;
mod own_guest;
mod random;
mod reports;
#[path = "../support/schema.rs"]
mod schema;
mod stand_in;
mod terminal;

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap();
    match Path::new(&name).file_name().unwrap().to_str().unwrap() {
        name if name.starts_with("qemu") => return stand_in::run(name),
        cloud_hypervisor::NAME => return cloud_hypervisor::run(),
        host::BYSTANDER => return host::bystander(),
        _ => {}
    }
    let trials = descriptors::trials().into_iter().chain(emitted::trials());
    let trials = trials.chain(cloud_hypervisor::trials());
    let trials = trials.chain(own_guest::trials());
    let trials = trials.chain(copies::trials()).chain(reports::trials()).chain(terminal::trials());
    let trials = trials.chain(health::trials()).chain(network::trials());
    let trials =
        trials.chain(life::trials()).chain(change::trials()).chain(kills::trials()).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A test: a function that panics if it fails.
fn trial(name: &str, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}
