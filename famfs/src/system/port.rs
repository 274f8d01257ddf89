// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The virtio-serial port through which a guest and its host wake each other.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::OFlags;

use crate::format::report::Report;

/// The port's name.
pub const NAME: &str = "org.vhost-famfs.wake";

/// Where the kernel lists its ports. Without udev there is no /dev/virtio-ports.
const LIST: &str = "/sys/class/virtio-ports";

/// How many bytes to read at once.
const CHUNK: usize = 4096;
/// How many times: the driver has one buffer, and a host that does not stop must not keep a guest
/// from its work.
const MOST: usize = 64;

/// The port, which one process at a time can open.
#[derive(Debug)]
pub struct WakePort {
    file: File,
    /// Becomes readable when the host sends something, connects or disconnects.
    events: OwnedFd,
}

impl WakePort {
    /// Opens the port; `None` if this machine has none.
    ///
    /// # Errors
    /// Another process has it open, or it cannot be opened.
    pub fn open() -> io::Result<Option<Self>> {
        let mut entries = fs::read_dir(LIST).into_iter().flatten().flatten();
        let is_it = |entry: &fs::DirEntry| {
            fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim_end() == NAME)
        };
        match entries.find(is_it) {
            Some(entry) => Self::new(&Path::new("/dev").join(entry.file_name())).map(Some),
            None => Ok(None),
        }
    }

    fn new(path: &Path) -> io::Result<Self> {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options().read(true).write(true).custom_flags(flags).open(path)?;
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Edge-triggered: while no host is connected, the port reports that without end.
        // OUT is how the port reports that one connects.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&events, &file, epoll::EventData::new_u64(0), flags)?;
        Ok(Self { file, events })
    }

    /// Whether somebody of the host listens and wakes.
    pub fn has_host(&self) -> bool {
        let mut fds = [PollFd::new(&self.file, PollFlags::empty())];
        let looked = poll(&mut fds, Some(&Timespec::default()));
        looked.is_ok() && !fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Reads the wake-ups that have arrived; returns whether there were any.
    pub fn take(&self) -> bool {
        let (flags, data) = (epoll::EventFlags::empty(), epoll::EventData::new_u64(0));
        // What comes after this is reported again.
        let _ = epoll::wait(
            &self.events,
            &mut [epoll::Event { flags, data }],
            Some(&Timespec::default()),
        );
        let mut bytes = [0; CHUNK];
        let taken = (0..MOST).take_while(|_| matches!((&self.file).read(&mut bytes), Ok(1..)));
        taken.count() > 0
    }

    /// Sends the host's side a report, as a whole or not at all; returns whether it did. Never
    /// waits.
    pub fn report(&self, report: &Report) -> bool {
        let bytes = report.encode();
        (&self.file).write(&bytes).is_ok_and(|count| count == bytes.len())
    }

    /// Wakes the host's side, if it listens. Never waits: a host that has not read the last
    /// wake-ups will look anyway.
    pub fn wake(&self) {
        let _ = (&self.file).write(&[0]);
    }
}

impl AsFd for WakePort {
    /// Readable when something has happened since [`Self::take`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
