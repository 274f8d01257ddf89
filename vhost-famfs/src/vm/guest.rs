// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest of a VM that another program started. Runs commands and passes their streams on as
//! they come.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::exec::Status;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::agent::Agent;
use super::channel::Channel;
use super::command::{Command, Output};
use super::deadline::Deadline;
use super::exec_error::ExecError;
use super::paths::VmPaths;
use super::stream::Streams;
use super::wait::Wait;

/// Time limit for sending or receiving one message; a command may take any number of messages.
const STEP: Duration = Duration::from_secs(3600);

/// The guest's unit that follows the pool's log.
const WATCH_SERVICE: &str = "famfs-watch.service";

/// How many characters of its status to keep: a guest may send anything.
const MOST_STATUS: usize = 300;

/// A guest, identified by its agent's socket. No connection stays open between calls.
#[derive(Debug)]
pub struct Guest {
    agent: Agent,
    /// The lock of the port, if it is one for commands.
    _lock: Option<File>,
}

impl Guest {
    /// The guest behind the socket of a port.
    #[must_use]
    pub fn new(agent_socket: PathBuf) -> Self {
        Self { agent: Agent::new(agent_socket), _lock: None }
    }

    /// The guest of a VM, for short requests.
    #[must_use]
    pub fn of(paths: &VmPaths, channel: Channel) -> Self {
        let socket = match channel {
            Channel::Ports => &paths.agent,
            Channel::Vsock => &paths.vsock,
        };
        Self { agent: Agent::over(channel, socket.clone()), _lock: None }
    }

    /// The guest of a VM, on a port that this process has for itself. Waits until one is free. By
    /// vsock, there are as many commands at a time as with ports.
    ///
    /// # Errors
    /// None is free within `limit`, or the VM has no such ports.
    pub fn on_free_port(
        paths: &VmPaths,
        channel: Channel,
        limit: Duration,
    ) -> Result<Self, ExecError> {
        let mut sockets = paths.commands.iter();
        if channel == Channel::Ports
            && paths.agent.exists()
            && sockets.all(|socket| !socket.exists())
        {
            return Err(ExecError::NoPorts);
        }
        let free = Deadline::after(limit).poll(|| {
            for socket in &paths.commands {
                let failed = |source| ExecError::Socket { socket: socket.clone(), source };
                if let Some(lock) = lock(&socket.with_extension("lock")).map_err(failed)? {
                    return Ok(Some((socket, lock)));
                }
            }
            Ok(None)
        });
        let (socket, lock) = free?.ok_or(ExecError::Busy(limit))?;
        let agent = match channel {
            Channel::Ports => Agent::new(socket.clone()),
            Channel::Vsock => Agent::over(channel, paths.vsock.clone()),
        };
        Ok(Self { agent, _lock: Some(lock) })
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
        let said = self.exec(&command, limit).ok().filter(|output| output.status.success())?.stdout;
        let text: String = String::from_utf8_lossy(said.trim_ascii())
            .chars()
            .take(MOST_STATUS)
            .flat_map(char::escape_debug)
            .collect();
        (!text.is_empty()).then_some(text)
    }

    /// Runs a command to completion and keeps its output.
    ///
    /// # Errors
    /// The guest does not answer or the command has not ended within `limit`, in which case it is
    /// killed; or the VM has ended.
    pub fn exec(&mut self, command: &Command, limit: Duration) -> Result<Output, ExecError> {
        let output = self.agent.exec(command, limit);
        self.agent.close();
        output
    }

    /// Runs a command to completion, no matter how long that takes. `limit` is the time for the
    /// guest to accept it; if the agent ends before that, the next one is asked.
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
        let doing = command.to_string();
        let step = || Wait { doing: &doing, limit: STEP, deadline: Deadline::after(STEP) };
        let stdin = streams.input.is_some();
        let accepted = self.agent.accept(command, stdin, "waiting for the guest's agent", limit);
        let result = accepted.and_then(|id| {
            self.agent.session(&doing, STEP, |connection, _| {
                connection.run(command, id, streams, step, true)
            })
        });
        // Messages about one command do not count for the next.
        self.agent.close();
        result
    }
}

/// Locks a file, which is made if it does not exist; `None` if another process holds the lock. The
/// kernel releases it when this process ends.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(File::from(file))),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
