// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs the command of a session: one at a time.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use protocol::exec::{Bytes, CHUNK, Exec, Reply, Status, Stream, WINDOW};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::batch::as_reported;
use crate::outlet::Outlet;

/// Exit codes for commands that were not run, as in shells (POSIX, "Exit Status for Commands").
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

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
}

impl Slot {
    /// Starts a command; its replies go to `outlet` as part of `session`.
    ///
    /// # Errors
    /// Why it cannot be started, for people.
    pub fn start(&self, exec: Exec, session: u64, outlet: &Outlet) -> Result<(), String> {
        let Exec { id, argv, env, stdin } = exec;
        let mut running = self.lock();
        if let Some(running) = &*running {
            return Err(format!("command {} is still running", running.id));
        }
        let [program, arguments @ ..] = &argv[..] else { return Err("no program to run".into()) };
        let input = if stdin { Stdio::piped() } else { Stdio::null() };
        let child = Command::new(program)
            .args(arguments)
            .envs(env)
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                let said = format!("cannot run {program}: {error}");
                let code = not_run(&error).ok_or_else(|| said.clone())?;
                drop(running);
                let data = Bytes((said + "\n").into_bytes());
                outlet.send(session, &Reply::Output { id, stream: Stream::Stderr, data });
                outlet.send(session, &Reply::Exit { id, status: Status::Code(code) });
                return Ok(());
            }
        };
        let group = Pid::from_child(&child);
        let pending = Arc::new(AtomicU64::new(0));
        let stdin = child.stdin.take().map(|pipe| {
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
        *running = Some(Running { id, group, stdin, pending });
        let (slot, outlet) = (self.clone(), outlet.clone());
        thread::spawn(move || slot.attend(child, id, group, session, &outlet));
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

    /// Kills the command with its whole process group, and forgets it.
    pub fn kill(&self) {
        let mut running = self.lock();
        if let Some(command) = running.take() {
            // Fails only if the whole group has already ended.
            let _ = kill_process_group(command.group, Signal::KILL);
        }
    }

    /// Sends the command's output and how it ends.
    fn attend(&self, mut child: Child, id: u64, group: Pid, session: u64, outlet: &Outlet) {
        let streams = (child.stdout.take(), child.stderr.take());
        thread::scope(|scope| {
            scope.spawn(|| pump(streams.0, id, Stream::Stdout, session, outlet));
            scope.spawn(|| pump(streams.1, id, Stream::Stderr, session, outlet));
        });
        // Waits without reaping: the group id belongs to the command until the slot is empty.
        let _ = waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
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

/// The exit code for a program that cannot be run; `None` if the program is not the reason.
fn not_run(error: &io::Error) -> Option<i32> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Some(NOT_FOUND),
        io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => Some(NOT_EXECUTABLE),
        _ => (error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error())).then_some(NOT_EXECUTABLE),
    }
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
