// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When to try again what failed.

use std::time::{Duration, Instant};

/// When to retry what failed: soon, and then less and less often.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pause: Duration,
    last: Instant,
}

impl Backoff {
    /// Pause before the second try.
    pub const SHORTEST: Duration = Duration::from_secs(1);
    /// Longest pause between two tries.
    pub const LONGEST: Duration = Duration::from_secs(30);

    /// After a first try that has just failed.
    pub fn new() -> Self {
        Self { pause: Self::SHORTEST, last: Instant::now() }
    }

    /// How long to wait before the next try.
    pub fn left(&self) -> Duration {
        self.pause.saturating_sub(self.last.elapsed())
    }

    /// Another try failed.
    pub fn failed(&mut self) {
        (self.pause, self.last) = ((self.pause * 2).min(Self::LONGEST), Instant::now());
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rare_but_do_not_end() {
        let mut backoff = Backoff::new();
        assert!(backoff.left() <= Backoff::SHORTEST && !backoff.left().is_zero());
        for _ in 0..100 {
            backoff.failed();
        }
        assert!(backoff.left() <= Backoff::LONGEST && backoff.left() > Backoff::LONGEST / 2);
    }
}
