// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Limits the rate of log lines that a guest can cause.

use std::time::{Duration, Instant};

/// One line per second is enough to see that a guest misbehaves, and too little to fill a disk.
const INTERVAL: Duration = Duration::from_secs(1);

/// Admits one event per second and counts the others.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    /// Whether to log an event that happens `now`. If so, returns the number of events that were
    /// not logged since the last one that was.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!(throttle.admit(start), Some(0));
        for ms in 1..1000 {
            assert_eq!(throttle.admit(start + Duration::from_millis(ms)), None);
        }
        assert_eq!(throttle.admit(start + INTERVAL), Some(999));
        assert_eq!(throttle.admit(start + 2 * INTERVAL), Some(0));
    }
}
