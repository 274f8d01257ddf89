// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Wake-ups between processes of one system: a datagram that only says "look".
//!
//! Nobody waits for anybody. Whoever wakes a process that has not read the last wake-ups does
//! nothing: that process will look anyway.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// How many datagrams to read at once: the kernel queues fewer, and a flood must not keep a process
/// from its work.
const MOST: usize = 64;

/// Where wake-ups arrive.
#[derive(Debug)]
pub struct WakeSocket {
    socket: UnixDatagram,
}

impl WakeSocket {
    /// Makes the socket with that name, which must be free.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// Reads the wake-ups that have arrived; returns whether there were any.
    pub fn take(&self) -> bool {
        let mut byte = [0];
        // A longer datagram is cut off.
        let taken = (0..MOST).take_while(|_| self.socket.recv(&mut byte).is_ok());
        taken.count() > 0
    }
}

impl AsFd for WakeSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Wakes the process that has the socket with that name.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if there is no such socket, and
/// [`io::ErrorKind::ConnectionRefused`] if the process has ended.
pub fn wake(path: &Path) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match socket.send_to(&[0], path) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_ups_arrive_are_joined_and_never_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert_eq!(wake(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let socket = WakeSocket::bind(&path).unwrap();
        assert!(!socket.take());
        for _ in 0..1000 {
            wake(&path).unwrap();
        }
        assert!(socket.take() && !socket.take());
        assert!(WakeSocket::bind(&path).is_err());
        drop(socket);
        assert_eq!(wake(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
