// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What tells a watch to look: the port to the host, and the socket for commands of this system.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use famfs::format::report::Report;
use famfs::system::mounts::{Presence, Waited};
use famfs::system::port::WakePort;
use famfs::system::wake::WakeSocket;
use famfs::system::watcher::Watcher;

/// How long the port may take to appear after the machine has started, or to be closed by the watch
/// before this one, and how often to try.
const APPEARS: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_secs(1);

/// Both.
pub struct Wake {
    /// None where the system forbids sockets.
    socket: Option<WakeSocket>,
    port: Option<WakePort>,
    /// Whether the host's side of the port listens.
    has_host: bool,
    /// When to try to open the port, and until when.
    next: Instant,
    until: Instant,
}

impl Wake {
    /// Listens from now on.
    pub fn listen(watcher: &Watcher, mount_point: &Path) -> Self {
        let (socket, now) = (watcher.listen(mount_point).ok(), Instant::now());
        Self { socket, port: None, has_host: false, next: now, until: now + APPEARS }
    }

    /// Whether the host tells when others publish.
    pub fn is_told(&mut self) -> bool {
        let now = Instant::now();
        if self.port.is_none() && now >= self.next && self.next <= self.until {
            self.next = now + AGAIN;
            // Another watch has it, or may not: then this one looks often.
            self.port = WakePort::open().ok().flatten();
            self.has_host = self.port.as_ref().is_some_and(WakePort::has_host);
        }
        self.has_host
    }

    /// Reports to the host how far this system is; returns whether the host gets it.
    pub fn report(&self, report: &Report) -> bool {
        self.port.as_ref().is_some_and(|port| port.report(report))
    }

    /// Waits until somebody has published something, or asks for something, or `taken` can be read,
    /// but not longer than `pause`, and tells the host what comes from this system.
    pub fn wait(
        &mut self,
        table: &Presence,
        taken: Option<BorrowedFd<'_>>,
        pause: Duration,
    ) -> Waited {
        let (port, socket) = (self.port.as_ref(), self.socket.as_ref());
        let fds: Vec<_> =
            [port.map(AsFd::as_fd), socket.map(AsFd::as_fd), taken].into_iter().flatten().collect();
        let waited = table.wait_beside(&fds, pause);
        if !waited.woken {
            return waited;
        }
        let from_here = socket.is_some_and(WakeSocket::take);
        let mut woken = from_here;
        if let Some(port) = port {
            if from_here {
                port.wake();
            }
            woken |= port.take();
            self.has_host = port.has_host();
        }
        Waited { woken, ..waited }
    }
}
