// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The part of QEMU's control protocol (QMP) that a launcher needs: one command, one answer.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::line::Lines;
use serde_json::{Value, json};

use super::deadline::Deadline;
use super::socket::connect_until;

/// A QMP session. QEMU serves one at a time.
#[derive(Debug)]
pub struct Qmp {
    socket: PathBuf,
    stream: UnixStream,
    lines: Lines,
}

/// Why QEMU did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket cannot be used.
    #[error("QMP socket {}", socket.display())]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// QEMU closed the connection before it answered.
    #[error("QEMU ended before it answered {command}")]
    Ended {
        /// The command.
        command: String,
    },
    /// The command failed.
    #[error("QEMU refused {command}: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's description.
        reason: String,
    },
    /// The message is not QMP.
    #[error("QMP socket {}: unexpected message {message:?}", socket.display())]
    Protocol {
        /// The socket.
        socket: PathBuf,
        /// The message.
        message: String,
    },
}

impl Qmp {
    /// Connects and leaves negotiation mode.
    ///
    /// # Errors
    /// Nobody is listening, or there is no answer within `limit`.
    pub fn connect(socket: &Path, limit: Duration) -> Result<Self, QmpError> {
        let stream = connect_until(socket, Deadline::after(limit))
            .map_err(|source| QmpError::Socket { socket: socket.into(), source })?;
        let mut qmp = Self { socket: socket.into(), stream, lines: Lines::default() };
        // The greeting is skipped like an event.
        qmp.execute("qmp_capabilities", json!({}), limit)?;
        Ok(qmp)
    }

    /// Runs a command and returns its result.
    ///
    /// # Errors
    /// An error of QEMU, or no answer within `limit`.
    pub fn execute(
        &mut self,
        command: &str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        let deadline = Deadline::after(limit);
        let request = format!("{}\n", json!({"execute": command, "arguments": arguments}));
        self.stream
            .set_write_timeout(Some(limit))
            .and_then(|()| self.stream.write_all(request.as_bytes()))
            .map_err(|source| self.failed(source))?;
        loop {
            let mut message = self.message(command, deadline)?;
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = message.get("error") {
                let reason = error["desc"].as_str().unwrap_or_default().to_owned();
                return Err(QmpError::Refused { command: command.into(), reason });
            }
        }
    }

    /// Receives the next message of any kind.
    fn message(&mut self, command: &str, deadline: Deadline) -> Result<Value, QmpError> {
        let protocol =
            |message: String| QmpError::Protocol { socket: self.socket.clone(), message };
        loop {
            if let Some(line) = self.lines.next_line() {
                let line = line.map_err(|error| protocol(error.to_string()))?;
                return serde_json::from_slice(&line)
                    .map_err(|_| protocol(String::from_utf8_lossy(&line).into_owned()));
            }
            let left =
                deadline.left().ok_or_else(|| self.failed(io::ErrorKind::TimedOut.into()))?;
            let mut bytes = [0; 4096];
            let read = self
                .stream
                .set_read_timeout(Some(left))
                .and_then(|()| (&self.stream).read(&mut bytes));
            match read {
                Ok(0) => return Err(QmpError::Ended { command: command.into() }),
                Ok(count) => self.lines.push(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    fn failed(&self, source: io::Error) -> QmpError {
        QmpError::Socket { socket: self.socket.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// Answers each request of one client with the next of the given texts.
    fn peer(socket: &Path, answers: &'static [&'static str]) -> thread::JoinHandle<()> {
        let listener = UnixListener::bind(socket).unwrap();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            (&stream).write_all(b"{\"QMP\": {\"version\": {}}}\r\n").unwrap();
            let mut requests = io::BufReader::new(&stream).lines();
            for answer in answers {
                requests.next().unwrap().unwrap();
                (&stream).write_all(answer.as_bytes()).unwrap();
            }
        })
    }

    #[test]
    fn events_are_skipped_and_errors_named() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qmp");
        let peer = peer(
            &socket,
            &[
                "{\"return\": {}}\r\n",
                "{\"event\": \"STOP\"}\r\n{\"return\": {\"running\": false}}\r\n",
                "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such thing\"}}\r\n",
            ],
        );
        let limit = Duration::from_secs(60);
        let mut qmp = Qmp::connect(&socket, limit).unwrap();
        assert_eq!(qmp.execute("query-status", json!({}), limit).unwrap()["running"], false);
        let error = qmp.execute("fly", json!({}), limit).unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused fly: no such thing");
        peer.join().unwrap();
        let error = qmp.execute("quit", json!({}), limit).unwrap_err();
        assert!(matches!(error, QmpError::Ended { .. } | QmpError::Socket { .. }), "{error}");
    }
}
