// SPDX-License-Identifier: Apache-2.0 OR MIT
//! This system's place among the members while it follows the log: how others see how far it is. A
//! system that cannot write the memory tells its host, which has a place for it.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::Result;
use famfs::format::report::Report;
use famfs::kernel::follow::Follower;
use famfs::kernel::release::Release;
use famfs::store::identity::{Identity, RunningSystem};
use famfs::store::lease::Timing;
use famfs::store::members::{MemberError, Seat};
use famfs::store::role;
use famfs::write::volume::Volume;

/// How often to beat: who waits for all members waits for a beat of each, and may be unable to wake
/// them.
const BEAT: Duration = Duration::from_millis(200);
/// How often if others wake this system, so that it beats when somebody waits. Far less than
/// [`Timing::expiry`].
const TOLD_BEAT: Duration = Duration::from_secs(1);
/// Shortest time between two beats, however often this system is woken.
const SHORTEST: Duration = Duration::from_millis(50);
/// How long to wait before another try to take a place.
const AGAIN: Duration = Duration::from_secs(10);

/// The place, if this system can have one.
pub struct Membership {
    /// Whether the memory can be written.
    writable: bool,
    seat: Option<Seat>,
    /// What the host was told last.
    told: Option<Report>,
    /// Whether the host listens.
    has_host: bool,
    next: Instant,
    beat: Duration,
    /// When it last beat.
    last: Instant,
    /// How far removed files are known to be unused here, in slots of a numbering.
    release: Release,
    numbering: Option<u64>,
    /// Who the host was told that this is.
    me: Option<Identity>,
    /// Whether this system was resumed from a snapshot, and that was not reported yet.
    was_resumed: bool,
    /// Whether that ever happened.
    is_clone: bool,
}

impl Membership {
    /// None yet.
    pub fn new(writable: bool) -> Self {
        let now = Instant::now();
        let (release, numbering, told, has_host) = (Release::default(), None, None, false);
        let (next, last, beat) = (now, now, BEAT);
        Self {
            writable,
            seat: None,
            told,
            has_host,
            next,
            beat,
            last,
            release,
            numbering,
            me: None,
            was_resumed: false,
            is_clone: false,
        }
    }

    /// Whether this system was resumed from a snapshot since the last call.
    pub fn take_resumed(&mut self) -> bool {
        std::mem::take(&mut self.was_resumed)
    }

    /// Sets how often to beat, by whether others wake this system.
    pub fn rest(&mut self, told: bool) {
        self.beat = if told { TOLD_BEAT } else { BEAT };
        self.has_host = told;
        if self.beats() {
            self.next = self.next.min(self.last + self.beat);
        }
    }

    /// Somebody may wait for a beat.
    pub fn hurry(&mut self) {
        if self.beats() {
            self.next = self.next.min(self.last + SHORTEST);
        }
    }

    /// Whether somebody sees this system's beats.
    fn beats(&self) -> bool {
        if self.writable { self.seat.is_some() } else { self.has_host }
    }

    /// Time until this has something to do.
    pub fn left(&self) -> Duration {
        match self.writable || self.has_host {
            true => self.next.saturating_duration_since(Instant::now()),
            false => Duration::MAX,
        }
    }

    /// Takes a place or keeps it, and tells how far the mount is. Returns what to report.
    pub fn tend(&mut self, follower: &Follower) -> Option<String> {
        if !self.writable {
            return None;
        }
        let now = Instant::now();
        let due = now >= self.next;
        let unproven = self.prove(follower);
        let proven = self.release.proven();
        let result = match &mut self.seat {
            Some(seat) => {
                let told = match follower.numbering() {
                    None => Ok(()),
                    Some(numbering) => {
                        let applied = match follower.has_failed() {
                            // What could not be made is not there: the last position counts.
                            true => seat.applied(numbering),
                            false => follower.plan().next_slot(),
                        };
                        seat.report(numbering, applied, proven)
                    }
                };
                let told = match due {
                    true => told.and_then(|()| seat.tend(Timing::default())),
                    false => told,
                };
                told.map_err(Into::into)
            }
            None if due => take(follower).map(|mut seat| {
                if self.is_clone {
                    seat.spare_kin();
                }
                self.seat = Some(seat);
            }),
            None => return unproven,
        };
        match result {
            Err(error) if matches!(error.downcast_ref(), Some(MemberError::Resumed { .. })) => {
                // The place is that of the system which was saved; the next call takes another.
                (self.seat, self.next) = (None, now);
                (self.was_resumed, self.is_clone) = (true, true);
                unproven
            }
            Ok(()) if due => {
                (self.last, self.next) = (now, now + self.beat);
                unproven
            }
            Ok(()) => unproven,
            Err(error) => {
                (self.seat, self.next) = (None, now + AGAIN);
                Some(format!("{error:#}"))
            }
        }
    }
}

impl Membership {
    /// Tells the host how far a system is that cannot write the memory. `send` returns whether the
    /// host gets it. Returns what to report.
    pub fn tell_host(
        &mut self,
        follower: &Follower,
        send: impl FnOnce(&Report) -> bool,
    ) -> Option<String> {
        if self.writable || !self.has_host {
            return None;
        }
        let now = Instant::now();
        let problem = self.prove(follower);
        let Some(numbering) = follower.numbering() else {
            self.next = self.next.max(now + self.beat);
            return problem;
        };
        let before = self.told.filter(|told| told.numbering == numbering);
        let applied = match follower.has_failed() {
            // What could not be made is not there: the last position counts.
            true => before.map_or(0, |told| told.applied),
            false => follower.plan().next_slot(),
        };
        let (fs_uuid, released) = (follower.fs_uuid(), self.release.proven());
        let now_told = (numbering, applied, released);
        let is_news =
            self.told.is_some_and(|told| (told.numbering, told.applied, told.released) != now_told);
        if now < self.next && !is_news {
            return problem;
        }
        // What was not sent is sent with the next beat.
        (self.last, self.next) = (now, now + self.beat);
        match self.identity() {
            Ok(RunningSystem { system, boot, .. }) => {
                let report = Report { fs_uuid, system, boot, numbering, applied, released };
                if send(&report) {
                    self.told = Some(report);
                }
                problem
            }
            Err(error) => Some(format!("{error:#}")),
        }
    }

    /// Who this is, found out again.
    fn identity(&mut self) -> Result<RunningSystem> {
        if let Some(me) = &self.me {
            let changed = me.has_changed()?;
            self.was_resumed |= changed;
            if changed {
                self.me = None;
            }
        }
        let me = match self.me.take() {
            Some(me) => me,
            None => this()?,
        };
        Ok(self.me.insert(me).system())
    }

    /// Tries to find out that removed files are unused. Returns what to report.
    fn prove(&mut self, follower: &Follower) -> Option<String> {
        if self.numbering != follower.numbering() {
            // The slots have other numbers, so it begins at the first one.
            (self.numbering, self.release) = (follower.numbering(), Release::default());
        }
        let plan = follower.plan();
        let volume = follower.volume();
        let (removed, next) = (plan.tree().removed(), plan.next_slot());
        match self.release.advance(removed, next, |ranges| volume.is_unused(ranges)) {
            Err(err) if err.kind() != ErrorKind::Unsupported => {
                Some(format!("cannot find out whether deleted files are in use: {err}"))
            }
            _ => None,
        }
    }
}

fn this() -> Result<Identity> {
    Ok(Identity::this(role::system_uuid()?)?)
}

fn take(follower: &Follower) -> Result<Seat> {
    let me = this()?;
    let media = follower.volume().lease_media()?;
    Ok(Seat::take(media, follower.fs_uuid(), me, Timing::default())?)
}
