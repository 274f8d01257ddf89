// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's end of the command protocol ([`appliance::exec`]).
//!
//! ```text
//!  port: requests --> session --> command: one child, its streams pumped by threads
//!  port: replies  <-- outlet  <-- command, pool (watches for famfs-attach's report)
//! ```
//!
//! `appliance-agent` serves. famfs-attach.service runs the other two forms: `appliance-agent attach COMMAND...`
//! and, at its end, `appliance-agent attach-ended`.

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
        [] => session::serve().map(|()| ExitCode::SUCCESS),
        ["attach", program, ref arguments @ ..] => pool::run_attach(program, arguments),
        ["attach-ended"] => pool::report_failure().map(|()| ExitCode::SUCCESS),
        _ => Err(anyhow::anyhow!(
            "unexpected arguments {arguments:?}; usage: appliance-agent [attach COMMAND... | attach-ended]"
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
