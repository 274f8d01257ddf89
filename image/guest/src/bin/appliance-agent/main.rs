// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's end of the command protocol ([`appliance::exec`]).
//!
//! ```text
//!  port: requests --> session --> command: one child, its streams pumped by threads
//!  port: replies  <-- outlet  <-- command, pool (watches for famfs-attach's report)
//! ```
//!
//! `appliance-agent` serves; `appliance-agent report` is run by famfs-attach.service when it has started or
//! failed.

mod command;
mod outlet;
mod pool;
mod port;
mod session;

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => session::serve(),
        ["report"] => pool::report(),
        _ => Err(anyhow::anyhow!(
            "unexpected arguments {arguments:?}; usage: appliance-agent [report]"
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("appliance-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
