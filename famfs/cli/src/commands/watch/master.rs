// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The master's lease while its log is followed. Without it, a clone of this system could take
//! itself for the master between two commands that write. It is lent to the host on request.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use famfs::kernel::follow::Follower;
use famfs::store::identity::Identity;
use famfs::store::lease::{Keeper, LeaseError, Timing};
use famfs::store::role::Role;
use famfs::text::error_report::one_line;
use famfs::write::volume::Volume;
use uuid::Uuid;

/// How often the lease is checked, and how long to wait after it was refused.
const LOOK: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(10);
/// How often to look whether the host asks for the lease: its command waits for that.
const ASKED: Duration = Duration::from_millis(50);

/// The lease of a system that may be the master.
pub struct Lease {
    system: Option<Uuid>,
    state: State,
    next: Instant,
    /// When to look whether it is asked for.
    next_request: Instant,
    /// It is asked for, and could not be released yet.
    is_asked_for: bool,
}

enum State {
    Without,
    /// A thread takes it. If somebody else has it, the thread watches whether that holder lives,
    /// which takes seconds.
    Waiting(Taking),
    Held(Keeper),
}

/// A thread that takes the lease.
struct Taking {
    result: Receiver<Result<Keeper, LeaseError>>,
    /// Ends when the result is there.
    end: UnixStream,
}

impl Lease {
    /// No lease yet. A system without a UUID is not a master and needs none.
    pub fn new(system: Option<Uuid>) -> Self {
        let now = Instant::now();
        Self { system, state: State::Without, next: now, next_request: now, is_asked_for: false }
    }

    /// Acquires the lease if this system is the master, and releases it when it no longer is.
    /// Returns what to report.
    pub fn tend(&mut self, follower: &Follower) -> Option<String> {
        self.lend(follower);
        // The host may already wait for what a thread has just taken.
        if Instant::now() < self.next && !matches!(self.state, State::Waiting(_)) {
            return None;
        }
        self.next = Instant::now() + LOOK;
        let Some(system) = self.system.filter(|_| follower.role() == Role::Master) else {
            self.state = State::Without;
            return None;
        };
        let problem = match &self.state {
            State::Without => self.begin(system, follower).map_err(|err| format!("{err:#}")).err(),
            State::Waiting(taking) => match taking.result.try_recv() {
                Ok(Ok(keeper)) => {
                    (self.state, self.next_request) = (State::Held(keeper), Instant::now());
                    // The host may have asked for it while it was not here yet.
                    self.lend(follower);
                    None
                }
                Ok(Err(LeaseError::Resumed)) => return self.resumed(),
                Ok(Err(err)) => Some(one_line(&err)),
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => {
                    Some("the thread that waits for the lease ended".to_owned())
                }
            },
            State::Held(keeper) => match keeper.check() {
                Err(LeaseError::Resumed) => return self.resumed(),
                held => held.err().map(|err| one_line(&err)),
            },
        };
        if problem.is_some() {
            self.state = State::Without;
            self.next = Instant::now() + AGAIN;
        }
        problem
    }

    /// Forgets the lease of the system that this one was resumed from, and at once asks for one of
    /// its own. Nothing is written: what was held is that system's. [`super::member`] reports it.
    fn resumed(&mut self) -> Option<String> {
        (self.state, self.next) = (State::Without, Instant::now());
        None
    }

    /// Somebody may ask for it now.
    pub fn hurry(&mut self) {
        self.next_request = Instant::now();
    }

    /// Becomes readable when [`Lease::tend`] has something to do before its time.
    pub fn taken(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Waiting(taking) => Some(taking.end.as_fd()),
            _ => None,
        }
    }

    /// Time until [`Lease::tend`] must be called, because somebody waits for it. All else it does
    /// when the log is looked at anyway, so that an idle system does not wake up for it.
    pub fn left(&self) -> Duration {
        match &self.state {
            State::Held(_) if self.is_asked_for => {
                self.next_request.saturating_duration_since(Instant::now())
            }
            _ => Duration::MAX,
        }
    }

    /// Releases the lease if the host asks for it and no program here writes. Until the host has
    /// taken it, [`Keeper::acquire`] waits.
    fn lend(&mut self, follower: &Follower) {
        let State::Held(keeper) = &self.state else { return };
        if Instant::now() < self.next_request {
            return;
        }
        self.next_request = Instant::now() + ASKED;
        // What cannot be read is reported with the log.
        self.is_asked_for = keeper.is_asked_for().unwrap_or(false);
        if !self.is_asked_for {
            return;
        }
        // Whoever writes has the log's lock before the lease.
        let Some(_no_writer) = follower.volume().keep_writers_out() else { return };
        if let State::Held(keeper) = std::mem::replace(&mut self.state, State::Without) {
            keeper.release();
        }
        self.is_asked_for = false;
        self.next = Instant::now();
    }

    fn begin(&mut self, system: Uuid, follower: &Follower) -> Result<()> {
        let me = Identity::this(system)?;
        let media = follower.volume().lease_media()?;
        let fs_uuid = follower.fs_uuid();
        let (sender, result) = mpsc::channel();
        let (end, ends) = UnixStream::pair()?;
        thread::Builder::new().name("lease-wait".to_owned()).spawn(move || {
            // However long the host works.
            let timing = Timing { patience: Duration::MAX, ..Timing::default() };
            let keeper = Keeper::acquire(media, fs_uuid, me, false, timing, |_| {});
            // If the watch has ended, nobody waits any more: then the lease is released at once.
            let _ = sender.send(keeper);
            drop(ends);
        })?;
        self.state = State::Waiting(Taking { result, end });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn an_idle_system_does_not_wake_up_for_its_lease() {
        let mut lease = Lease::new(Some(Uuid::from_u128(1)));
        assert_eq!(lease.left(), Duration::MAX);
        lease.hurry();
        assert_eq!(lease.left(), Duration::MAX);
    }

    #[test]
    fn what_a_thread_has_taken_ends_a_pause() {
        let mut lease = Lease::new(Some(Uuid::from_u128(1)));
        assert!(lease.taken().is_none());
        let (_sender, result) = mpsc::channel();
        let (end, ends) = UnixStream::pair().unwrap();
        lease.state = State::Waiting(Taking { result, end });
        let is_readable = |lease: &Lease| {
            let mut fds = [PollFd::from_borrowed_fd(lease.taken().unwrap(), PollFlags::IN)];
            poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
        };
        assert!(!is_readable(&lease));
        drop(ends);
        assert!(is_readable(&lease));
    }
}
