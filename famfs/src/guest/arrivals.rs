// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Waits for devices: the kernel makes a node in `/dev` for each.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Where device nodes appear (Linux makes them by itself: devtmpfs).
pub const DEV: &str = "/dev";

/// Notices what appears in a directory.
pub struct Arrivals {
    /// `None` if the directory cannot be watched.
    inotify: Option<OwnedFd>,
}

impl Arrivals {
    /// Watches a directory from now on.
    pub fn watch(dir: &Path) -> Self {
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        let inotify = inotify::init(flags).ok().filter(|inotify| {
            inotify::add_watch(inotify, dir, WatchFlags::CREATE | WatchFlags::ONLYDIR).is_ok()
        });
        Self { inotify }
    }

    /// Waits until something has appeared since the last call, but not longer than `at_most`.
    /// Returns whether something has; if nothing can be watched, the time passes.
    pub fn wait(&self, at_most: Duration) -> bool {
        let Some(inotify) = &self.inotify else {
            sleep(at_most);
            return false;
        };
        let mut fds = [PollFd::new(inotify, PollFlags::IN)];
        let limit = Timespec::try_from(at_most).ok();
        // An interruption is not an arrival: the caller looks again anyway.
        if poll(&mut fds, limit.as_ref()).unwrap_or(0) == 0 {
            return false;
        }
        let mut buf = [MaybeUninit::uninit(); 4096];
        // What has arrived does not matter: the caller looks at all devices.
        while rustix::io::read(inotify, &mut buf).is_ok_and(|(events, _)| !events.is_empty()) {}
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOT_LONG: Duration = Duration::from_millis(20);

    #[test]
    fn each_arrival_is_seen_once() {
        let dir = tempfile::tempdir().unwrap();
        let arrivals = Arrivals::watch(dir.path());
        assert!(!arrivals.wait(NOT_LONG));
        for name in ["a", "b"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert!(arrivals.wait(Duration::from_secs(60)));
        assert!(!arrivals.wait(NOT_LONG));
    }

    #[test]
    fn what_cannot_be_watched_is_waited_for() {
        assert!(!Arrivals::watch(Path::new("/nonexistent")).wait(NOT_LONG));
    }
}
