// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command protocol between host and guest, version [`VERSION`].
//!
//! Transport: [`PORTS`] virtio-serial ports with the names of [`port`]. Each is a stream of its own
//! with one session at a time, so several programs of the host can run commands at once, and none
//! waits for the data of another. Port 0 is for short requests of the launcher, the others run
//! commands of users. Each message is one JSON object on one line of at most
//! [`MAX_LINE`](crate::line::MAX_LINE) bytes; stream data is encoded in base64, at most [`CHUNK`]
//! bytes per message.
//!
//! Where the host has no such ports, it connects to [`VSOCK_PORT`] by vsock, if the credential
//! `famfs.vsock` asks the guest to listen there. Each connection is a stream like a port, but has
//! an end: then the guest ends its session and command at once. Only the host may connect, at most
//! [`CONNECTIONS`] times at once; the guest closes other connections without an answer. Rules 8 to
//! 10 are for ports only.
//!
//! 1. The host sends a line feed and [`Request::Hello`] with a session name of its choice; it may
//!    do so before the guest runs. The guest ends a command of an earlier session and answers with
//!    a line feed and [`Reply::Hello`] with the same session name. The host drops everything
//!    before that answer: it belongs to an earlier host. The host repeats its greeting until it is
//!    answered: what an agent had not read when it ended is lost. A repeated greeting changes
//!    nothing.
//! 2. [`Request::Exec`] asks for a command. The guest answers [`Reply::Accepted`], and starts it at
//!    [`Request::Start`], which the host sends once. Until then, the host may ask again in another
//!    session. A guest that reads the request of a host that has left meanwhile starts nothing: no
//!    start follows. Only one command runs in a session at a time; a second one is answered with
//!    [`Reply::Refused`]. If the program does not exist, the command ends with code 127, and if it
//!    cannot be executed, with 126; the reason is on its standard error. Without a session, nothing
//!    is started, and the answer is [`Reply::Pong`].
//! 3. If `stdin` is set, [`Request::Stdin`] messages follow the start, the last one without
//!    data. The guest answers [`Reply::Taken`] with the number of bytes that the command has taken;
//!    the last of these answers may come after the end of the command. At most [`WINDOW`] bytes may
//!    be under way, so the guest can always read the next request; more than that kill the command.
//! 4. The guest sends [`Reply::Output`] messages as output arrives, then exactly one
//!    [`Reply::Exit`] or [`Reply::Refused`] with the id of the command. A command has ended when
//!    its process has ended *and* its output streams are closed by all processes that inherited
//!    them. While the host does not read, the output waits in the command.
//! 5. A command with a [`Size`] has a terminal of its own, whose output is all on
//!    [`Stream::Stdout`]; [`Request::Resize`] changes its size. Such a command has ended when its
//!    process has ended and its output until then is sent. The guest then hangs up the terminal:
//!    programs that remain in the background cannot use it any more.
//! 6. Closing the connection, or opening another session on the port, kills the command's process
//!    group, or all processes of its terminal's session if it has a terminal. The guest hears of a
//!    closed connection apart from the data, so possibly late: after the greeting of the next host,
//!    or after its command. It therefore waits a moment for a host before it ends the session, and
//!    the host must not rely on that: see the next rule.
//! 7. While a host waits, it sends [`Request::Ping`] now and then. The guest answers with
//!    [`Reply::Pong`], which names the open session. If that is another one or none, the host's
//!    session has ended, and its command with it.
//! 8. [`Reply::Started`] is sent unasked to a host that is connected when the agent starts: the
//!    session that it had with an earlier agent has ended.
//! 9. [`Reply::Attach`] is sent unasked on port 0 when the state of the pool changes.
//! 10. [`Reply::Ran`] is sent unasked on port 0 when the command for which the guest was started
//!     has ended.
//! 11. [`Request::Poweroff`] starts an orderly power-off. There is no answer: the machine ends.
//!
//! Unknown messages and fields are refused: both ends are built from one source tree.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::attach::Attach;

/// Number of ports. Each costs the guest memory for the driver's buffers.
pub const PORTS: usize = 9;

/// The vsock port of the agent. Below 1024, so that only privileged programs of the guest can
/// listen there in its place (`LAST_RESERVED_PORT` in the kernel's net/vmw_vsock/af_vsock.c).
pub const VSOCK_PORT: u32 = 512;

/// Number of vsock connections that the agent serves at once: as many commands as there are ports
/// for, and as many short requests.
pub const CONNECTIONS: usize = 16;

/// Version of this protocol. Both ends must have the same version.
pub const VERSION: u32 = 7;

/// Maximum stream data in one message, in bytes: encoded in base64, it takes half of the longest
/// line.
pub const CHUNK: usize = 48 * 1024;

/// Maximum standard input of one command, in bytes, that was sent and that the command has not
/// taken. The guest holds it in memory.
pub const WINDOW: u64 = 512 * 1024;

/// Name of the virtio-serial port with that number, below [`PORTS`].
#[must_use]
pub fn port(number: usize) -> String {
    format!("org.vhost-famfs.exec.{number}")
}

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
    /// Asks for a command.
    Exec(Exec),
    /// Starts the command that was accepted.
    Start {
        /// The command.
        id: u64,
    },
    /// Bytes for the standard input of a command.
    Stdin {
        /// The command.
        id: u64,
        /// At most [`CHUNK`] bytes; an empty message closes the stream.
        data: Bytes,
    },
    /// Changes the size of a command's terminal. A command without one is not affected.
    Resize {
        /// The command.
        id: u64,
        /// The new size.
        size: Size,
    },
    /// Asks which session is open.
    Ping {},
    /// Shuts the guest down.
    Poweroff {},
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The host's id for this command, unique in the session.
    pub id: u64,
    /// Program (looked up in the guest's `PATH`) and arguments.
    pub argv: Vec<String>,
    /// Variables to set in addition to the guest's own.
    pub env: BTreeMap<String, String>,
    /// Whether [`Request::Stdin`] messages follow; otherwise standard input is empty.
    pub stdin: bool,
    /// The size of its terminal, if it gets one.
    pub tty: Option<Size>,
    /// The directory to run it in; otherwise the agent's.
    pub workdir: Option<String>,
    /// Whom to run it as, `NAME|UID[:GROUP|GID]`; otherwise root. The guest looks the names up.
    pub user: Option<String>,
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
        /// The kernel's `boot_id`; if it changes, the guest has rebooted.
        boot_id: String,
        /// Time since the guest's kernel started, in milliseconds.
        uptime_ms: u64,
        /// Current state of the pool.
        attach: Attach,
        /// How the command of the credential `famfs.run` ended, if it has ended.
        ran: Option<Status>,
    },
    /// The state of the pool has changed.
    Attach {
        /// The new state.
        attach: Attach,
    },
    /// The command of the credential `famfs.run` has ended; the machine powers off.
    Ran {
        /// How it ended.
        status: Status,
    },
    /// The agent has started. Sessions of an earlier one have ended.
    Started {},
    /// Which session is open.
    Pong {
        /// Its name, if one is open.
        session: Option<String>,
    },
    /// A command can be started.
    Accepted {
        /// The command.
        id: u64,
    },
    /// A command has taken standard input.
    Taken {
        /// The command.
        id: u64,
        /// How many bytes, since the last such message.
        bytes: u64,
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
        /// How it ended.
        status: Status,
    },
    /// A request was not carried out.
    Refused {
        /// The command, if the request named one.
        id: Option<u64>,
        /// The reason, for people.
        reason: String,
    },
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Number of lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
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

/// Bytes that are encoded as base64.
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
                "{} bytes of data in one message, but at most {CHUNK} are allowed",
                bytes.len()
            )));
        }
        Ok(Self(bytes))
    }
}

/// A message as a line, ready to be sent.
///
/// # Errors
/// The message cannot be written as JSON; this does not happen with the messages of this module.
pub fn encode<M: Serialize>(message: &M) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Whether a line says [`Reply::Started`]. If an earlier agent ended in the middle of a message,
/// that is the end of the line.
#[must_use]
pub fn says_started(line: &[u8]) -> bool {
    serde_json::to_vec(&Reply::Started {}).is_ok_and(|message| line.ends_with(&message))
}

/// Parses the message in a line.
///
/// # Errors
/// What is wrong with the line: not JSON, an unknown message or field, or too much data.
pub fn decode<'line, M: Deserialize<'line>>(line: &'line [u8]) -> serde_json::Result<M> {
    serde_json::from_slice(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::MAX_LINE;

    #[test]
    fn messages_look_like_this_on_the_wire() {
        let exec = Request::Exec(Exec {
            id: 7,
            argv: vec!["cat".into(), "/mnt/famfs/ä b".into()],
            env: BTreeMap::from([("LANG".into(), "C".into())]),
            stdin: false,
            tty: Some(Size { rows: 24, columns: 80 }),
            workdir: None,
            user: Some("nobody:0".into()),
        });
        let resize = Request::Resize { id: 7, size: Size { rows: 1, columns: 65535 } };
        let pong = Reply::Pong { session: Some("s".into()) };
        let table: [(&str, Vec<u8>); 12] = [
            (
                r#"{"request":"exec","id":7,"argv":["cat","/mnt/famfs/ä b"],"env":{"LANG":"C"},"stdin":false,"tty":{"rows":24,"columns":80},"workdir":null,"user":"nobody:0"}"#,
                encode(&exec).unwrap(),
            ),
            (r#"{"request":"poweroff"}"#, encode(&Request::Poweroff {}).unwrap()),
            (r#"{"request":"start","id":7}"#, encode(&Request::Start { id: 7 }).unwrap()),
            (r#"{"request":"ping"}"#, encode(&Request::Ping {}).unwrap()),
            (
                r#"{"request":"resize","id":7,"size":{"rows":1,"columns":65535}}"#,
                encode(&resize).unwrap(),
            ),
            (r#"{"reply":"pong","session":null}"#, encode(&Reply::Pong { session: None }).unwrap()),
            (r#"{"reply":"pong","session":"s"}"#, encode(&pong).unwrap()),
            (r#"{"reply":"accepted","id":7}"#, encode(&Reply::Accepted { id: 7 }).unwrap()),
            (r#"{"reply":"started"}"#, encode(&Reply::Started {}).unwrap()),
            (
                r#"{"reply":"taken","id":7,"bytes":49152}"#,
                encode(&Reply::Taken { id: 7, bytes: CHUNK as u64 }).unwrap(),
            ),
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
    fn the_start_of_an_agent_is_seen_after_a_part_of_a_message() {
        let (started, mut output) = (
            encode(&Reply::Started {}).unwrap(),
            encode(&Reply::Output { id: 1, stream: Stream::Stdout, data: Bytes(vec![0; 9]) })
                .unwrap(),
        );
        output.pop();
        assert!(!says_started(&output));
        for cut in 0..output.len() {
            assert!(says_started([&output[..cut], &started].concat().trim_ascii()), "{cut}");
        }
    }

    #[test]
    fn hostile_lines_are_errors() {
        let too_much = encode(&Request::Stdin { id: 1, data: Bytes(vec![0; CHUNK + 1]) }).unwrap();
        let lines: [&[u8]; 15] = [
            b"",
            b"{}",
            b"\xff\xfe",
            br#"{"request":"format-disk"}"#,
            br#"{"request":"stdin","id":-1,"data":""}"#,
            br#"{"request":"poweroff","force":true}"#,
            br#"{"request":"stdin","id":1,"data":"*"}"#,
            br#"{"request":"ping","session":"s"}"#,
            br#"{"request":"resize","id":1}"#,
            br#"{"request":"resize","id":1,"size":{"rows":65536,"columns":80}}"#,
            br#"{"request":"resize","id":1,"size":{"rows":-1,"columns":80}}"#,
            br#"{"request":"resize","id":1,"size":{"rows":1,"columns":80,"pixels":9}}"#,
            br#"{"request":"exec","id":1,"argv":["a"],"env":{},"stdin":false,"tty":true}"#,
            br#"{"request":"exec","id":1,"argv":["a"],"env":{},"stdin":false,"shell":"sh"}"#,
            br#"{"request":"exec","id":1,"argv":["a"],"env":{},"stdin":false,"user":0}"#,
        ];
        for line in lines.into_iter().chain([too_much.as_slice()]) {
            assert!(decode::<Request>(line).is_err(), "{}", String::from_utf8_lossy(line));
        }
    }
}
