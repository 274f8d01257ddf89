// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A point in time at which waiting ends.

use std::thread;
use std::time::{Duration, Instant};

/// Pause between two checks of something that has no event to wait for.
const STEP: Duration = Duration::from_millis(5);

/// When to give up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
}

impl Deadline {
    /// A deadline `limit` from now.
    pub(super) fn after(limit: Duration) -> Self {
        // A limit beyond what the clock can express becomes a day: nothing waits that long for a
        // VM.
        let now = Instant::now();
        Self { at: now.checked_add(limit).unwrap_or(now + Duration::from_secs(86_400)) }
    }

    /// The remaining time; `None` if there is none.
    pub(super) fn left(self) -> Option<Duration> {
        self.at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Checks every few milliseconds until there is a result; `None` if the deadline passes.
    pub(super) fn poll<T, E>(
        self,
        mut look: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        loop {
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            let Some(left) = self.left() else { return Ok(None) };
            thread::sleep(STEP.min(left));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn polling_ends_with_a_find_or_with_the_time() {
        let mut looks = 0;
        let found = Deadline::after(Duration::from_secs(60)).poll(|| {
            looks += 1;
            Ok::<_, Infallible>((looks == 3).then_some(looks))
        });
        assert_eq!(found, Ok(Some(3)));
        let found = Deadline::after(Duration::ZERO).poll(|| Ok::<Option<()>, Infallible>(None));
        assert_eq!(found, Ok(None));
    }

    #[test]
    fn an_endless_limit_does_not_overflow() {
        assert!(Deadline::after(Duration::MAX).left().is_some());
    }
}
