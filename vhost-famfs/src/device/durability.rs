// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A failed sync must reach the guest.
//!
//! The kernel reports an error of writing back once: the next `fdatasync` succeeds although the
//! data is lost. If the device was stopped while the pool was synced, nobody was told; the
//! failure is kept for the next flush that is answered.

use super::pmem::Reply;

/// Whether a failure waits for being told.
#[derive(Debug, Default)]
pub struct Durability {
    failed: bool,
}

impl Durability {
    /// Takes the result of a sync and gives the reply that flushes get for it.
    pub fn record(&mut self, synced: bool) -> Reply {
        self.failed |= !synced;
        if self.failed { Reply::Failed } else { Reply::Done }
    }

    /// A flush was answered with this reply.
    pub fn delivered(&mut self, reply: Reply) {
        if reply == Reply::Failed {
            self.failed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_once() {
        let mut state = Durability::default();
        assert_eq!(state.record(false), Reply::Failed);
        state.delivered(Reply::Failed);
        assert_eq!(state.record(true), Reply::Done);
    }

    #[test]
    fn a_failure_while_stopped_is_told_at_the_next_flush() {
        let mut state = Durability::default();
        state.record(false);
        // Stopped: nothing was delivered. The kernel has forgotten the error.
        assert_eq!(state.record(true), Reply::Failed);
        state.delivered(Reply::Failed);
        assert_eq!(state.record(true), Reply::Done);
    }
}
