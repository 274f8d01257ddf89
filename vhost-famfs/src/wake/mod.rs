// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Wakes the guests that follow a pool's log when something is published, so that none has to look
//! at it all the time.
//!
//! ```text
//! a command of the host --> Neighbour --Relay--> virtio-serial port --> famfs watch in the guest
//!          other relays <-- Neighbour <--Relay-- virtio-serial port <-- famfs watch in the guest
//! ```
//!
//! A guest that cannot write the pool also reports how far it is; others do not hear of that.
//!
//! A wake-up has no contents, so that many count as one, and of reports only the last one counts. A
//! guest that does not read, or sends without end, costs the relay neither memory nor much time,
//! and its neighbours little.

mod gate;
mod line;
mod messages;

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use famfs::format::report::Report;
use famfs::system::neighbours::{Neighbour, PoolId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use gate::Gate;
use line::Line;

/// Between one VM and the others that have the pool.
#[derive(Debug)]
pub struct Relay {
    neighbour: Neighbour,
    line: Line,
    /// Where a byte goes when somebody has published something.
    listener: Option<UnixStream>,
    /// Where reports of the guest go.
    reports: Option<SyncSender<Report>>,
}

impl Relay {
    /// Begins to listen for what is published in a pool. `base` is the runtime directory, and
    /// `port` the socket of the VM's port, which QEMU makes later.
    ///
    /// # Errors
    /// The runtime directory cannot be used.
    pub fn join(base: &Path, pool: PoolId, port: PathBuf) -> io::Result<Self> {
        let neighbour = Neighbour::join(base, pool)?;
        Ok(Self { neighbour, line: Line::new(port), listener: None, reports: None })
    }

    /// Also tells a thread of this process, which may be slow: a byte for each wake-up that passes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn telling(self, listener: UnixStream) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: Some(listener), ..self })
    }

    /// Also passes on what the guest reports. What its receiver has no room for is dropped: the
    /// next report says more.
    #[must_use]
    pub fn reporting(self, reports: SyncSender<Report>) -> Self {
        Self { reports: Some(reports), ..self }
    }

    /// Passes wake-ups on until `stop` becomes readable.
    ///
    /// # Errors
    /// The kernel cannot wait for them.
    pub fn run(mut self, stop: impl AsFd) -> io::Result<()> {
        let [mut inward, mut outward, mut reports] = [(); 3].map(|()| Gate::new(Instant::now()));
        let mut report = None;
        loop {
            let now = Instant::now();
            self.line.connect(now);
            if inward.pass(now) {
                self.line.wake();
                self.tell();
            }
            if outward.pass(now) {
                self.neighbour.wake_others();
                self.tell();
            }
            if reports.pass(now)
                && let (Some(report), Some(reports)) = (report.take(), &self.reports)
            {
                let _ = reports.try_send(report);
            }
            let next = [inward.opens(), outward.opens(), reports.opens(), self.line.retries()];
            let pause = next.into_iter().flatten().min();
            let pause =
                pause.map(|at| at.saturating_duration_since(now) + Duration::from_micros(1));
            // While a gate is shut, what comes waits in the kernel.
            let [stopped, neighbour, guest] = {
                let neighbour = (!inward.is_waiting()).then_some(self.neighbour.as_fd());
                let is_shut = outward.is_waiting() || reports.is_waiting();
                let guest = self.line.as_fd().filter(|_| !is_shut);
                wait([Some(stop.as_fd()), neighbour, guest], pause)?
            };
            if stopped {
                return Ok(());
            }
            if neighbour && self.neighbour.take() {
                inward.ask();
            }
            if guest {
                let sent = self.line.take();
                if sent.is_wake {
                    outward.ask();
                }
                if sent.report.is_some() {
                    report = sent.report;
                    reports.ask();
                }
            }
        }
    }
}

impl Relay {
    fn tell(&self) {
        if let Some(mut listener) = self.listener.as_ref() {
            // If it is full, the listener has not seen the last ones, and will look.
            let _ = listener.write(&[0]);
        }
    }
}

/// Waits until one of the files can be read, for at most `pause`; returns which can.
fn wait(fds: [Option<BorrowedFd<'_>>; 3], pause: Option<Duration>) -> io::Result<[bool; 3]> {
    let mut polled: Vec<_> =
        fds.iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let pause = pause.and_then(|pause| Timespec::try_from(pause).ok());
    match poll(&mut polled, pause.as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok([false; 3]),
        Err(errno) => return Err(errno.into()),
    }
    let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
    Ok(fds.map(|fd| fd.is_some() && ready.next().unwrap_or(false)))
}

#[cfg(test)]
mod tests;
