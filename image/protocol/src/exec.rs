// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command protocol between host and guest, version [`VERSION`].
//!
//! Carrier: a virtio-serial port named [`PORT`]. Each message is one JSON object on one line of at
//! most [`MAX_LINE`](crate::line::MAX_LINE) bytes; bytes of a stream travel in base64, at most
//! [`CHUNK`] of them per message.
//!
//! 1. The host sends a line feed and [`Request::Hello`] with a session name of its choice; it may
//!    do so before the guest runs. The guest ends a command of an earlier session and answers
//!    [`Reply::Hello`] with the same session name. The host drops everything before that answer: it
//!    belongs to an earlier host.
//! 2. [`Request::Exec`] starts a command. One runs at a time; a second one is [`Reply::Refused`].
//!    A program that is not there ends with code 127, one that cannot be executed with 126, each
//!    with the reason on its standard error. If `stdin` is set, [`Request::Stdin`] messages follow,
//!    the last one without data; more than [`MAX_STDIN`] bytes kill the command.
//! 3. The guest sends [`Reply::Output`] as it comes and ends with exactly one [`Reply::Exit`] or
//!    [`Reply::Refused`] with the id of the command. The end is reached when the process has ended
//!    *and* its output streams are closed by all who inherited them.
//! 4. Closing the connection, or opening another session, kills the command's process group.
//! 5. [`Reply::Attach`] comes unasked when the state of the pool changes.
//! 6. [`Reply::Ran`] comes unasked when the command that a guest was started for has ended.
//! 7. [`Request::Poweroff`] starts an orderly power-off; the answer is the end of the machine.
//!
//! Unknown messages and fields are refused: both ends come from one source tree.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::attach::Attach;

/// Name of the virtio-serial port.
pub const PORT: &str = "org.vhost-famfs.exec.0";

/// Version of this protocol. Both ends must have the same.
pub const VERSION: u32 = 3;

/// Most bytes of a stream in one message: with base64 half of the longest line.
pub const CHUNK: usize = 48 * 1024;

/// Most bytes of standard input for one command. The guest holds them in memory so that it can
/// always read the next request; larger data belongs into the pool.
pub const MAX_STDIN: usize = 8 * 1024 * 1024;

/// From host to guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Opens a session.
    Hello {
        /// The host's [`VERSION`].
        version: u32,
        /// A name that no other session of this port has.
        session: String,
    },
    /// Starts a command.
    Exec {
        /// The host's number for this command, unique in the session.
        id: u64,
        /// Program (looked up in the guest's `PATH`) and arguments.
        argv: Vec<String>,
        /// Variables to set on top of the guest's own.
        env: BTreeMap<String, String>,
        /// Whether [`Request::Stdin`] messages follow; otherwise standard input is empty.
        stdin: bool,
    },
    /// Bytes for the standard input of a command.
    Stdin {
        /// The command.
        id: u64,
        /// At most [`CHUNK`] bytes; none closes the stream.
        data: Bytes,
    },
    /// Shuts the guest down.
    Poweroff {},
}

/// From guest to host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    /// The session is open.
    Hello {
        /// The guest's [`VERSION`].
        version: u32,
        /// The name from the request.
        session: String,
        /// The kernel's `boot_id`: another one means that the guest was rebooted.
        boot_id: String,
        /// Time since the guest's kernel started, milliseconds.
        uptime_ms: u64,
        /// State of the pool now.
        attach: Attach,
        /// How the command of the credential `famfs.run` ended, if it has.
        ran: Option<Status>,
    },
    /// The state of the pool has changed.
    Attach {
        /// The new state.
        attach: Attach,
    },
    /// The command of the credential `famfs.run` has ended; the machine powers off.
    Ran {
        /// How.
        status: Status,
    },
    /// Output of a command.
    Output {
        /// The command.
        id: u64,
        /// Which stream.
        stream: Stream,
        /// At most [`CHUNK`] bytes.
        data: Bytes,
    },
    /// A command has ended.
    Exit {
        /// The command.
        id: u64,
        /// How.
        status: Status,
    },
    /// A request was not carried out.
    Refused {
        /// The command, if the request named one.
        id: Option<u64>,
        /// Why, for people.
        reason: String,
    },
}

/// An output stream of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Status {
    /// Whether the command exited with code 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Bytes that travel as base64.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(de::Error::custom)?;
        if bytes.len() > CHUNK {
            return Err(de::Error::custom(format_args!(
                "{} bytes of data in one message, at most {CHUNK} are allowed",
                bytes.len()
            )));
        }
        Ok(Self(bytes))
    }
}

/// A message as a line, ready to be sent.
///
/// # Errors
/// If the message cannot be written as JSON; none of this module's can fail so.
pub fn encode<M: Serialize>(message: &M) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// The message in a line.
///
/// # Errors
/// What is wrong with the line: not JSON, an unknown message or field, too much data.
pub fn decode<'line, M: Deserialize<'line>>(line: &'line [u8]) -> serde_json::Result<M> {
    serde_json::from_slice(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::MAX_LINE;

    #[test]
    fn messages_look_like_this_on_the_wire() {
        let exec = Request::Exec {
            id: 7,
            argv: vec!["cat".into(), "/mnt/famfs/ä b".into()],
            env: BTreeMap::from([("LANG".into(), "C".into())]),
            stdin: false,
        };
        let table: [(&str, Vec<u8>); 4] = [
            (
                r#"{"request":"exec","id":7,"argv":["cat","/mnt/famfs/ä b"],"env":{"LANG":"C"},"stdin":false}"#,
                encode(&exec).unwrap(),
            ),
            (r#"{"request":"poweroff"}"#, encode(&Request::Poweroff {}).unwrap()),
            (
                r#"{"reply":"output","id":7,"stream":"stderr","data":"AP8K"}"#,
                encode(&Reply::Output {
                    id: 7,
                    stream: Stream::Stderr,
                    data: Bytes(vec![0, 255, 10]),
                })
                .unwrap(),
            ),
            (
                r#"{"reply":"exit","id":7,"status":{"signal":9}}"#,
                encode(&Reply::Exit { id: 7, status: Status::Signal(9) }).unwrap(),
            ),
        ];
        for (expected, line) in table {
            assert_eq!(String::from_utf8(line).unwrap(), format!("{expected}\n"));
        }
        assert_eq!(decode::<Request>(&encode(&exec).unwrap()).unwrap(), exec);
    }

    #[test]
    fn a_full_chunk_fits_into_a_line() {
        let message = Request::Stdin { id: u64::MAX, data: Bytes(vec![0xff; CHUNK]) };
        assert!(encode(&message).unwrap().len() <= MAX_LINE);
    }

    #[test]
    fn hostile_lines_are_errors() {
        let too_much = encode(&Request::Stdin { id: 1, data: Bytes(vec![0; CHUNK + 1]) }).unwrap();
        let lines: [&[u8]; 7] = [
            b"",
            b"{}",
            b"\xff\xfe",
            br#"{"request":"format-disk"}"#,
            br#"{"request":"stdin","id":-1,"data":""}"#,
            br#"{"request":"poweroff","force":true}"#,
            br#"{"request":"stdin","id":1,"data":"*"}"#,
        ];
        for line in lines.into_iter().chain([too_much.as_slice()]) {
            assert!(decode::<Request>(line).is_err(), "{}", String::from_utf8_lossy(line));
        }
    }
}
