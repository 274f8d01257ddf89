// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A command in a guest, with its streams: both ends wait for each other, so memory is bounded.

use std::io::{self, Read, Write};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use protocol::exec::{Bytes, CHUNK, Reply, Request, Size, Status, Stream, WINDOW};

use super::agent::Agent;
use super::command::{Command, Output};
use super::connection::{Connection, Sender};
use super::deadline::Deadline;
use super::exec_error::{ExecError, Failure};
use super::wait::Wait;

/// Maximum output to keep for one command: a guest must not fill the host's memory.
const MAX_OUTPUT: usize = 64 * 1024 * 1024;

/// Maximum number of messages during one command that neither carry output nor end it. A healthy
/// agent sends one when the state of the pool changes; an agent that keeps sending them would keep
/// the command from ending.
const MAX_TALK: u32 = 10_000;

/// Prepares the user's terminal.
pub type Begin<'s> = Box<dyn FnOnce() -> io::Result<()> + 's>;

/// The streams of a command.
pub struct Streams<'s> {
    /// The source of its standard input, if it has any; read by a thread that may outlive the
    /// command.
    pub input: Option<Box<dyn Read + Send>>,
    /// New sizes of its terminal, if it has one; read by a thread that may outlive the command.
    pub sizes: Option<Receiver<Size>>,
    /// Called when the guest has accepted the command, before it starts.
    pub begin: Option<Begin<'s>>,
    /// Receives its standard output.
    pub stdout: &'s mut dyn Write,
    /// Receives its standard error.
    pub stderr: &'s mut dyn Write,
}

impl Agent {
    /// Runs a command to completion and keeps its output.
    pub(super) fn exec(&mut self, command: &Command, limit: Duration) -> Result<Output, ExecError> {
        let doing = command.to_string();
        let deadline = Deadline::after(limit);
        let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
        let input: Option<Box<dyn Read + Send>> = match command.input() {
            [] => None,
            bytes => Some(Box::new(io::Cursor::new(bytes.to_vec()))),
        };
        let id =
            self.accept(command, input.is_some(), &doing, limit).map_err(|error| match error {
                ExecError::Timeout { doing, limit } => {
                    ExecError::NotAccepted { command: doing, limit }
                }
                error => error,
            })?;
        let streams =
            Streams { input, sizes: None, begin: None, stdout: &mut stdout, stderr: &mut stderr };
        let status = self.session(&doing, limit, |connection, _| {
            let wait = || Wait { doing: &doing, limit, deadline };
            connection.run(command, id, streams, wait, false)
        })?;
        Ok(Output { status, stdout: stdout.0, stderr: stderr.0 })
    }
}

impl Connection {
    /// Starts a command that was accepted, and passes its streams to its end. `wait` is for each
    /// message; a `patient` caller gives the command any number of them.
    pub(super) fn run<'w>(
        &mut self,
        command: &Command,
        id: u64,
        mut streams: Streams<'_>,
        wait: impl Fn() -> Wait<'w>,
        patient: bool,
    ) -> Result<Status, Failure> {
        if let Some(begin) = streams.begin.take() {
            begin().map_err(ExecError::Terminal)?;
        }
        self.send(&Request::Start { id }, &wait())?;
        let credit = Arc::new(Credit::default());
        if let Some(input) = streams.input.take() {
            let (port, credit) = (self.sender().map_err(Failure::Io)?, Arc::clone(&credit));
            thread::spawn(move || feed(input, &port, id, &credit));
        }
        if let Some(sizes) = streams.sizes.take() {
            let port = self.sender().map_err(Failure::Io)?;
            thread::spawn(move || {
                let mut resizes = sizes.into_iter().map(|size| Request::Resize { id, size });
                // Ends with the connection, or when there are no more sizes.
                resizes.all(|resize| port.send(&resize).is_ok())
            });
        }
        let result = self.replies(command, id, &mut streams, &wait, patient, &credit);
        match (credit.end(), result) {
            (Some(source), _) => {
                Err(ExecError::Input { command: command.to_string(), source }.into())
            }
            (None, result) => result,
        }
    }

    fn replies<'w>(
        &mut self,
        command: &Command,
        id: u64,
        streams: &mut Streams<'_>,
        wait: &impl Fn() -> Wait<'w>,
        patient: bool,
        credit: &Credit,
    ) -> Result<Status, Failure> {
        let unexpected = |what| Err(ExecError::Protocol(what).into());
        let mut talk = 0;
        loop {
            if talk > MAX_TALK {
                return unexpected(format!("{talk} messages that are not output of {command}"));
            }
            match self.receive(&wait()) {
                Ok(Some(Reply::Output { id: of, stream, data: Bytes(data) })) if of == id => {
                    talk += u32::from(data.is_empty());
                    let to = match stream {
                        Stream::Stdout => &mut streams.stdout,
                        Stream::Stderr => &mut streams.stderr,
                    };
                    let command = command.to_string();
                    let failed = |source| ExecError::Output { command, source };
                    to.write_all(&data).and_then(|()| to.flush()).map_err(failed)?;
                }
                Ok(Some(Reply::Taken { id: of, bytes })) if of == id => {
                    if bytes == 0 || !credit.taken(bytes) {
                        return unexpected(format!("{bytes} bytes taken that were not sent"));
                    }
                }
                // Of an earlier command that did not wait for its input.
                Ok(Some(Reply::Taken { id: of, .. })) if of < id => talk += 1,
                Ok(Some(Reply::Exit { id: of, status })) if of == id => return Ok(status),
                Ok(Some(Reply::Refused { id: of, reason })) if of == Some(id) || of.is_none() => {
                    let command = command.to_string();
                    return Err(ExecError::Refused { command, reason }.into());
                }
                Ok(Some(other)) => return unexpected(format!("{other:?}")),
                Ok(None) => talk += 1,
                // The command is still running.
                Err(Failure::Exec(ExecError::Timeout { .. })) if patient => {}
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// How much standard input is under way.
#[derive(Default)]
struct Credit {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes that were sent and that the command has not taken.
    under_way: u64,
    /// Whether the command has ended.
    ended: bool,
    /// Why the input could not be read.
    failed: Option<io::Error>,
}

impl Credit {
    /// Waits until so many bytes may be sent; `false` if the command needs no more.
    fn spend(&self, bytes: u64) -> bool {
        let full = |state: &mut State| !state.ended && state.under_way + bytes > WINDOW;
        let state = self.changed.wait_while(self.state(), full);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.under_way += bytes;
        !state.ended
    }

    /// The command has taken so many bytes; `false` if so many were not under way.
    fn taken(&self, bytes: u64) -> bool {
        let mut state = self.state();
        let left = state.under_way.checked_sub(bytes);
        state.under_way = left.unwrap_or_default();
        self.changed.notify_all();
        left.is_some()
    }

    /// The command has ended; returns why its input could not be read, if that is so.
    fn end(&self) -> Option<io::Error> {
        let mut state = self.state();
        state.ended = true;
        self.changed.notify_all();
        state.failed.take()
    }

    fn fail(&self, error: io::Error) {
        self.state().failed = Some(error);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends standard input until its end, or until the command ends. Input that cannot be read ends
/// the connection, and so the command: it must not take a part for the whole.
fn feed(mut input: Box<dyn Read + Send>, port: &Sender, id: u64, credit: &Credit) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                credit.fail(error);
                port.close();
                return;
            }
        };
        let request = Request::Stdin { id, data: Bytes(buffer[..count].to_vec()) };
        // A command that has ended needs no more input.
        if !credit.spend(count as u64) || port.send(&request).is_err() || count == 0 {
            return;
        }
    }
}

/// Output that is kept, up to a limit.
#[derive(Default)]
struct Kept(Vec<u8>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other(format!("it is more than {MAX_OUTPUT} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_under_way_than_the_window_holds() {
        let credit = Arc::new(Credit::default());
        assert!(credit.spend(WINDOW));
        let other = Arc::clone(&credit);
        let waiting = thread::spawn(move || other.spend(1));
        thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        assert!(credit.taken(1) && waiting.join().unwrap());
        assert!(!credit.taken(WINDOW + 1), "so many were not sent");
    }

    #[test]
    fn the_end_of_a_command_ends_its_input() {
        let credit = Arc::new(Credit::default());
        assert!(credit.spend(WINDOW));
        let other = Arc::clone(&credit);
        let waiting = thread::spawn(move || other.spend(1));
        assert!(credit.end().is_none());
        assert!(!waiting.join().unwrap());
    }
}
