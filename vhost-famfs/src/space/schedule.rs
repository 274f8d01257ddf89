// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When to look whether there is something to give back, and when to give it back.

use std::time::{Duration, Instant};

/// How long nobody may have woken this before it looks: changes come in groups, and those who
/// follow the log need a moment to let go of what was removed.
const QUIET: Duration = Duration::from_millis(300);
/// How long it waits at most for that. A master that writes without a pause gives the lease away
/// only so often.
const BUSY: Duration = Duration::from_secs(10);
/// Time between two looks while something is held: a look costs two reads.
const GLANCE: Duration = Duration::from_secs(1);
/// Time between two attempts without news while something is held, from the first to the longest.
const HELD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(64));
/// The same after a failure: some pass, such as that of a log that has just changed, most stay.
const FAILED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// An attempt that took long is not repeated for this many times as long, but for at most an hour.
const SHARE: u32 = 3;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is given back.
    All,
    /// Something is in use.
    Held,
    /// It is not possible.
    Failed,
}

/// The schedule. It begins without anything to do.
#[derive(Debug, Default)]
pub struct Schedule {
    /// The first and the last wake-up since the last look.
    woken: Option<(Instant, Instant)>,
    /// When to look while something is held.
    glance: Option<Instant>,
    /// The next attempt without news, and the pause before it.
    again: Option<(Instant, Duration)>,
    /// Nothing is done earlier.
    rests: Option<Instant>,
}

impl Schedule {
    /// Somebody has published something.
    pub fn wake(&mut self, now: Instant) {
        self.woken = Some((self.woken.map_or(now, |(first, _)| first), now));
    }

    /// When to look next.
    pub fn next(&self) -> Option<Instant> {
        let woken = self.woken.map(|(first, last)| (last + QUIET).min(first + BUSY));
        let next = woken.into_iter().chain(self.glance).min()?;
        Some(self.rests.map_or(next, |rests| next.max(rests)))
    }

    /// Whether it is time to look; then the wake-ups so far count as seen.
    pub fn take(&mut self, now: Instant) -> bool {
        let is_time = self.next().is_some_and(|next| now >= next);
        if is_time {
            (self.woken, self.glance) = (None, None);
        }
        is_time
    }

    /// Whether to try again without news.
    pub fn is_due(&self, now: Instant) -> bool {
        self.again.is_none_or(|(at, _)| now >= at)
    }

    /// It has looked, and does nothing now.
    pub fn goes_on(&mut self, is_pending: bool, now: Instant) {
        self.glance = is_pending.then(|| now + GLANCE);
    }

    /// An attempt has ended that took so long.
    pub fn ended(&mut self, now: Instant, took: Duration, outcome: Outcome) {
        let pause = |(first, longest): (Duration, Duration)| {
            let last = self.again.map_or(Duration::ZERO, |(_, pause)| pause);
            (2 * last).clamp(first, longest)
        };
        let pause = match outcome {
            Outcome::All => None,
            Outcome::Held => Some(pause(HELD)),
            Outcome::Failed => Some(pause(FAILED)),
        };
        self.again = pause.map(|pause| (now + pause, pause));
        let rest = match outcome {
            // Also if others wake it.
            Outcome::Failed => pause.unwrap_or_default(),
            _ => GLANCE.max(took.saturating_mul(SHARE).min(FAILED.1)),
        };
        self.rests = Some(now + rest);
        self.glance = pause.map(|_| now + GLANCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The times, in milliseconds, at which it looks, asked every 10 ms.
    fn looks(
        schedule: &mut Schedule,
        start: Instant,
        until: u64,
        mut at: impl FnMut(&mut Schedule, u64),
    ) -> Vec<u64> {
        let times = (0..until / 10).map(|n| n * 10);
        times
            .filter(|time| {
                at(schedule, *time);
                schedule.take(start + ms(*time))
            })
            .collect()
    }

    #[test]
    fn it_looks_once_after_a_group_and_now_and_then_in_an_endless_one() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        assert!(looks(&mut schedule, start, 5_000, |_, _| {}).is_empty(), "nothing wakes it");
        let group = |schedule: &mut Schedule, time| {
            if time <= 2_000 {
                schedule.wake(start + ms(time));
            }
        };
        assert_eq!(looks(&mut schedule, start, 60_000, group), [2_300]);
        let endless = |schedule: &mut Schedule, time| schedule.wake(start + ms(time));
        assert_eq!(looks(&mut schedule, start, 31_000, endless), [10_000, 20_010, 30_020]);
    }

    #[test]
    fn what_is_held_is_tried_less_and_less_often_and_news_at_once() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let mut tried = Vec::new();
        schedule.wake(start);
        for second in 0..400_u64 {
            let now = start + ms(second * 1_000 + 500);
            if !schedule.take(now) {
                continue;
            }
            match schedule.is_due(now) {
                true => {
                    tried.push(second);
                    schedule.ended(now, ms(1), Outcome::Held);
                }
                false => schedule.goes_on(true, now),
            }
        }
        assert_eq!(tried, [0, 1, 3, 7, 15, 31, 63, 127, 191, 255, 319, 383]);
        let now = start + ms(401_000);
        schedule.ended(now, ms(1), Outcome::All);
        assert!(schedule.next().is_none() && schedule.is_due(now));
    }

    #[test]
    fn a_failure_and_a_long_run_make_it_rest() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.ended(now, ms(1), Outcome::Failed);
        schedule.wake(now);
        assert_eq!(schedule.next(), Some(now + FAILED.0));
        for _ in 0..20 {
            schedule.ended(now, ms(1), Outcome::Failed);
        }
        schedule.wake(now);
        assert_eq!(schedule.next(), Some(now + FAILED.1));
        let mut schedule = Schedule::default();
        schedule.ended(now, ms(4_000), Outcome::All);
        schedule.wake(now);
        assert_eq!(schedule.next(), Some(now + ms(12_000)));
    }
}
