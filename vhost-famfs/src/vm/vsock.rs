// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Connects to a vsock port of a guest through a Unix socket of its VMM, as cloud-hypervisor,
//! Firecracker and vhost-device-vsock have it: the host sends `CONNECT PORT` on a line, and the VMM
//! answers `OK NUMBER` on a line once the guest has accepted. If nobody in the guest listens there,
//! it closes the connection.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::deadline::Deadline;
use super::socket::connect_until;

/// Longest answer in bytes, without its line feed: `OK` and a number of 32 bits.
const MAX_ANSWER: usize = "OK 4294967295".len();

/// Pause between two attempts while nobody in the guest listens.
const PAUSE: Duration = Duration::from_millis(100);

/// Connects to a port, for which a guest may take its time: its agent may just be starting.
///
/// # Errors
/// The VMM does not listen at `path`, or answers something else; or nobody in the guest listens
/// until the deadline ([`ErrorKind::TimedOut`]).
pub(super) fn connect(path: &Path, port: u32, deadline: Deadline) -> io::Result<UnixStream> {
    let mut is_refused = false;
    loop {
        match attempt(path, port, deadline) {
            Ok(None) => is_refused = true,
            // The last attempt may have had no time.
            Err(error) if error.kind() == ErrorKind::TimedOut && is_refused => {}
            Ok(Some(stream)) => return Ok(stream),
            Err(error) => return Err(error),
        }
        let Some(left) = deadline.left() else {
            return Err(timed_out(format!(
                "nobody in the guest listens at vsock port {port}: it is starting, its agent has \
                 ended, or it was not told to listen (credential famfs.vsock)"
            )));
        };
        thread::sleep(PAUSE.min(left));
    }
}

/// `None` if the VMM closes the connection without an answer.
fn attempt(path: &Path, port: u32, deadline: Deadline) -> io::Result<Option<UnixStream>> {
    let stream = connect_until(path, deadline)?;
    match (&stream).write_all(format!("CONNECT {port}\n").as_bytes()) {
        Err(error) if is_closed(&error) => return Ok(None),
        written => written?,
    }
    let Some(answer) = answer(&stream, deadline)? else { return Ok(None) };
    let number = answer.strip_prefix(b"OK ").and_then(|number| std::str::from_utf8(number).ok());
    if number.and_then(|number| number.parse::<u32>().ok()).is_none() {
        let found = String::from_utf8_lossy(&answer).into_owned();
        let text = format!(
            "the VMM answers {found:?} to CONNECT {port}, expected \"OK\" and a number; is this \
             its vsock socket?"
        );
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    }
    stream.set_read_timeout(None)?;
    Ok(Some(stream))
}

/// The first line, without its line feed. What follows it is for others, so it is read byte by
/// byte. Of one that is too long, only the beginning.
fn answer(mut stream: &UnixStream, deadline: Deadline) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    while line.len() <= MAX_ANSWER {
        let silent = || {
            timed_out(
                "no answer in time: the guest is still starting, or the VMM hangs or is paused"
                    .into(),
            )
        };
        stream.set_read_timeout(Some(deadline.left().ok_or_else(silent)?))?;
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) => line.extend(byte),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(silent());
            }
            Err(error) if line.is_empty() && is_closed(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(line))
}

/// Whether the other end has closed the connection.
pub(super) fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

fn timed_out(text: String) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    const LONG: Duration = Duration::from_secs(60);

    /// A VMM that reads a request and gives one answer after the other, each on a connection of its
    /// own, which it then closes; after the last it waits for the host to close it. Returns what is
    /// sent on that one after the request.
    fn vmm(dir: &Path, answers: Vec<&'static [u8]>) -> (PathBuf, thread::JoinHandle<Vec<u8>>) {
        let path = dir.join("vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let vmm = thread::spawn(move || {
            let mut sent = Vec::new();
            let last = answers.len() - 1;
            for (index, answer) in answers.into_iter().enumerate() {
                let (stream, _) = listener.accept().unwrap();
                let mut requests = BufReader::new(&stream);
                let mut request = String::new();
                requests.read_line(&mut request).unwrap();
                assert_eq!(request, "CONNECT 512\n");
                (&stream).write_all(answer).unwrap();
                if index == last {
                    // Fails if the host has left with something unread.
                    let _ = requests.read_to_end(&mut sent);
                }
            }
            sent
        });
        (path, vmm)
    }

    #[test]
    fn what_follows_the_answer_is_for_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let (path, vmm) = vmm(dir.path(), vec![b"OK 1073741824\nhello"]);
        let mut stream = connect(&path, 512, Deadline::after(LONG)).unwrap();
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        stream.write_all(b"to the agent").unwrap();
        drop(stream);
        assert_eq!(vmm.join().unwrap(), b"to the agent");
    }

    #[test]
    fn a_guest_that_does_not_listen_yet_is_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, vmm) = vmm(dir.path(), vec![b"", b"", b"OK 7\n"]);
        drop(connect(&path, 512, Deadline::after(LONG)).unwrap());
        vmm.join().unwrap();
    }

    #[test]
    fn a_guest_that_never_listens_ends_with_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vsock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || listener.incoming().for_each(drop));
        let error = connect(&path, 512, Deadline::after(Duration::from_secs(1))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains("nobody in the guest listens at vsock port 512"));
    }

    #[test]
    fn other_answers_are_errors_that_show_them() {
        let long: &[u8] = b"OK 42949672951111111111111111111111111111111111111";
        let answers: [(&[u8], &str); 8] = [
            (b"OK\n", "\"OK\""),
            (b"OK \n", "\"OK \""),
            (b"OK 4294967296\n", "\"OK 4294967296\""),
            (b"OK -1\n", "\"OK -1\""),
            (b"\n", "\"\""),
            (b"{\"QMP\": {}}\r\n", "QMP"),
            (b"\xff\x1b[2J\n", "\"\u{fffd}\\u{1b}[2J\""),
            (long, "\"OK 42949672951\""),
        ];
        for (answer, shown) in answers {
            let dir = tempfile::tempdir().unwrap();
            let (path, vmm) = vmm(dir.path(), vec![answer]);
            let error = connect(&path, 512, Deadline::after(LONG)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
            let text = error.to_string();
            assert!(text.contains(&format!("answers {shown}")) || text.contains("QMP"), "{text}");
            vmm.join().unwrap();
        }
    }

    #[test]
    fn an_answer_that_never_ends_is_not_waited_for() {
        for answer in [b"".as_slice(), b"OK 1"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("vsock");
            let listener = UnixListener::bind(&path).unwrap();
            let vmm = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(answer).unwrap();
                let _ = stream.read_to_end(&mut Vec::new());
            });
            let limit = Deadline::after(Duration::from_millis(50));
            let error = connect(&path, 512, limit).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(error.to_string().contains("no answer in time"), "{error}");
            vmm.join().unwrap();
        }
    }

    #[test]
    fn a_vmm_that_is_gone_is_an_error_at_once() {
        let none = connect(Path::new("/nonexistent/vsock"), 512, Deadline::after(LONG));
        assert_eq!(none.unwrap_err().kind(), ErrorKind::NotFound);
    }
}
