// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The virtio-serial ports.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use protocol::exec::{self, PORTS};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;

/// Where the kernel lists its ports.
const LIST: &str = "/sys/class/virtio-ports";

/// How long to wait for a port: the driver asks the host for port names after it has probed.
const LIMIT: Duration = Duration::from_secs(20);

/// Pause between two looks.
const STEP: Duration = Duration::from_millis(20);

/// The host at the other end. A read returns no bytes if no host is connected.
pub trait Host: Read {
    /// Whether no other host can come once this one has left.
    fn has_end(&self) -> bool {
        false
    }

    /// Whether a host is connected, as far as the kernel has heard.
    ///
    /// # Errors
    /// The port cannot be asked.
    fn is_there(&self) -> io::Result<bool>;

    /// Waits until something has changed since the last call, or for at most `limit`.
    ///
    /// # Errors
    /// The port cannot be waited for.
    fn wait(&self, limit: Option<Duration>) -> io::Result<()>;
}

/// An open port.
pub struct Port {
    file: File,
    /// Becomes readable when the host connects, disconnects or sends something.
    events: OwnedFd,
}

impl Port {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Edge-triggered: while no host is connected, the port reports that without end.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&events, &file, epoll::EventData::new_u64(0), flags)?;
        Ok(Self { file, events })
    }

    /// A handle for writing.
    pub fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl Host for Port {
    fn is_there(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.file, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(!fds[0].revents().contains(PollFlags::HUP))
    }

    fn wait(&self, limit: Option<Duration>) -> io::Result<()> {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }];
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match epoll::wait(&self.events, &mut events, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Read for Port {
    /// Waits for bytes; there are none if no host is connected.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

/// Opens the first port.
pub fn first() -> Result<Port> {
    let start = Instant::now();
    loop {
        if let Some((_, path)) = list().into_iter().find(|(number, _)| *number == 0) {
            return Port::open(&path).with_context(|| format!("cannot open {}", path.display()));
        }
        if start.elapsed() > LIMIT {
            bail!("no virtio-serial port named {} after {LIMIT:?}", exec::port(0));
        }
        thread::sleep(STEP);
    }
}

/// Whether this machine has a port.
pub fn is_any_there() -> bool {
    !list().is_empty()
}

/// Opens the other ports as they appear, and calls `found` with each. A machine of another launcher
/// may have none.
pub fn others(found: impl Fn(usize, Port)) {
    let (start, mut open) = (Instant::now(), [false; PORTS]);
    open[0] = true;
    while open.contains(&false) && start.elapsed() < LIMIT {
        for (number, path) in list() {
            if !std::mem::replace(&mut open[number], true) {
                match Port::open(&path) {
                    Ok(port) => found(number, port),
                    Err(error) => {
                        eprintln!("appliance-agent: cannot open {}: {error}", path.display());
                    }
                }
            }
        }
        thread::sleep(STEP);
    }
}

/// The ports that there are, with their numbers. Without udev there is no /dev/virtio-ports, but
/// the names are in sysfs.
fn list() -> Vec<(usize, PathBuf)> {
    let entries = fs::read_dir(LIST).into_iter().flatten().flatten();
    let ports = entries.filter_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        let number = (0..PORTS).find(|number| exec::port(*number) == name.trim_end())?;
        Some((number, Path::new("/dev").join(entry.file_name())))
    });
    ports.collect()
}
