// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sessions: one for each port or connection, which receives requests and runs one command at a
//! time.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use guest::report;
use protocol::exec::{self, CONNECTIONS, Exec, PORTS, Reply, Request};
use protocol::line::Lines;

use crate::batch::Batch;
use crate::command::Slot;
use crate::confine;
use crate::handover;
use crate::outlet::Outlet;
use crate::pool::Pool;
use crate::port::{self, Host, Port};
use crate::systemd;
use crate::vsock::{Connection, Listener};

/// How long no host may be connected before the session ends. The kernel tells of the end of a
/// connection apart from the data of the next, and on a busy machine after it: a session that is
/// open by then must not end with the connection before it.
const GRACE: Duration = Duration::from_secs(2);

/// How to power off the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerOff {
    /// With a systemd unit.
    Systemd,
    /// By the process that started this one, once it ends.
    End,
}

/// Serves one host after the other on each port, until the machine is powered off.
pub fn serve(power_off: PowerOff) -> Result<()> {
    confine::serve()?;
    handover::listen()?;
    let listener = Listener::asked_for();
    let outlet = Outlet::new(io::sink());
    let open = || -> Result<Port> {
        let port = port::first()?;
        outlet.move_to(writer_of(&port)?);
        Ok(port)
    };
    // A host that uses vsock may have given this machine no ports.
    let port = if listener.is_none() { Some(open()?) } else { None };
    let pool = Pool::watch(outlet.clone())?;
    let batch = Batch::start(pool.clone(), outlet.clone(), move || match power_off {
        PowerOff::Systemd => {
            systemd::power_off().unwrap_or_else(|error| eprintln!("appliance-agent: {error}"))
        }
        PowerOff::End => process::exit(0),
    });
    let machine = Arc::new(Machine {
        boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .context("cannot read the boot id")?
            .trim()
            .into(),
        pool,
        batch,
        slots: Default::default(),
        power_off,
    });
    if let Some(mut listener) = listener {
        let machine = Arc::clone(&machine);
        thread::spawn(move || serve_connections(&machine, || Some(listener.accept())));
    }
    let port = match port.map_or_else(open, Ok) {
        Ok(port) => port,
        // One that is there has failed: with another agent there may be a second try.
        Err(error) if port::is_any_there() => return Err(error),
        Err(error) => {
            eprintln!("appliance-agent: {error:#}; serving the host over vsock only");
            loop {
                thread::park();
            }
        }
    };
    let session = Session::new(0, &machine, outlet.clone());
    thread::spawn(move || {
        port::others(|number, port| {
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                let served = writer_of(&port).map(Outlet::new);
                let served =
                    served.and_then(|outlet| Session::new(number, &machine, outlet).serve(port));
                if let Err(error) = served {
                    eprintln!("appliance-agent: port {number}: {error:#}");
                }
            });
        });
    });
    session.serve(port)
}

fn writer_of(port: &Port) -> Result<File> {
    port.writer().context("cannot duplicate the port")
}

/// Serves each connection in a thread, [`CONNECTIONS`] at once; closes those that are too many.
fn serve_connections(machine: &Arc<Machine>, mut next: impl FnMut() -> Option<Connection>) {
    let free: Arc<Mutex<Vec<usize>>> = Arc::new(Mutex::new((PORTS..PORTS + CONNECTIONS).collect()));
    while let Some(connection) = next() {
        let Some(number) = free.lock().unwrap_or_else(PoisonError::into_inner).pop() else {
            eprintln!(
                "appliance-agent: vsock: the host has more than {CONNECTIONS} connections; closed \
                 the last one"
            );
            continue;
        };
        let (machine, free) = (Arc::clone(machine), Arc::clone(&free));
        thread::spawn(move || {
            let served = connection.writer().context("cannot duplicate the connection");
            let served = served.and_then(|writer| {
                Session::new(number, &machine, Outlet::new(writer)).serve(connection)
            });
            if let Err(error) = served {
                eprintln!("appliance-agent: vsock: {error:#}");
            }
            free.lock().unwrap_or_else(PoisonError::into_inner).push(number);
        });
    }
}

/// What all sessions share.
struct Machine {
    boot_id: String,
    pool: Pool,
    batch: Batch,
    /// The command of each port and connection.
    slots: [Slot; PORTS + CONNECTIONS],
    power_off: PowerOff,
}

struct Session {
    machine: Arc<Machine>,
    outlet: Outlet,
    /// The host's name for the open session, if one is open.
    name: Option<String>,
    /// Counts the sessions, to distinguish threads of earlier ones.
    number: u64,
    /// A command that the host has not started yet.
    accepted: Option<Exec>,
    slot: Slot,
}

impl Session {
    /// A session on the port with that number, or on one of the connections, which come after the
    /// ports.
    fn new(port: usize, machine: &Arc<Machine>, outlet: Outlet) -> Self {
        let slot = machine.slots[port].clone();
        Self { machine: Arc::clone(machine), outlet, name: None, number: 0, accepted: None, slot }
    }

    /// Serves until the port has its end, or fails.
    fn serve(mut self, mut port: impl Host) -> Result<()> {
        let served = self.talk(&mut port);
        self.close();
        served
    }

    fn talk(&mut self, port: &mut impl Host) -> Result<()> {
        let mut lines = Lines::default();
        let mut bytes = vec![0; 64 * 1024];
        // A host that an earlier agent served waits for that agent's answers.
        if !port.has_end() && port.is_there().context("cannot look for a host")? {
            self.outlet.tell(&Reply::Started {});
        }
        loop {
            let count = self.read(port, &mut bytes)?;
            if count == 0 {
                return Ok(());
            }
            lines.push(&bytes[..count]);
            while let Some(line) = lines.next_line() {
                match line {
                    Ok(line) => self.line(&line),
                    Err(error) => self.refuse(None, error.to_string()),
                }
            }
        }
    }

    /// Waits for bytes from a host; there are none only at the port's end. The session ends if no
    /// host is connected for [`GRACE`].
    fn read(&mut self, port: &mut impl Host, bytes: &mut [u8]) -> Result<usize> {
        let mut alone: Option<Instant> = None;
        loop {
            match port.read(bytes) {
                Ok(0) if port.has_end() => return Ok(0),
                Ok(0) => {}
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("cannot read from the host"),
            }
            let since = *alone.get_or_insert_with(Instant::now);
            let left = GRACE.checked_sub(since.elapsed()).filter(|left| !left.is_zero());
            if left.is_none() {
                self.close();
            }
            port.wait(left).context("cannot wait for a host")?;
            if port.is_there().context("cannot look for a host")? {
                alone = None;
            }
        }
    }

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
            // Without a session, its output would go nowhere.
            Request::Exec(_) if self.name.is_none() => self.tell_name(),
            Request::Exec(exec) => {
                let id = exec.id;
                self.accepted = Some(exec);
                self.outlet.send(self.number, &Reply::Accepted { id });
            }
            Request::Start { id } => self.start(id),
            Request::Stdin { id, data } => self.slot.input(id, data.0),
            Request::Resize { id, size } => self.slot.resize(id, size),
            Request::Ping {} => self.tell_name(),
            Request::Poweroff {} => self.power_off(),
        }
    }

    /// Starts the command that was accepted. A host that has left does not ask for that.
    fn start(&mut self, id: u64) {
        let started = match self.accepted.take_if(|exec| exec.id == id) {
            Some(exec) => self.slot.start(exec, self.number, &self.outlet),
            None => Err(format!("no command {id} was accepted in this session")),
        };
        if let Err(reason) = started {
            self.refuse(Some(id), reason);
        }
    }

    /// Opens a session, or greets the host of the open one again. The host compares the versions,
    /// because only the host can tell the user.
    fn open(&mut self, session: String) {
        if self.name.as_ref() != Some(&session) {
            self.close();
            self.number += 1;
            self.name = Some(session.clone());
        }
        self.outlet.open(self.number, || match report::uptime_ms() {
            Ok(uptime_ms) => Reply::Hello {
                version: exec::VERSION,
                session,
                boot_id: self.machine.boot_id.clone(),
                uptime_ms,
                attach: self.machine.pool.attach(),
                ran: self.machine.batch.ran(),
            },
            Err(error) => Reply::Refused { id: None, reason: error.to_string() },
        });
    }

    /// Tells whichever host is connected which session is open.
    fn tell_name(&self) {
        self.outlet.tell(&Reply::Pong { session: self.name.clone() });
    }

    fn close(&mut self) {
        self.name = None;
        self.accepted = None;
        // Kill the command first: its output may be blocking the outlet, which a disconnected host
        // does not read.
        self.slot.kill();
        self.outlet.close();
    }

    fn power_off(&mut self) {
        // Commands may use files that are about to be unmounted.
        self.machine.slots.iter().for_each(Slot::kill);
        if self.machine.power_off == PowerOff::End {
            process::exit(0);
        }
        if let Err(reason) = systemd::power_off() {
            self.refuse(None, reason);
        }
    }

    fn refuse(&self, id: Option<u64>, reason: String) {
        self.outlet.send(self.number, &Reply::Refused { id, reason });
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
