// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's end of the guest command protocol ([`protocol::exec`]).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use protocol::attach::Attach;
use protocol::exec::{self, PORTS, Reply, Request, Status};
use protocol::line::Lines;
use uuid::Uuid;

use super::deadline::Deadline;
use super::socket::connect_until;

/// Maximum length of a command in a message.
const MAX_SHOWN: usize = 120;

/// A command for a guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command {
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    stdin: Vec<u8>,
}

impl Command {
    /// A program (searched for in the guest's `PATH`) and its arguments.
    pub fn new<W: Into<String>>(argv: impl IntoIterator<Item = W>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// A script for the guest's `bash`; it ends at the first command that fails.
    #[must_use]
    pub fn shell(script: &str) -> Self {
        Self::new(["bash", "-euo", "pipefail", "-c", script])
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Arguments and environment variables, in the form of a request.
    pub(super) fn parts(&self) -> (Vec<String>, BTreeMap<String, String>) {
        (self.argv.clone(), self.env.clone())
    }

    /// Its standard input, if all of it is known.
    pub(super) fn input(&self) -> &[u8] {
        &self.stdin
    }

    /// Sets its standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }
}

/// The command for messages: its first line, truncated to `MAX_SHOWN` characters.
impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = self.argv.join(" ");
        let shown: String =
            whole.trim_start().chars().take_while(|&c| c != '\n').take(MAX_SHOWN).collect();
        let rest = if shown.len() < whole.trim().len() { "..." } else { "" };
        write!(f, "{shown}{rest}")
    }
}

/// The output of a command, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: Status,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// Why a guest did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The agent's socket cannot be used.
    #[error("agent socket {}", socket.display())]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// QEMU closed the connection because it ended.
    #[error("the VM has ended")]
    Ended,
    /// No answer in time.
    #[error("{doing}: not finished after {limit:?}")]
    Timeout {
        /// What was being done.
        doing: String,
        /// How long it was given.
        limit: Duration,
    },
    /// The agent ended, and another one took its place.
    #[error("the guest's agent has ended, and with it the command; it runs again")]
    Restarted,
    /// The guest's agent was built from another version of the source.
    #[error(
        "the guest's agent speaks protocol version {found}, expected {expected}: its image is of \
         another version than this program; use the image of this version (`cargo xtask image` \
         builds it), and start the VM again with `vhost-famfs down` and `up`"
    )]
    Version {
        /// The guest's.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// The VM has no ports for commands.
    #[error(
        "the VM was started by an older vhost-famfs, without ports for commands; start it again \
         with `vhost-famfs down` and `up`"
    )]
    NoPorts,
    /// All ports are in use.
    #[error(
        "{count} commands are running in it at the host's request, which is as many as are \
         possible, and none ended within {limit:?}",
        count = PORTS - 1,
        limit = .0
    )]
    Busy(Duration),
    /// The guest did not start the command.
    #[error("the guest refused: {command}: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// Why.
        reason: String,
    },
    /// The guest sent a message that the protocol does not allow.
    #[error("the guest's agent sent an unexpected message: {0}")]
    Protocol(String),
    /// Standard input cannot be read.
    #[error("cannot read the standard input of {command}")]
    Input {
        /// The command.
        command: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Output cannot be written.
    #[error("cannot write the output of {command}")]
    Output {
        /// The command.
        command: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A connection to a guest's agent. After an error, the connection is closed, which ends the
/// command in the guest; the next use opens a new one.
#[derive(Debug)]
pub(super) struct Agent {
    socket: PathBuf,
    connection: Option<Connection>,
}

/// The agent's message at the start of a session.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    pub(super) boot_id: String,
    pub(super) uptime_ms: u64,
    pub(super) attach: Attach,
    pub(super) ran: Option<Status>,
}

impl Agent {
    /// The agent behind a socket. Does not connect yet.
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket, connection: None }
    }

    /// Tries to connect; `false` if nobody is listening yet.
    pub(super) fn connect(&mut self, deadline: Deadline) -> Result<bool, ExecError> {
        let failed = |source| ExecError::Socket { socket: self.socket.clone(), source };
        match connect_until(&self.socket, deadline) {
            Ok(stream) => {
                self.connection = Some(Connection::open(stream).map_err(failed)?);
                Ok(true)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Waits until the guest's agent answers.
    pub(super) fn hello(&mut self, limit: Duration) -> Result<Hello, ExecError> {
        self.session("waiting for the guest's agent", limit, |connection, wait| {
            connection.greeted(wait).cloned()
        })
    }

    /// Waits until the pool is mounted or the mount has failed. Returns the state of the guest at
    /// that moment.
    pub(super) fn attached(&mut self, limit: Duration) -> Result<Hello, ExecError> {
        self.session("waiting for the guest to mount the pool", limit, |connection, wait| {
            loop {
                let hello = connection.greeted(wait)?;
                if hello.attach != Attach::Pending {
                    return Ok(hello.clone());
                }
                connection.receive(wait)?;
            }
        })
    }

    /// Waits until the command for which the guest was started has ended.
    pub(super) fn ran(&mut self, limit: Duration) -> Result<Status, ExecError> {
        self.session("waiting for the guest's command", limit, |connection, wait| {
            loop {
                if let Some(status) = connection.greeted(wait)?.ran {
                    return Ok(status);
                }
                connection.receive(wait)?;
            }
        })
    }

    /// Asks for an orderly power-off.
    pub(super) fn poweroff(&mut self, limit: Duration) -> Result<(), ExecError> {
        self.session("asking the guest to power off", limit, |connection, wait| {
            connection.greeted(wait)?;
            connection.send(&Request::Poweroff {}, wait)
        })
    }

    /// Closes the connection; the next use opens a new one.
    pub(super) fn close(&mut self) {
        self.connection = None;
    }

    /// Runs an operation on an open connection; closes the connection if it fails.
    pub(super) fn session<T>(
        &mut self,
        doing: &str,
        limit: Duration,
        work: impl FnOnce(&mut Connection, &Wait<'_>) -> Result<T, Failure>,
    ) -> Result<T, ExecError> {
        let wait = Wait { doing, limit, deadline: Deadline::after(limit) };
        if self.connection.is_none() && !self.connect(wait.deadline)? {
            return Err(ExecError::Ended);
        }
        let Some(connection) = &mut self.connection else { return Err(ExecError::Ended) };
        work(connection, &wait).map_err(|failure| {
            let refused = matches!(failure, Failure::Exec(ExecError::Refused { .. }));
            if !refused {
                self.connection = None;
            }
            match failure {
                Failure::Exec(error) => error,
                Failure::Io(source) => ExecError::Socket { socket: self.socket.clone(), source },
            }
        })
    }
}

/// What to wait for, and how long.
pub(super) struct Wait<'a> {
    pub(super) doing: &'a str,
    pub(super) limit: Duration,
    pub(super) deadline: Deadline,
}

impl Wait<'_> {
    fn left(&self) -> Result<Duration, ExecError> {
        self.deadline.left().ok_or_else(|| self.timeout())
    }

    fn timeout(&self) -> ExecError {
        ExecError::Timeout { doing: self.doing.to_owned(), limit: self.limit }
    }
}

/// An error without the socket's name, which only [`Agent`] knows.
pub(super) enum Failure {
    Io(io::Error),
    Exec(ExecError),
}

impl From<ExecError> for Failure {
    fn from(error: ExecError) -> Self {
        Self::Exec(error)
    }
}

/// An open session.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    lines: Lines,
    session: String,
    hello: Option<Hello>,
    last_id: u64,
}

impl Connection {
    /// Starts a session without waiting. The guest answers once it is up.
    fn open(stream: UnixStream) -> io::Result<Self> {
        let session = Uuid::new_v4().to_string();
        let hello = Request::Hello { version: exec::VERSION, session: session.clone() };
        // The line feed ends a message that an earlier host left incomplete.
        let mut line = vec![b'\n'];
        line.extend(exec::encode(&hello)?);
        (&stream).write_all(&line)?;
        Ok(Self { stream, lines: Lines::default(), session, hello: None, last_id: 0 })
    }

    /// Waits for the answer to the first message.
    pub(super) fn greeted(&mut self, wait: &Wait<'_>) -> Result<&Hello, Failure> {
        while self.hello.is_none() {
            self.receive(wait)?;
        }
        self.hello.as_ref().ok_or_else(|| Failure::Exec(wait.timeout()))
    }

    /// An id for a command, unique in this session.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A handle of the connection for another thread, which only writes.
    pub(super) fn stream_clone(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    pub(super) fn send(&mut self, request: &Request, wait: &Wait<'_>) -> Result<(), Failure> {
        let line = exec::encode(request).map_err(|error| Failure::Io(error.into()))?;
        self.stream.set_write_timeout(Some(wait.left()?)).map_err(Failure::Io)?;
        self.stream.write_all(&line).map_err(|error| io_failure(error, wait))
    }

    /// Receives the next message. Greetings and changes of the pool's state are recorded, not
    /// returned; messages of an earlier session are ignored.
    pub(super) fn receive(&mut self, wait: &Wait<'_>) -> Result<Option<Reply>, Failure> {
        let line = loop {
            if let Some(line) = self.lines.next_line() {
                break line;
            }
            self.stream.set_read_timeout(Some(wait.left()?)).map_err(Failure::Io)?;
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ExecError::Ended.into()),
                Ok(count) => self.lines.push(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_failure(error, wait)),
            }
        };
        let reply = line.map_err(|error| error.to_string()).and_then(|line| {
            if exec::says_started(&line) {
                return Ok(Reply::Started {});
            }
            exec::decode::<Reply>(&line).map_err(|error| error.to_string())
        });
        match reply {
            Ok(Reply::Hello { version, session, boot_id, uptime_ms, attach, ran })
                if session == self.session =>
            {
                if version != exec::VERSION {
                    let expected = exec::VERSION;
                    return Err(ExecError::Version { found: version, expected }.into());
                }
                self.hello = Some(Hello { boot_id, uptime_ms, attach, ran });
                Ok(None)
            }
            // Everything before the greeting belongs to an earlier session.
            _ if self.hello.is_none() => Ok(None),
            Ok(Reply::Attach { attach: new }) => {
                if let Some(hello) = &mut self.hello {
                    hello.attach = new;
                }
                Ok(None)
            }
            Ok(Reply::Ran { status }) => {
                if let Some(hello) = &mut self.hello {
                    hello.ran = Some(status);
                }
                Ok(None)
            }
            Ok(Reply::Started {}) => Err(ExecError::Restarted.into()),
            Ok(reply) => Ok(Some(reply)),
            Err(error) => Err(ExecError::Protocol(error).into()),
        }
    }
}

/// Another thread may hold the stream; the guest must learn of the end nevertheless.
impl Drop for Connection {
    fn drop(&mut self) {
        // Fails only if the connection has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// A closed connection and an expired timeout have their own errors.
fn io_failure(error: io::Error, wait: &Wait<'_>) -> Failure {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::Exec(wait.timeout()),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            Failure::Exec(ExecError::Ended)
        }
        _ => Failure::Io(error),
    }
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
