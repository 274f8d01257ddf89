// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's end of the guest command protocol ([`protocol::exec`]).

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use protocol::attach::Attach;
use protocol::exec::{Request, Status, VSOCK_PORT};

use super::channel::Channel;
use super::command::Command;
use super::connection::{Connection, Hello, Patience};
use super::deadline::Deadline;
use super::exec_error::{ExecError, Failure};
use super::socket::connect_until;
use super::vsock;
use super::wait::Wait;

/// Pause after the agent closed a connection: it may be starting again.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection to a guest's agent. After an error, the connection is closed, which ends the
/// command in the guest; the next use opens a new one.
#[derive(Debug)]
pub(super) struct Agent {
    socket: PathBuf,
    channel: Channel,
    patience: Patience,
    connection: Option<Connection>,
}

impl Agent {
    /// The agent behind the socket of a port. Does not connect yet.
    pub(super) fn new(socket: PathBuf) -> Self {
        Self::over(Channel::Ports, socket)
    }

    /// The agent behind a socket of that kind. Does not connect yet.
    pub(super) fn over(channel: Channel, socket: PathBuf) -> Self {
        Self { socket, channel, patience: Patience::default(), connection: None }
    }

    /// With another patience, for tests.
    #[cfg(test)]
    pub(super) fn patient(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Tries to connect; `false` if no VMM is listening yet.
    pub(super) fn connect(&mut self, deadline: Deadline) -> Result<bool, ExecError> {
        let failed = |source| ExecError::Socket { socket: self.socket.clone(), source };
        let connected = match self.channel {
            Channel::Ports => connect_until(&self.socket, deadline),
            Channel::Vsock => vsock::connect(&self.socket, VSOCK_PORT, deadline),
        };
        match connected {
            Ok(stream) => match Connection::open(stream, self.patience) {
                Err(error) if self.channel == Channel::Vsock && vsock::is_closed(&error) => {
                    Err(ExecError::Closed)
                }
                opened => {
                    self.connection = Some(opened.map_err(failed)?);
                    Ok(true)
                }
            },
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

    /// Has the guest accept a command, which runs once it is started; returns the command's id. If
    /// the agent ends before it accepts the command, the next one is asked.
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
                Err(ExecError::Closed) if deadline.left().is_some() => thread::sleep(PAUSE),
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
                Failure::Exec(ExecError::Ended) if self.channel == Channel::Vsock => {
                    ExecError::Closed
                }
                Failure::Exec(error) => error,
                Failure::Io(source) => ExecError::Socket { socket: self.socket.clone(), source },
            }
        })
    }
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
