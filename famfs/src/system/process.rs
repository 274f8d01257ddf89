// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes of this machine, most of them not children of this one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use uuid::Uuid;

/// Identifies this boot of this kernel (random(4)); the same for all its processes.
pub const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this boot of the machine.
///
/// # Errors
/// The kernel does not report it.
pub fn boot_id() -> io::Result<Uuid> {
    let text = fs::read_to_string(BOOT_ID)?;
    Uuid::try_parse(text.trim()).map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))
}

/// The ids of all processes but this one.
///
/// # Errors
/// There is no /proc.
pub fn others() -> io::Result<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    Ok(pids.filter(|pid| *pid != std::process::id()))
}

/// A process, held by a file descriptor (pidfd_open(2)), so that its id cannot pass to another
/// process unnoticed.
#[derive(Debug)]
pub struct Handle {
    pid: u32,
    fd: OwnedFd,
}

impl Handle {
    /// A handle of the process that has this id now.
    ///
    /// # Errors
    /// `ESRCH` if there is none; the system has no descriptor left.
    pub fn open(pid: u32) -> io::Result<Self> {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        Ok(Self { pid, fd: pidfd_open(id, PidfdFlags::empty())? })
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it still runs; a process that nobody has waited for does not.
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
                Err(Errno::INTR) if !left.is_zero() => {}
                Err(_) => return false,
            }
        }
    }

    /// Sends it a signal. It is no error if it has ended.
    ///
    /// # Errors
    /// This process may not send it.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Ends it: asks, waits, kills. `false` if it is still there.
    #[must_use]
    pub fn end(&self, limit: Duration) -> bool {
        // The wait shows whether that helped.
        let _ = self.signal(Signal::TERM);
        self.wait(limit) || self.kill()
    }

    /// Kills it and waits until it is gone. `false` if it is still there, for example because it
    /// waits for a device that does not answer.
    #[must_use]
    pub fn kill(&self) -> bool {
        /// A killed process ends as soon as it is not deep in the kernel.
        const GONE: Duration = Duration::from_secs(20);
        // As in `end`.
        let _ = self.signal(Signal::KILL);
        self.wait(GONE)
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_ended_and_gone() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let handle = Handle::open(child.id()).unwrap();
        assert!(handle.is_alive() && handle.pid() == child.id());
        assert!(others().unwrap().any(|pid| pid == child.id()));
        assert!(handle.end(Duration::from_secs(60)));
        child.wait().unwrap();
        handle.signal(Signal::TERM).unwrap();
        let error = Handle::open(child.id()).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::SRCH));
    }

    #[test]
    fn a_boot_has_one_id() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
    }
}
