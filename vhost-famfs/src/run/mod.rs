// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Carries out the commands.

mod bar;
mod change;
mod console;
mod cp;
mod described;
mod device;
mod doctor;
mod down;
mod emit;
mod emitted;
mod exec;
mod keep_logs;
mod keep_running;
mod launching;
mod logs;
mod pool;
mod ps;
mod raw;
pub mod report;
mod screen;
mod start;
mod stop;
mod terminal;
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

/// The name of this back-end in `--print-capabilities` and in the description for the VMM's
/// registry. The list of the vhost-user conventions (QEMU's vhost-user.json) has no name for
/// virtio-pmem.
pub const BACKEND_TYPE: &str = "pmem";

/// Runs one command to its end and returns the program's exit code.
pub fn run(config: Config) -> Result<ExitCode> {
    match config {
        Config::Pool(config) => pool::run(config)?,
        Config::Capabilities => say(json!({ "type": BACKEND_TYPE, "features": [] }))?,
        Config::Device(config) => device::run(config)?,
        Config::Up(config) => return up::run(config),
        Config::Doctor(config) => return doctor::run(&config),
        Config::Down(config) => down::run(config)?,
        Config::Stop(config) => stop::run(&config)?,
        Config::Start(config) => return start::run(&config),
        Config::Ps(config) => return ps::run(config),
        Config::Exec(config) => return exec::run(config),
        Config::Cp(config) => return cp::run(config),
        Config::Console(config) => console::run(config)?,
        Config::Logs(config) => logs::run(config)?,
        Config::KeepLogs(config) => keep_logs::run(&config)?,
        Config::KeepRunning(config) => keep_running::run(&config)?,
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

/// Prints a result, escaping everything that could harm a terminal. A reader that closed the pipe
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

/// Prints output for a program, byte for byte; a terminal gets the output of [`say`].
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

/// Prints a notice to standard error, escaping everything that could harm a terminal. If it cannot
/// be written, the work continues.
pub fn notice(text: impl Display) {
    let mut out = Escaping::new(io::stderr());
    let _ = writeln!(out, "vhost-famfs: {text}").and_then(|()| out.finish());
}
