// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's end of a VM's wake-up port: QEMU's socket.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::messages::{Messages, Sent};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Time between two attempts to connect: QEMU makes the socket when it starts, and removes none
/// when it ends.
const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_secs(1);

/// How many bytes of the guest to take at once. The kernel holds few more.
const CHUNK: usize = 64 << 10;

/// The socket, connected or not.
#[derive(Debug)]
pub struct Line {
    path: PathBuf,
    stream: Option<UnixStream>,
    next: Instant,
    pause: Duration,
    chunk: Vec<u8>,
    messages: Messages,
}

impl Line {
    /// Not connected yet.
    pub fn new(path: PathBuf) -> Self {
        let chunk = vec![0; CHUNK];
        let messages = Messages::default();
        Self { path, stream: None, next: Instant::now(), pause: SOON, chunk, messages }
    }

    /// Connects, if that is due.
    pub fn connect(&mut self, now: Instant) {
        if self.stream.is_none() && now >= self.next {
            self.stream = open(&self.path).ok();
            self.messages.clear();
            self.next = now + self.pause;
            self.pause = (2 * self.pause).min(LATE);
        }
    }

    /// When to connect.
    pub fn retries(&self) -> Option<Instant> {
        self.stream.is_none().then_some(self.next)
    }

    /// Wakes the guest. If it does not read, it has not seen the last wake-ups yet, and will look.
    pub fn wake(&mut self) {
        let written = self.stream.as_ref().map(|mut stream| stream.write(&[0]));
        if let Some(Err(error)) = written {
            self.check(&error);
        }
    }

    /// Takes what the guest sent.
    pub fn take(&mut self) -> Sent {
        let Some(mut stream) = self.stream.as_ref() else { return Sent::default() };
        match stream.read(&mut self.chunk) {
            Ok(0) => self.check(&io::ErrorKind::BrokenPipe.into()),
            Ok(count) => return self.messages.take(&self.chunk[..count]),
            Err(error) => self.check(&error),
        }
        Sent::default()
    }

    /// The end of the connection, if there is one.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    fn check(&mut self, error: &io::Error) {
        if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
            self.stream = None;
            self.next = Instant::now() + self.pause;
        }
    }
}

/// Connects without waiting, for nothing: QEMU may hang.
fn open(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}
