// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Gives the memory of removed files of a pool back while virtual machines run, whoever removed
//! them: runs `famfs reclaim`, which needs the host's view of who has the pool.
//!
//! ```text
//! wake-up --> Schedule: quiet? --> lead? --> Glance: removals? --> famfs reclaim
//! ```
//!
//! The keeper of each virtual machine has one of these. Of all keepers of a pool, one leads until
//! it ends; the others only try to lead, now and then. Nothing else happens without a wake-up, or
//! until something that was removed is given back. But who begins to lead looks whether a
//! reclamation was interrupted, which keeps mounts from writing.

mod glance;
mod place;
mod program;
mod schedule;

use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use famfs::system::neighbours::{Lead, PoolId};
use famfs::text::error_report::one_line;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use glance::Glance;
pub use place::Place;
use program::Ended;
use schedule::{Outcome, Schedule};

/// Time between two attempts to lead without a wake-up: nobody tells that the leader has ended.
const LEAD: Duration = Duration::from_secs(10);

/// A pool whose memory is given back.
#[derive(Debug)]
pub struct Space {
    /// The pool file.
    pub pool: PathBuf,
    /// Which one it must be.
    pub id: PoolId,
    /// The runtime directory, where keepers find each other.
    pub base: PathBuf,
    /// The program `famfs`.
    pub famfs: PathBuf,
    /// Whether the pool may belong to another user.
    pub foreign: bool,
}

impl Space {
    /// Gives memory back until the other end of `wakes` is closed; each byte is a wake-up. What
    /// makes it impossible is told, each reason once.
    ///
    /// # Errors
    /// The kernel cannot wait for wake-ups.
    pub fn run(self, wakes: &UnixStream, mut tell: impl FnMut(&str)) -> io::Result<()> {
        wakes.set_nonblocking(true)?;
        let (mut schedule, mut glance) = (Schedule::default(), Glance::new(&self.pool, self.id));
        let (mut lead, mut told) = (self.lead(&glance, &mut schedule), String::new());
        let mut tried = Instant::now();
        loop {
            let now = Instant::now();
            let next =
                schedule.next().into_iter().chain(lead.is_none().then(|| tried + LEAD)).min();
            match wait(wakes, next.map(|at| at.saturating_duration_since(now)))? {
                Waited::Ended => return Ok(()),
                Waited::Woken => schedule.wake(Instant::now()),
                Waited::Nothing => {}
            }
            let now = Instant::now();
            let is_time = schedule.take(now);
            if lead.is_none() && (is_time || now >= tried + LEAD) {
                (lead, tried) = (self.lead(&glance, &mut schedule), now);
            }
            if lead.is_none() || !is_time {
                continue;
            }
            let found = match glance.look() {
                Ok(found) => found,
                Err(error) => {
                    tell_once(&mut told, &one_line(&error), &mut tell);
                    schedule.ended(now, Duration::ZERO, Outcome::Failed);
                    continue;
                }
            };
            if !found.is_pending || !(found.is_news || schedule.is_due(now)) {
                schedule.goes_on(found.is_pending, now);
                continue;
            }
            let mut is_woken = false;
            let ended = program::reclaim(&self, wakes, &mut is_woken);
            let (end, took) = (Instant::now(), now.elapsed());
            if is_woken {
                schedule.wake(end);
            }
            match ended {
                Ok(Ended::Stopped) => return Ok(()),
                Ok(Ended::All) => {
                    glance.given_back();
                    schedule.ended(end, took, Outcome::All);
                }
                Ok(Ended::Held) => schedule.ended(end, took, Outcome::Held),
                Ok(Ended::Failed(text)) => {
                    tell_once(&mut told, &text, &mut tell);
                    schedule.ended(end, took, Outcome::Failed);
                }
                Err(error) => {
                    let text = format!("cannot run {}: {error}", self.famfs.display());
                    tell_once(&mut told, &text, &mut tell);
                    schedule.ended(end, took, Outcome::Failed);
                }
            }
        }
    }
}

impl Space {
    /// Begins to lead, if nobody does, and then takes a wake-up as given if a reclamation was
    /// interrupted.
    fn lead(&self, glance: &Glance, schedule: &mut Schedule) -> Option<Lead> {
        let lead = Lead::take(&self.base, self.id).ok().flatten()?;
        // A look at what was removed tells why a pool cannot be read.
        if glance.is_interrupted().unwrap_or(false) {
            schedule.wake(Instant::now());
        }
        Some(lead)
    }
}

fn tell_once(told: &mut String, text: &str, tell: &mut impl FnMut(&str)) {
    if told != text {
        text.clone_into(told);
        tell(&format!("memory of removed files is not given back by itself: {text}"));
    }
}

/// What ended a pause.
#[derive(Debug, PartialEq, Eq)]
enum Waited {
    Woken,
    Nothing,
    Ended,
}

/// Waits for a wake-up, for at most `pause`.
fn wait(wakes: &UnixStream, pause: Option<Duration>) -> io::Result<Waited> {
    let pause = pause.and_then(|pause| Timespec::try_from(pause).ok());
    match poll(&mut [PollFd::new(wakes, PollFlags::IN)], pause.as_ref()) {
        Ok(0) | Err(Errno::INTR) => Ok(Waited::Nothing),
        Ok(_) => Ok(take(wakes)),
        Err(errno) => Err(errno.into()),
    }
}

/// Reads the wake-ups that have come.
fn take(mut wakes: &UnixStream) -> Waited {
    match wakes.read(&mut [0; 4096]) {
        Ok(0) => Waited::Ended,
        Ok(_) => Waited::Woken,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Waited::Nothing
        }
        Err(_) => Waited::Ended,
    }
}
