// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's end of the command protocol ([`appliance::exec`]).
//!
//! ```text
//!  port: requests --> session --> command: one child, its streams pumped by threads
//!  port: replies  <-- outlet  <-- command, pool (watches for famfs-attach's report)
//!  mount point    <-- handover <-- attach (the program of famfs-attach.service)
//! ```
//!
//! `appliance-agent` serves; in the diskless appliance, `appliance-agent diskless` does, and ends when the host asks for
//! a power-off. Units (or appliance-init) run the other forms: `attach` mounts the pool and hands it to the one that
//! serves, `attach-ended` reports that this failed, `watch` follows the pool. `check` says
//! what is wrong with the machine.

mod batch;
mod command;
mod handover;
mod health;
mod mounting;
mod outlet;
mod pool;
mod port;
mod session;

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => session::serve(session::PowerOff::Systemd).map(|()| ExitCode::SUCCESS),
        ["diskless"] => session::serve(session::PowerOff::Return).map(|()| ExitCode::SUCCESS),
        ["attach"] => mounting::attach(),
        ["attach-ended"] => pool::report_failure().map(|()| ExitCode::SUCCESS),
        ["watch"] => mounting::watch(),
        ["check"] => health::check(),
        _ => Err(anyhow::anyhow!(
            "unexpected arguments {arguments:?}; usage: appliance-agent [diskless | attach | attach-ended | watch | check]"
        )),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("appliance-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
