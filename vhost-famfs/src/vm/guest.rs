// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest of a VM that another program started. Runs commands and passes their streams on as
//! they come.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use protocol::exec::{self, Bytes, CHUNK, MAX_STDIN, Reply, Request, Status, Stream};

use super::agent::{Agent, Command, Connection, ExecError, Failure, Wait};
use super::deadline::Deadline;

/// Time limit for sending or receiving one message; a command may take any number of messages.
const STEP: Duration = Duration::from_secs(3600);

/// Maximum number of messages during one command that neither carry output nor end it. A healthy
/// agent sends one when the state of the pool changes; an agent that keeps sending them would keep
/// the command from ending.
const MAX_TALK: u32 = 10_000;

/// The guest's unit that follows the pool's log.
const WATCH_SERVICE: &str = "famfs-watch.service";

/// How many characters of its status to keep: a guest may send anything.
const MOST_STATUS: usize = 300;

/// A guest, identified by its agent's socket. No connection stays open between calls.
#[derive(Debug)]
pub struct Guest {
    agent: Agent,
}

/// The streams of a command.
pub struct Streams<'s> {
    /// The source of its standard input, if it has any; read by a thread that may outlive the
    /// command.
    pub input: Option<Box<dyn Read + Send>>,
    /// Receives its standard output.
    pub stdout: &'s mut dyn Write,
    /// Receives its standard error.
    pub stderr: &'s mut dyn Write,
}

impl Guest {
    /// The guest behind a socket.
    #[must_use]
    pub fn new(agent_socket: PathBuf) -> Self {
        Self { agent: Agent::new(agent_socket) }
    }

    /// Asks for an orderly power-off.
    ///
    /// # Errors
    /// The agent does not accept the request within `limit`.
    pub fn poweroff(&mut self, limit: Duration) -> Result<(), ExecError> {
        self.agent.poweroff(limit)
    }

    /// The status of the guest's watch on the pool, on one line without control characters. `None`
    /// if the guest does not report it within `limit`, or has no service manager that knows it.
    pub fn watch_status(&mut self, limit: Duration) -> Option<String> {
        let command =
            Command::new(["systemctl", "show", "--property=StatusText", "--value", WATCH_SERVICE]);
        let output = self.agent.exec(&command, limit);
        self.agent.close();
        let said = output.ok().filter(|output| output.status.success())?.stdout;
        let text: String = String::from_utf8_lossy(said.trim_ascii())
            .chars()
            .take(MOST_STATUS)
            .flat_map(char::escape_debug)
            .collect();
        (!text.is_empty()).then_some(text)
    }

    /// Runs a command to completion, no matter how long that takes. `limit` is the time for the
    /// agent to answer: it serves one program at a time.
    ///
    /// The command is killed when this program ends or the call fails.
    ///
    /// # Errors
    /// The VM has ended, the guest did not start the command, or a stream failed.
    pub fn stream(
        &mut self,
        command: &Command,
        streams: Streams<'_>,
        limit: Duration,
    ) -> Result<Status, ExecError> {
        let too_much = Arc::new(AtomicBool::new(false));
        let doing = command.to_string();
        let result =
            self.agent.session("waiting for the guest's agent", limit, |connection, wait| {
                connection.greeted(wait)?;
                connection.stream(command, &doing, streams, &too_much)
            });
        if too_much.load(Ordering::Relaxed) {
            return Err(ExecError::Input(MAX_STDIN + 1));
        }
        // Messages about one command do not count for the next.
        self.agent.close();
        result
    }
}

impl Connection {
    fn stream(
        &mut self,
        command: &Command,
        doing: &str,
        mut streams: Streams<'_>,
        too_much: &Arc<AtomicBool>,
    ) -> Result<Status, Failure> {
        let step = || Wait { doing, limit: STEP, deadline: Deadline::after(STEP) };
        let id = self.next_id();
        let (argv, env) = command.parts();
        let stdin = streams.input.is_some();
        self.send(&Request::Exec { id, argv, env, stdin }, &step())?;
        if let Some(input) = streams.input.take() {
            let port = self.stream_clone().map_err(Failure::Io)?;
            let too_much = Arc::clone(too_much);
            thread::spawn(move || {
                if feed(input, &port, id).is_err() {
                    too_much.store(true, Ordering::Relaxed);
                    let _ = port.shutdown(Shutdown::Both);
                }
            });
        }
        let mut talk = 0;
        loop {
            if talk > MAX_TALK {
                let said = format!("{talk} messages that are not output of {doing}");
                return Err(ExecError::Protocol(said).into());
            }
            match self.receive(&step()) {
                Ok(Some(Reply::Output { id: of, stream, data: Bytes(data) })) if of == id => {
                    talk += u32::from(data.is_empty());
                    let to = match stream {
                        Stream::Stdout => &mut streams.stdout,
                        Stream::Stderr => &mut streams.stderr,
                    };
                    to.write_all(&data).and_then(|()| to.flush()).map_err(Failure::Io)?;
                }
                Ok(Some(Reply::Exit { id: of, status })) if of == id => return Ok(status),
                Ok(Some(Reply::Refused { id: of, reason })) if of == Some(id) || of.is_none() => {
                    let command = doing.to_owned();
                    return Err(ExecError::Refused { command, reason }.into());
                }
                Ok(Some(other)) => return Err(ExecError::Protocol(format!("{other:?}")).into()),
                Ok(None) => talk += 1,
                // No message for an hour: the command is still running.
                Err(Failure::Exec(ExecError::Timeout { .. })) => {}
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// Sends standard input until its end. Fails if it is more than the guest can hold.
fn feed(
    mut input: Box<dyn Read + Send>,
    mut port: &std::os::unix::net::UnixStream,
    id: u64,
) -> Result<(), ()> {
    let (mut buffer, mut sent) = (vec![0; CHUNK], 0);
    loop {
        let count = match input.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Input that cannot be read has ended.
            Err(_) => 0,
        };
        sent += count;
        if sent > MAX_STDIN {
            return Err(());
        }
        let request = Request::Stdin { id, data: Bytes(buffer[..count].to_vec()) };
        let line = exec::encode(&request).map_err(|_| ())?;
        // A command that has ended needs no more input.
        if port.write_all(&line).is_err() || count == 0 {
            return Ok(());
        }
    }
}
