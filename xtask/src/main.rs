// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Build, test and demonstrate vhost-famfs: `cargo xtask help`.
//!
//! ```text
//! setup -> tools tree (QEMU, kernel headers, mkosi ..., in the cache directory)
//! build -> host programs, guest programs, famfs.ko        (target/)
//! image -> the appliance                                  (target/image/)
//! debug-kernel -> a kernel with checkers (in the cache directory)
//! package -> Debian packages, an archive                 (target/package/)
//! demo, vm, test, bench -> virtual machines from the image
//! ```
//! Each command first runs the ones above it that it needs; a command does nothing if its result is
//! up to date. xtask only calls the programs; what they do is not here.

mod args;
mod bench;
mod build;
mod cache;
mod chroot;
mod clean;
mod debug_kernel;
mod demo;
mod exec;
mod guest_programs;
mod guest_python;
mod hash;
mod image;
mod manual;
mod own_guest;
mod package;
mod packages;
mod paths;
mod setup;
mod test;
mod tools;
mod vm;

use std::process::ExitCode;

use args::Command;
use clap::Parser;
use vm_tests::interrupt::{self, INTERRUPTED};

fn main() -> ExitCode {
    let command = args::Args::parse().command;
    let result = interrupt::listen().and_then(|()| match command {
        Command::Setup => setup::run().map(|_| ExitCode::SUCCESS),
        Command::Build => build::run().map(|_| ExitCode::SUCCESS),
        Command::Image(args) => image::command(&args).map(|()| ExitCode::SUCCESS),
        Command::DebugKernel => debug_kernel::run().map(|()| ExitCode::SUCCESS),
        Command::Package => package::command().map(|()| ExitCode::SUCCESS),
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::Clean(args) => clean::run(&args).map(|()| ExitCode::SUCCESS),
    });
    result.unwrap_or_else(|error| {
        if interrupt::seen_after_failure() {
            eprintln!("xtask: interrupted; everything that was started is down");
            return ExitCode::from(INTERRUPTED);
        }
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
