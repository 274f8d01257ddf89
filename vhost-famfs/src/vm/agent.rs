// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's end of the guest command protocol ([`protocol::exec`]).

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use protocol::attach::Attach;
use protocol::exec::{Exec, PORTS, Request, Size, Status};

use super::connection::Connection;
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
    tty: Option<Size>,
    workdir: Option<String>,
    user: Option<String>,
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

    /// Gives it a terminal of this size.
    #[must_use]
    pub fn tty(self, size: Size) -> Self {
        Self { tty: Some(size), ..self }
    }

    /// Sets the directory to run it in.
    #[must_use]
    pub fn workdir(self, directory: impl Into<String>) -> Self {
        Self { workdir: Some(directory.into()), ..self }
    }

    /// Sets whom to run it as: `NAME|UID[:GROUP|GID]`. The guest looks the names up.
    #[must_use]
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..self }
    }

    /// The command in the form of a request.
    pub(super) fn request(&self, id: u64, stdin: bool) -> Request {
        let Self { argv, env, stdin: _, tty, workdir, user } = self.clone();
        Request::Exec(Exec { id, argv, env, stdin, tty, workdir, user })
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
    /// The agent runs, but has no such session any more.
    #[error(
        "the guest took the connection for closed and ended the command; run it again if it may \
         run twice"
    )]
    Lost,
    /// The agent does not answer any more.
    #[error(
        "the guest has not answered for {0:?}: it hangs or is paused, or its agent has ended; its \
         command may still be running"
    )]
    Silent(Duration),
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

/// How to make sure that the guest still has what it was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Pause between two greetings, or two questions for the session.
    pub(super) step: Duration,
    /// How long a guest that has greeted may leave such questions unanswered. Longer than any busy
    /// host lets a guest wait.
    pub(super) silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { step: Duration::from_secs(5), silence: Duration::from_secs(300) }
    }
}

/// A connection to a guest's agent. After an error, the connection is closed, which ends the
/// command in the guest; the next use opens a new one.
#[derive(Debug)]
pub(super) struct Agent {
    socket: PathBuf,
    patience: Patience,
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
        Self { socket, patience: Patience::default(), connection: None }
    }

    /// With another patience, for tests.
    #[cfg(test)]
    pub(super) fn patient(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Tries to connect; `false` if nobody is listening yet.
    pub(super) fn connect(&mut self, deadline: Deadline) -> Result<bool, ExecError> {
        let failed = |source| ExecError::Socket { socket: self.socket.clone(), source };
        match connect_until(&self.socket, deadline) {
            Ok(stream) => {
                self.connection = Some(Connection::open(stream, self.patience).map_err(failed)?);
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
                connection.listen(wait)?;
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
                connection.listen(wait)?;
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

    /// Has the guest accept a command, which it then runs; returns the command's id. If the agent
    /// ends before it accepts the command, the next one is asked.
    pub(super) fn accept(
        &mut self,
        command: &Command,
        stdin: bool,
        doing: &str,
        limit: Duration,
    ) -> Result<u64, ExecError> {
        let deadline = Deadline::after(limit);
        loop {
            let left = deadline.left().unwrap_or_default();
            let accepted = self.session(doing, left, |connection, wait| {
                connection.greeted(wait)?;
                connection.ask(command, stdin, wait)
            });
            match accepted {
                Err(ExecError::Restarted | ExecError::Lost) if deadline.left().is_some() => {}
                Err(ExecError::Timeout { doing, .. }) => {
                    return Err(ExecError::Timeout { doing, limit });
                }
                result => return result,
            }
        }
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
    pub(super) fn left(&self) -> Result<Duration, ExecError> {
        self.deadline.left().ok_or_else(|| self.timeout())
    }

    pub(super) fn timeout(&self) -> ExecError {
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

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
