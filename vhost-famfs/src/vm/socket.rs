// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Connects to a program that may hang.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::deadline::Deadline;

/// Connects to a Unix socket.
///
/// The kernel makes a client wait while the listener's queue is full, for ever if the listener
/// hangs; the deadline limits that.
pub(super) fn connect_until(path: &Path, deadline: Deadline) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(path)?;
    let connected = deadline.poll(|| match connect(&socket, &address) {
        Ok(()) => Ok(Some(())),
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno),
    })?;
    connected.ok_or(io::ErrorKind::TimedOut)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    #[test]
    fn a_full_queue_does_not_hold_us_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let limit = || Deadline::after(Duration::from_millis(50));
        let mut waiting = Vec::new();
        let error = loop {
            match connect_until(&path, limit()) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 10, "a queue of 0 accepts them all");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        listener.accept().unwrap();
        waiting.push(connect_until(&path, Deadline::after(Duration::from_secs(60))).unwrap());
    }

    #[test]
    fn nobody_there_is_an_error_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let error = connect_until(&dir.path().join("none"), Deadline::after(Duration::MAX));
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
