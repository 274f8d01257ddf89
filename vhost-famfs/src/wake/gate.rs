// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How often wake-ups are passed on.

use std::time::{Duration, Instant};

/// Time between two that come one after the other.
const SHORTEST: Duration = Duration::from_millis(1);
/// Time between two on average, while they come without a pause: a guest that publishes without end
/// makes its neighbours look only so often.
const AVERAGE: Duration = Duration::from_millis(20);
/// How many may come [`SHORTEST`] after one another. What was not used comes back with time.
const BURST: u32 = 8;

/// Joins wake-ups that come fast.
///
/// Whenever it is asked, and however late: in any time `t` it passes at most `BURST + t / AVERAGE`.
#[derive(Debug)]
pub struct Gate {
    is_asked: bool,
    /// When it last opened.
    last: Option<Instant>,
    /// When all that has passed would have, one each [`AVERAGE`].
    paid: Instant,
}

impl Gate {
    /// The first opens it at once.
    pub fn new(now: Instant) -> Self {
        Self { is_asked: false, last: None, paid: now }
    }

    /// There is something to pass on.
    pub fn ask(&mut self) {
        self.is_asked = true;
    }

    /// Whether something waits.
    pub fn is_waiting(&self) -> bool {
        self.is_asked
    }

    /// When what waits may pass, which can be in the past.
    pub fn opens(&self) -> Option<Instant> {
        self.is_asked.then(|| self.next())
    }

    /// Whether something passes now.
    pub fn pass(&mut self, now: Instant) -> bool {
        if !self.is_asked || now < self.next() {
            return false;
        }
        (self.is_asked, self.last) = (false, Some(now));
        self.paid = self.paid.max(now) + AVERAGE;
        true
    }

    fn next(&self) -> Instant {
        let credit = AVERAGE * (BURST - 1);
        // Before the clock began nothing was to pay.
        let paid = self.paid.checked_sub(credit).unwrap_or(self.paid);
        self.last.map_or(paid, |last| paid.max(last + SHORTEST))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// When those of a gate that is asked at each of these times pass, in microseconds.
    fn passed(start: Instant, times: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut gate = Gate::new(start);
        assert!(!gate.pass(start) && gate.opens().is_none());
        times
            .filter(|us| {
                gate.ask();
                gate.pass(start + Duration::from_micros(*us))
            })
            .collect()
    }

    #[test]
    fn a_flood_passes_seldom_and_a_few_at_once() {
        let passed = passed(Instant::now(), (0..10_000).map(|n| n * 100));
        assert_eq!(passed[..8], [0, 1, 2, 3, 4, 5, 6, 7].map(|ms| ms * 1_000));
        assert_eq!(passed[8..11], [20_000, 40_000, 60_000]);
        assert_eq!(passed.len(), 57, "1 s of a flood");
    }

    #[test]
    fn after_a_pause_several_pass_again() {
        let flood = (0..1_000).map(|n| n * 100);
        let later = [1_200, 1_210, 1_220].map(|ms| ms * 1_000);
        let passed = passed(Instant::now(), flood.chain(later));
        assert_eq!(passed[passed.len() - 3..], later, "one every 10 ms is not held up");
    }

    proptest! {
        /// On a busy host a gate is asked late, and now and then.
        #[test]
        fn no_delays_let_more_pass(delays in prop::collection::vec(0_u64..100_000, 1..300)) {
            let times = delays.iter().scan(0, |at, delay| { *at += delay; Some(*at) });
            let passed = passed(Instant::now(), times);
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    prop_assert!((last - first + 1) as u64 <= 8 + (to - from) / 20_000);
                }
            }
        }
    }
}
