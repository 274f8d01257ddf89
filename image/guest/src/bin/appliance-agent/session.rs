// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sessions: requests in, one command at a time.

use std::fs;
use std::io::{ErrorKind, Read};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use appliance::exec::{self, Reply, Request};
use appliance::line::Lines;

use crate::command::Slot;
use crate::outlet::Outlet;
use crate::pool::{self, Pool};
use crate::port;

/// Pause while no host is connected: the port cannot be waited for then.
const NO_HOST: Duration = Duration::from_millis(50);

/// Serves hosts, one after the other, for ever.
pub fn serve() -> Result<()> {
    let mut port = port::open()?;
    let outlet = Outlet::new(port.try_clone().context("cannot duplicate the port")?);
    let mut session = Session {
        boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .context("cannot read the boot id")?
            .trim()
            .into(),
        pool: Pool::watch(outlet.clone())?,
        outlet,
        number: 0,
        slot: Slot::default(),
    };
    let mut lines = Lines::default();
    let mut bytes = vec![0; 64 * 1024];
    loop {
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
}

struct Session {
    boot_id: String,
    pool: Pool,
    outlet: Outlet,
    /// Counts the sessions, so that threads of an earlier one are told apart.
    number: u64,
    slot: Slot,
}

impl Session {
    /// Carries out one line. An empty line only ends what was before it.
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

    /// Opens a session. The host compares the versions: it is the one that can tell people.
    fn open(&mut self, session: String) {
        self.close();
        self.number += 1;
        self.outlet.open(self.number, || match pool::uptime_ms() {
            Ok(uptime_ms) => Reply::Hello {
                version: exec::VERSION,
                session,
                boot_id: self.boot_id.clone(),
                uptime_ms,
                attach: self.pool.attach(),
            },
            Err(error) => Reply::Refused { id: None, reason: format!("{error:#}") },
        });
    }

    fn close(&mut self) {
        // The command first: its output may be blocking the outlet, which a host that is gone does not empty.
        self.slot.kill();
        self.outlet.close();
    }

    fn power_off(&mut self) {
        // Asks systemd directly; "systemctl poweroff" would ask for a login manager first.
        let job = ["start", "--no-block", "--job-mode=replace-irreversibly", "poweroff.target"];
        let status = Command::new("systemctl").args(job).stdin(Stdio::null()).status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => self.refuse(None, format!("systemctl start poweroff.target: {status}")),
            Err(error) => self.refuse(None, format!("cannot run systemctl: {error}")),
        }
    }

    fn refuse(&self, id: Option<u64>, reason: String) {
        self.outlet.send(self.number, &Reply::Refused { id, reason });
    }
}
