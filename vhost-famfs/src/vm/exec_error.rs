// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a guest did not do what was asked.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use protocol::exec::{CONNECTIONS, PORTS};

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
    /// A connection by vsock has ended, which is not the end of the VM.
    #[error(
        "the guest's agent closed the connection, and so ended the command: the guest or its agent \
         has ended, or {CONNECTIONS} other connections are open, which is as many as are possible"
    )]
    Closed,
    /// No answer in time.
    #[error("{doing}: not finished after {limit:?}")]
    Timeout {
        /// What was being done.
        doing: String,
        /// How long it was given.
        limit: Duration,
    },
    /// The guest has not accepted a command in time.
    #[error("the guest's agent has not accepted {command} within {limit:?}")]
    NotAccepted {
        /// The command.
        command: String,
        /// How long the guest was given.
        limit: Duration,
    },
    /// The agent ended, and another one took its place.
    #[error(
        "the guest's agent ended and was started again; the command has been killed, but not what \
         that has started"
    )]
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
         builds it), or install the package vhost-famfs-guest of this version in your own guest, \
         and start the VM again with `vhost-famfs down` and `up`"
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
    /// The user's terminal cannot be prepared; the command was not started.
    #[error("cannot change the terminal")]
    Terminal(#[source] io::Error),
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

/// An error without the socket's name, which only [`Agent`](super::agent::Agent) knows.
pub(super) enum Failure {
    Io(io::Error),
    Exec(ExecError),
}

impl From<ExecError> for Failure {
    fn from(error: ExecError) -> Self {
        Self::Exec(error)
    }
}
