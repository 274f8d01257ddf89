// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What tells a watch to look: the port to the host, and the socket for commands of this system.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use famfs::system::mounts::Presence;
use famfs::system::port::WakePort;
use famfs::system::wake::WakeSocket;
use famfs::system::watcher::{Watcher, WatcherError};

/// How long the port may take to appear after the machine has started, or to be closed by the watch
/// before this one, and how often to try.
const APPEARS: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_secs(1);

/// Both.
pub struct Wake {
    socket: WakeSocket,
    port: Option<WakePort>,
    /// When to try to open the port, and until when.
    next: Instant,
    until: Instant,
}

/// How a pause ended.
pub struct Waited {
    /// The file system is still mounted.
    pub mounted: bool,
    /// Somebody has published something, or asks for something.
    pub woken: bool,
}

impl Wake {
    /// Listens from now on.
    pub fn listen(watcher: &Watcher, mount_point: &Path) -> Result<Self, WatcherError> {
        let (socket, now) = (watcher.listen(mount_point)?, Instant::now());
        Ok(Self { socket, port: None, next: now, until: now + APPEARS })
    }

    /// Whether the host tells when others publish.
    pub fn is_told(&mut self) -> bool {
        let now = Instant::now();
        if self.port.is_none() && now >= self.next && self.next <= self.until {
            self.next = now + AGAIN;
            // Another watch has it, or may not: then this one looks often.
            self.port = WakePort::open().ok().flatten();
        }
        self.port.as_ref().is_some_and(WakePort::has_host)
    }

    /// Waits until somebody wakes this watch, but not longer than `pause`, and tells the host what
    /// comes from this system.
    pub fn wait(&self, table: &Presence, pause: Duration) -> Waited {
        let port = self.port.as_ref();
        let fds: Vec<_> = port.map(AsFd::as_fd).into_iter().chain([self.socket.as_fd()]).collect();
        let mounted = table.wait_beside(&fds, pause);
        let from_here = self.socket.take();
        if from_here && let Some(port) = port {
            port.wake();
        }
        Waited { mounted, woken: port.is_some_and(WakePort::take) || from_here }
    }
}
