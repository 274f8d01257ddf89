// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sessions: receives requests, and runs one command at a time.

use std::fs;
use std::io::{ErrorKind, Read};
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use guest::report;
use protocol::exec::{self, Reply, Request};
use protocol::line::Lines;

use crate::batch::Batch;
use crate::command::Slot;
use crate::confine;
use crate::handover;
use crate::outlet::Outlet;
use crate::pool::Pool;
use crate::{port, systemd};

/// Pause while no host is connected, because then the port cannot be polled.
const NO_HOST: Duration = Duration::from_millis(50);

/// How to power off the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerOff {
    /// With a systemd unit.
    Systemd,
    /// By the caller of this program, once it returns.
    Return,
}

/// Serves one host after the other, until the machine is powered off.
pub fn serve(power_off: PowerOff) -> Result<()> {
    confine::serve()?;
    handover::listen()?;
    let mut port = port::open()?;
    let outlet = Outlet::new(port.try_clone().context("cannot duplicate the port")?);
    let pool = Pool::watch(outlet.clone())?;
    let batch = Batch::start(pool.clone(), outlet.clone(), move || match power_off {
        PowerOff::Systemd => {
            systemd::power_off().unwrap_or_else(|error| eprintln!("appliance-agent: {error}"))
        }
        PowerOff::Return => process::exit(0),
    });
    let mut session = Session {
        boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .context("cannot read the boot id")?
            .trim()
            .into(),
        pool,
        batch,
        outlet,
        number: 0,
        slot: Slot::default(),
        power_off,
        ended: false,
    };
    let mut lines = Lines::default();
    let mut bytes = vec![0; 64 * 1024];
    while !session.ended {
        match port.read(&mut bytes) {
            Ok(0) => {
                session.close();
                thread::sleep(NO_HOST);
            }
            Ok(count) => {
                lines.push(&bytes[..count]);
                while let Some(line) = lines.next_line() {
                    match line {
                        Ok(line) => session.line(&line),
                        Err(error) => session.refuse(None, error.to_string()),
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read from the host"),
        }
    }
    session.slot.kill();
    Ok(())
}

struct Session {
    boot_id: String,
    pool: Pool,
    batch: Batch,
    outlet: Outlet,
    /// Counts the sessions, to distinguish threads of earlier ones.
    number: u64,
    slot: Slot,
    power_off: PowerOff,
    /// Whether to stop serving.
    ended: bool,
}

impl Session {
    /// Processes one line. An empty line only ends what was before it.
    fn line(&mut self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        match exec::decode(line) {
            Ok(request) => self.request(request),
            Err(error) => self.refuse(None, format!("cannot understand the request: {error}")),
        }
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Hello { version: _, session } => self.open(session),
            Request::Exec { id, argv, env, stdin } => {
                if let Err(reason) =
                    self.slot.start(id, &argv, &env, stdin, self.number, &self.outlet)
                {
                    self.refuse(Some(id), reason);
                }
            }
            Request::Stdin { id, data } => self.slot.input(id, data.0),
            Request::Poweroff {} => self.power_off(),
        }
    }

    /// Opens a session. The host compares the versions, because only the host can tell the user.
    fn open(&mut self, session: String) {
        self.close();
        self.number += 1;
        self.outlet.open(self.number, || match report::uptime_ms() {
            Ok(uptime_ms) => Reply::Hello {
                version: exec::VERSION,
                session,
                boot_id: self.boot_id.clone(),
                uptime_ms,
                attach: self.pool.attach(),
                ran: self.batch.ran(),
            },
            Err(error) => Reply::Refused { id: None, reason: error.to_string() },
        });
    }

    fn close(&mut self) {
        // Kill the command first: its output may be blocking the outlet, which a disconnected host
        // does not read.
        self.slot.kill();
        self.outlet.close();
    }

    fn power_off(&mut self) {
        // It may use files that are about to be unmounted.
        self.slot.kill();
        if self.power_off == PowerOff::Return {
            self.ended = true;
            return;
        }
        if let Err(reason) = systemd::power_off() {
            self.refuse(None, reason);
        }
    }

    fn refuse(&self, id: Option<u64>, reason: String) {
        self.outlet.send(self.number, &Reply::Refused { id, reason });
    }
}
