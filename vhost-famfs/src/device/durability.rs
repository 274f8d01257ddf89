// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes sure that a failed sync is reported to the guest.
//!
//! The kernel reports a write-back error once: the next `fdatasync` succeeds although the data is
//! lost. If the device was stopped while the pool was being synced, no request reported the
//! failure, so it is kept for the next flush that is answered.

use super::pmem::Reply;

/// Whether a failure has yet to be reported.
#[derive(Debug, Default)]
pub struct Durability {
    failed: bool,
}

impl Durability {
    /// Records the result of a sync and returns the reply for flushes.
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
        // Stopped: nothing was delivered, and the kernel has forgotten the error.
        assert_eq!(state.record(true), Reply::Failed);
        state.delivered(Reply::Failed);
        assert_eq!(state.record(true), Reply::Done);
    }
}
