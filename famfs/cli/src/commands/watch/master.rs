// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The master's lease while its log is followed. Without it, a clone of this system could take
//! itself for the master between two commands that write. It is lent to the host on request.

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
    /// Somebody else had it: a thread watches whether that holder lives, which takes seconds.
    Waiting(Receiver<Result<Keeper, LeaseError>>),
    Held(Keeper),
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
        if Instant::now() < self.next {
            return None;
        }
        self.next = Instant::now() + LOOK;
        let Some(system) = self.system.filter(|_| follower.role() == Role::Master) else {
            self.state = State::Without;
            return None;
        };
        let problem = match &self.state {
            State::Without => self.begin(system, follower).map_err(|err| format!("{err:#}")).err(),
            State::Waiting(result) => match result.try_recv() {
                Ok(Ok(keeper)) => {
                    self.state = State::Held(keeper);
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

    /// Time until [`Lease::tend`] has something to do.
    pub fn left(&self) -> Duration {
        let next = match &self.state {
            State::Held(_) if self.is_asked_for => self.next.min(self.next_request),
            _ => self.next,
        };
        next.saturating_duration_since(Instant::now())
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
        thread::Builder::new().name("lease-wait".to_owned()).spawn(move || {
            // However long the host works.
            let timing = Timing { patience: Duration::MAX, ..Timing::default() };
            let keeper = Keeper::acquire(media, fs_uuid, me, false, timing, |_| {});
            // If the watch has ended, nobody waits any more: then the lease is released at once.
            let _ = sender.send(keeper);
        })?;
        self.state = State::Waiting(result);
        Ok(())
    }
}
