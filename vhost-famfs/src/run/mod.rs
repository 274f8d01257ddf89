// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the program does once it knows what is asked.

mod bar;
mod console;
mod device;
mod doctor;
mod down;
mod emit;
mod emitted;
mod exec;
mod keep_logs;
mod logs;
mod pool;
mod ps;
pub mod report;
#[cfg(feature = "ublk")]
mod ublk;
mod up;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

#[cfg(not(feature = "ublk"))]
use anyhow::bail;
use anyhow::{Context, Result};
use famfs::text::terminal::Escaping;
use serde_json::json;

use vhost_famfs::args::Config;

/// What `--print-capabilities` and the description for the VMM's registry call this back-end. The
/// list of the conventions (QEMU's vhost-user.json) has no name for virtio-pmem.
pub const BACKEND_TYPE: &str = "pmem";

/// Runs one command to its end, and tells the exit code of the program.
pub fn run(config: Config) -> Result<ExitCode> {
    match config {
        Config::Pool(config) => pool::run(config)?,
        Config::Capabilities => say(json!({ "type": BACKEND_TYPE, "features": [] }))?,
        Config::Device(config) => device::run(config)?,
        Config::Up(config) => return up::run(config),
        Config::Doctor(config) => return doctor::run(&config),
        Config::Down(config) => down::run(config)?,
        Config::Ps(config) => return ps::run(config),
        Config::Exec(config) => return exec::run(config),
        Config::Console(config) => console::run(config)?,
        Config::Logs(config) => logs::run(config)?,
        Config::KeepLogs(config) => keep_logs::run(&config)?,
        Config::Emitted(config) => emitted::run(&config)?,
        #[cfg(feature = "ublk")]
        Config::Ublk(config) => ublk::run(config)?,
        #[cfg(not(feature = "ublk"))]
        Config::Ublk(_) => bail!(
            "this program was built without ublk; build it with the cargo feature `ublk`, which \
             is on by default and needs libclang"
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a result, without anything that could harm a terminal. A reader that has closed the pipe
/// has read enough.
fn say(text: impl Display) -> Result<()> {
    let mut out = Escaping::new(io::stdout());
    match writeln!(out, "{text}").and_then(|()| out.finish()) {
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => {
            Err(err).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Prints what a program reads, byte for byte; a terminal gets what [`say`] gives it.
fn print_for_program(text: impl Display) -> Result<()> {
    if io::stdout().is_terminal() {
        return say(text);
    }
    match writeln!(io::stdout(), "{text}") {
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => {
            Err(err).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Tells something on standard error, without anything that could harm a terminal. Work does not
/// end because nobody can be told about it.
pub fn notice(text: impl Display) {
    let mut out = Escaping::new(io::stderr());
    let _ = writeln!(out, "vhost-famfs: {text}").and_then(|()| out.finish());
}
