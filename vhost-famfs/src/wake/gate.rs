// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How often wake-ups are passed on.

use std::time::{Duration, Instant};

/// Time between two, and the most that it grows to while they come without a pause: a guest that
/// publishes without end makes its neighbours look only so often.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(20);

/// Joins wake-ups that come fast.
#[derive(Debug)]
pub struct Gate {
    is_asked: bool,
    /// When it last opened.
    last: Option<Instant>,
    gap: Duration,
}

impl Gate {
    /// The first opens it at once.
    pub fn new() -> Self {
        Self { is_asked: false, last: None, gap: SHORTEST }
    }

    /// There is something to pass on.
    pub fn ask(&mut self) {
        self.is_asked = true;
    }

    /// Whether something waits.
    pub fn is_waiting(&self) -> bool {
        self.is_asked
    }

    /// When what waits may pass.
    pub fn opens(&self) -> Option<Instant> {
        self.is_asked.then(|| self.last.map_or_else(Instant::now, |last| last + self.gap))
    }

    /// Whether something passes now.
    pub fn pass(&mut self, now: Instant) -> bool {
        if !self.is_asked || self.last.is_some_and(|last| now < last + self.gap) {
            return false;
        }
        let is_fast = self.last.is_some_and(|last| now < last + 2 * self.gap);
        self.gap = if is_fast { (2 * self.gap).min(LONGEST) } else { SHORTEST };
        (self.is_asked, self.last) = (false, Some(now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_passes_less_and_less_often_and_a_single_one_at_once() {
        let (mut gate, start) = (Gate::new(), Instant::now());
        let at = |us: u64| start + Duration::from_micros(us);
        assert!(!gate.pass(start) && gate.opens().is_none());
        // Asked all the time, for one second.
        let passed: Vec<u64> = (0..10_000)
            .map(|n| n * 100)
            .filter(|us| {
                gate.ask();
                gate.pass(at(*us))
            })
            .collect();
        assert_eq!(passed[..6], [0, 1_000, 3_000, 7_000, 15_000, 31_000]);
        assert_eq!(passed[7] - passed[6], 20_000);
        assert!((50..60).contains(&passed.len()), "{}", passed.len());
        gate.pass(at(1_100_000));
        assert!(!gate.is_waiting());
        for ms in [1_200, 1_210, 1_220] {
            gate.ask();
            assert!(gate.pass(at(ms * 1_000)), "one every 10 ms is not held up: {ms}");
        }
    }
}
