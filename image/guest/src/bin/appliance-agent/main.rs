// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's end of the command protocol ([`protocol::exec`]).
//!
//! ```text
//!  port: requests --> session --> command: one child, its streams pumped by threads
//!                                    | spawn: as a user, on a terminal
//!  port: replies  <-- outlet  <-- command, pool (watches for the report of attach)
//!  vsock: connections of the host, each like a port
//!  mount point    <-- handover <-- mounting (attach) in confinement
//! ```
//!
//! `appliance-agent` serves the host. In the diskless appliance, `appliance-agent diskless` does
//! so, and ends when the host requests a power-off. `attach` mounts the pool and passes it to the
//! serving agent. appliance-init starts both; in guests that are no appliances, units do, and
//! `unattached` reports how `attach` failed. Units run `attached`, which waits for the end of
//! `attach`, and `watch`, which follows the pool (in the diskless appliance, appliance-init does
//! this). `power-off` asks systemd to power the machine off, `check` reports what is wrong with the
//! machine, `send` and `receive` copy files.

mod asked;
mod batch;
mod command;
mod confine;
mod copying;
mod handover;
mod health;
mod mounting;
mod outlet;
mod pool;
mod port;
mod session;
mod spawn;
mod sys;
mod systemd;
mod terminal;
mod user;
mod vsock;
#[cfg(test)]
mod watched;

use std::env;
use std::process::ExitCode;

use anyhow::Error;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => session::serve(session::PowerOff::Systemd).map(|()| ExitCode::SUCCESS),
        ["diskless"] => session::serve(session::PowerOff::End).map(|()| ExitCode::SUCCESS),
        ["attach"] => mounting::attach().map(|()| ExitCode::SUCCESS),
        ["unattached"] => pool::report_failure().map(|()| ExitCode::SUCCESS),
        ["attached"] => pool::wait_attached().map(|()| ExitCode::SUCCESS),
        ["watch"] => mounting::watch(),
        ["power-off"] => systemd::power_off().map_err(Error::msg).map(|()| ExitCode::SUCCESS),
        ["check"] => health::check(),
        ["send", "--", ref paths @ ..] => copying::send(false, paths),
        ["send", "-r", "--", ref paths @ ..] => copying::send(true, paths),
        ["receive", target, ref names @ ..] => copying::receive(target, names),
        _ => Err(anyhow::anyhow!(
            "unexpected arguments {arguments:?}; usage: appliance-agent [diskless | attach | attached | unattached | watch | power-off | \
             check | send [-r] -- PATH... | receive TARGET NAME...]"
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
