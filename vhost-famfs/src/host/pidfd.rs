// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes by a file descriptor (pidfd_open(2)), to wait for and to signal.

use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::sys;

/// A process that was there when this was made. Its id cannot pass to another process meanwhile
/// without being noticed.
#[derive(Debug)]
pub struct Handle {
    pid: u32,
    fd: OwnedFd,
}

impl Handle {
    /// A handle of the process that has an id now; `None` if there is none.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let id = Pid::from_raw(i32::try_from(pid).ok()?)?;
        Some(Self { pid, fd: pidfd_open(id, PidfdFlags::empty()).ok()? })
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it still runs; one that nobody has waited for does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.wait(Duration::ZERO)
    }

    /// Waits for its end; `false` if it still runs after `limit`.
    #[must_use]
    pub fn wait(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
            // A pidfd is readable when its process has ended (pidfd_open(2)).
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(rustix::io::Errno::INTR) if !left.is_zero() => {}
                Err(_) => return false,
            }
        }
    }

    /// How it ended; `None` until its parent has waited for it, and before Linux 6.15.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        sys::exit_status(&self.fd)
    }

    /// Sends it a signal; it may have ended meanwhile.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.fd, signal);
    }

    /// Ends it: asks, waits, kills. `false` if it is still there.
    #[must_use]
    pub fn end(&self, limit: Duration) -> bool {
        self.signal(Signal::TERM);
        self.wait(limit) || self.kill()
    }

    /// Kills it and waits until it is gone. `false` if it is still there, as one is that waits for a device
    /// that does not answer.
    #[must_use]
    pub fn kill(&self) -> bool {
        /// A killed process goes as soon as it is not deep in the kernel.
        const GONE: Duration = Duration::from_secs(20);
        self.signal(Signal::KILL);
        self.wait(GONE)
    }
}
