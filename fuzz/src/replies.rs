// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Target: what a guest's agent answers while the host runs a command. Input: one byte (bit 0: the
//! command has standard input; bit 1: only the bytes can accept it), then the agent's bytes after
//! its greeting.
//!
//! Invariants:
//! * the host ends with a result or an error when the connection does (libFuzzer's time limit finds
//!   a hang);
//! * no more output than was sent, and none after the end of the command.

use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use protocol::attach::Attach;
use protocol::exec::{self, Reply, Request, VERSION};
use vhost_famfs::vm::{Command, Guest, Streams};

const LIMIT: Duration = Duration::from_secs(60);

/// Standard input of a command: more than the guest may leave untaken.
const INPUT: usize = 1 << 20;

/// Runs the target.
///
/// # Panics
/// When an invariant does not hold, or the system has no sockets.
pub fn run(data: &[u8]) {
    let (first, data) = data.split_first().unwrap_or((&0, &[]));
    let directory = tempfile::tempdir().expect("no temporary directory");
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).expect("a new directory has room for a socket");
    let input: Option<Box<dyn Read + Send>> = match first & 1 {
        0 => None,
        _ => Some(Box::new(Cursor::new(vec![0; INPUT]))),
    };
    thread::scope(|scope| {
        scope.spawn(move || answer(listener, first & 2 == 0, data));
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let streams =
            Streams { input, sizes: None, begin: None, stdout: &mut stdout, stderr: &mut stderr };
        let result = Guest::new(path).stream(&Command::new(["command"]), streams, LIMIT);
        let output = stdout.len() + stderr.len();
        assert!(output <= data.len(), "{output} bytes of output: {result:?}");
    });
}

/// Greets the host, then sends the bytes once it has sent its command, which it accepts before if
/// `accepts`. An agent that ends before that is asked again by the host, but there is no other.
fn answer(listener: UnixListener, accepts: bool, data: &[u8]) {
    let (stream, _) = listener.accept().expect("the host connects");
    drop(listener);
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let greeting = lines.find(|line| !line.is_empty());
    let greeting = greeting.and_then(|line| exec::decode(line.as_bytes()).ok());
    let Some(Request::Hello { session, .. }) = greeting else { panic!("the host greets first") };
    let (version, boot_id, attach) = (VERSION, String::new(), Attach::Off);
    let hello = Reply::Hello { version, session, boot_id, uptime_ms: 0, attach, ran: None };
    let hello = exec::encode(&hello).expect("it is a message");
    // A host that has heard enough closes the connection.
    if (&stream).write_all(&hello).is_ok() && lines.next().is_some() {
        let accepted = exec::encode(&Reply::Accepted { id: 1 }).expect("it is a message");
        let accepted = if accepts { accepted } else { Vec::new() };
        let _ = (&stream).write_all(&[&accepted, data].concat());
    }
    let _ = stream.shutdown(Shutdown::Write);
    // What the host sends is read, so that its end is not an error.
    lines.for_each(drop);
}
