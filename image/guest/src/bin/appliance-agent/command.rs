// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs the command of a session: one at a time.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use protocol::exec::{Bytes, CHUNK, Exec, Reply, Size, Status, Stream, WINDOW};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};

use crate::batch::as_reported;
use crate::outlet::Outlet;
use crate::spawn::{NotRun, Started, spawn};
use crate::terminal::Terminal;

/// Holds the running command, if there is one.
#[derive(Clone, Default)]
pub struct Slot {
    running: Arc<Mutex<Option<Running>>>,
}

/// A command that has not been reaped, so its process group id cannot be reused.
struct Running {
    id: u64,
    group: Pid,
    stdin: Option<Sender<Vec<u8>>>,
    /// Bytes of standard input that were received and that it has not taken.
    pending: Arc<AtomicU64>,
    /// Its terminal, if it has one.
    terminal: Option<Terminal>,
}

impl Slot {
    /// Starts a command; its replies go to `outlet` as part of `session`.
    ///
    /// # Errors
    /// Why it cannot be started, for people.
    pub fn start(&self, exec: Exec, session: u64, outlet: &Outlet) -> Result<(), String> {
        let id = exec.id;
        let mut running = self.lock();
        if let Some(running) = &*running {
            return Err(format!("command {} is still running", running.id));
        }
        let mut started = match spawn(&exec) {
            Ok(started) => started,
            Err(NotRun { code: None, reason }) => return Err(reason),
            Err(NotRun { code: Some(code), reason }) => {
                drop(running);
                let data = Bytes((reason + "\n").into_bytes());
                outlet.send(session, &Reply::Output { id, stream: Stream::Stderr, data });
                outlet.send(session, &Reply::Exit { id, status: Status::Code(code) });
                return Ok(());
            }
        };
        let group = Pid::from_child(&started.child);
        let pending = Arc::new(AtomicU64::new(0));
        let stdin = started.stdin.take().map(|pipe| {
            let (sender, chunks) = mpsc::channel();
            let (pending, outlet) = (Arc::clone(&pending), outlet.clone());
            thread::spawn(move || {
                feed(pipe, &chunks, |bytes| {
                    pending.fetch_sub(bytes, Ordering::Relaxed);
                    outlet.send(session, &Reply::Taken { id, bytes });
                });
            });
            sender
        });
        let terminal = started.terminal.clone();
        *running = Some(Running { id, group, stdin, pending, terminal });
        let (slot, outlet) = (self.clone(), outlet.clone());
        thread::spawn(move || slot.attend(started, id, group, session, &outlet));
        Ok(())
    }

    /// Passes standard input to a command; an empty message closes it. Input for a command that has
    /// ended is dropped: it was sent before the host knew of the end. More than [`WINDOW`] bytes
    /// that the command has not taken kill it.
    pub fn input(&self, id: u64, data: Vec<u8>) {
        let mut running = self.lock();
        let Some(command) = running.as_mut().filter(|command| command.id == id) else { return };
        let bytes = data.len() as u64;
        if command.pending.fetch_add(bytes, Ordering::Relaxed) + bytes > WINDOW {
            eprintln!(
                "appliance-agent: command {id}: the host sent more than {WINDOW} bytes of standard \
                 input that it has not taken"
            );
            drop(running);
            self.kill();
        } else if data.is_empty() {
            command.stdin = None;
        } else if let Some(stdin) = &command.stdin {
            // A program that closed its standard input does not want more.
            let _ = stdin.send(data);
        }
    }

    /// Changes the size of a command's terminal, if it has one.
    pub fn resize(&self, id: u64, size: Size) {
        let running = self.lock();
        let command = running.as_ref().filter(|command| command.id == id);
        if let Some(terminal) = command.and_then(|command| command.terminal.as_ref())
            && let Err(error) = terminal.resize(size)
        {
            eprintln!("appliance-agent: command {id}: cannot resize its terminal: {error}");
        }
    }

    /// Kills the command with its whole process group, or with all processes of its terminal: there
    /// an interactive shell gives each job a group of its own. Forgets the command.
    pub fn kill(&self) {
        let mut running = self.lock();
        if let Some(command) = running.take() {
            // Fails only if the whole group has already ended.
            let _ = kill_process_group(command.group, Signal::KILL);
            if command.terminal.is_some() {
                kill_session(command.group);
            }
        }
    }

    /// Sends the command's output and how it ends.
    fn attend(&self, started: Started, id: u64, group: Pid, session: u64, outlet: &Outlet) {
        let Started { mut child, stdout, stderr, terminal, .. } = started;
        // Waits without reaping: the group id belongs to the command until the slot is empty.
        let wait = || waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        thread::scope(|scope| {
            scope.spawn(|| pump(stdout, id, Stream::Stdout, session, outlet));
            scope.spawn(|| pump(stderr, id, Stream::Stderr, session, outlet));
            // What remains in the background may keep the terminal open for ever.
            if let Some(terminal) = terminal {
                let _ = wait();
                terminal.end().unwrap_or_else(|error| {
                    eprintln!("appliance-agent: command {id}: cannot end its terminal: {error}");
                });
            }
        });
        let _ = wait();
        let status = {
            let mut running = self.lock();
            let status = child.wait();
            if running.as_ref().is_some_and(|running| running.group == group) {
                *running = None;
            }
            status
        };
        let reply = match status {
            Ok(status) => Reply::Exit { id, status: as_reported(status) },
            Err(error) => Reply::Refused { id: Some(id), reason: format!("cannot wait: {error}") },
        };
        outlet.send(session, &reply);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills all processes of the session of `leader`, which has not been reaped.
fn kill_session(leader: Pid) {
    let mut killed = HashSet::new();
    loop {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut found: Vec<Pid> = pids.filter_map(Pid::from_raw).collect();
        found.retain(|pid| session_of(*pid) == Some(leader) && killed.insert(*pid));
        if found.is_empty() {
            // A process that is killed starts no other, so there are no more.
            return;
        }
        for pid in found {
            // Fails only if it has ended.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The session of a process; a kernel thread has none.
fn session_of(pid: Pid) -> Option<Pid> {
    // number (name) state parent group session
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (_, fields) = stat.rsplit_once(") ")?;
    Pid::from_raw(fields.split(' ').nth(3)?.parse().ok()?)
}

/// Sends a stream of a command until it is closed.
fn pump(stream: Option<impl Read>, id: u64, name: Stream, session: u64, outlet: &Outlet) {
    let Some(mut stream) = stream else { return };
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return,
            Ok(count) => {
                let data = Bytes(chunk[..count].to_vec());
                outlet.send(session, &Reply::Output { id, stream: name, data });
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                eprintln!("appliance-agent: command {id}: {name:?}: {error}");
                return;
            }
        }
    }
}

/// Writes standard input until all of it is written or the program closes it. Calls `taken` with
/// the length of each chunk that is written.
fn feed(mut pipe: impl Write, chunks: &Receiver<Vec<u8>>, taken: impl Fn(u64)) {
    for chunk in chunks {
        if pipe.write_all(&chunk).is_err() {
            return;
        }
        taken(chunk.len() as u64);
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
