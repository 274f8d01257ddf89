// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Wakes the guests that follow a pool's log when something is published, so that none has to look
//! at it all the time.
//!
//! ```text
//! a command of the host --> Neighbour --Relay--> virtio-serial port --> famfs watch in the guest
//!          other relays <-- Neighbour <--Relay-- virtio-serial port <-- famfs watch in the guest
//! ```
//!
//! A wake-up has no contents, so that many count as one. A guest that does not read, or sends
//! without end, costs the relay neither memory nor much time, and its neighbours little.

mod gate;
mod line;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
}

impl Relay {
    /// Begins to listen for what is published in a pool. `base` is the runtime directory, and
    /// `port` the socket of the VM's port, which QEMU makes later.
    ///
    /// # Errors
    /// The runtime directory cannot be used.
    pub fn join(base: &Path, pool: PoolId, port: PathBuf) -> io::Result<Self> {
        Ok(Self { neighbour: Neighbour::join(base, pool)?, line: Line::new(port) })
    }

    /// Passes wake-ups on until `stop` becomes readable.
    ///
    /// # Errors
    /// The kernel cannot wait for them.
    pub fn run(mut self, stop: impl AsFd) -> io::Result<()> {
        let (mut inward, mut outward) = (Gate::new(), Gate::new());
        loop {
            let now = Instant::now();
            self.line.connect(now);
            if inward.pass(now) {
                self.line.wake();
            }
            if outward.pass(now) {
                self.neighbour.wake_others();
            }
            let next = [inward.opens(), outward.opens(), self.line.retries()];
            let pause = next.into_iter().flatten().min();
            let pause =
                pause.map(|at| at.saturating_duration_since(now) + Duration::from_micros(1));
            // While a gate is shut, what comes waits in the kernel.
            let [stopped, neighbour, guest] = {
                let neighbour = (!inward.is_waiting()).then_some(self.neighbour.as_fd());
                let guest = self.line.as_fd().filter(|_| !outward.is_waiting());
                wait([Some(stop.as_fd()), neighbour, guest], pause)?
            };
            if stopped {
                return Ok(());
            }
            if neighbour && self.neighbour.take() {
                inward.ask();
            }
            if guest && self.line.take() {
                outward.ask();
            }
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
