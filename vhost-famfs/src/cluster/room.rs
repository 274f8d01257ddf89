// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Computes the sizes of a pool and its log from what is to be in them.

use famfs::format::ALLOC_UNIT;
use famfs::store::superblock::{MIN_LOG_LEN, default_log_len, log_len_for};

use crate::pool::ALIGNMENT;

/// Extra space in the pool for files of the VMs.
const SPARE: u64 = 256 << 20;

/// Extra log entries.
const SPARE_ENTRIES: u64 = 1000;

/// Computed pool sizes are a multiple of this, which libnvdimm prefers for regions.
const STEP: u64 = 16 << 20;

/// The room that contents take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Number of log entries.
    pub entries: u64,
    /// Bytes of data, in whole allocation units.
    pub data: u64,
}

impl Room {
    /// The length of the shortest log with room for the entries and some more.
    fn least_log_len(self) -> u64 {
        log_len_for(self.entries.saturating_add(SPARE_ENTRIES))
    }

    /// The size of a pool, in either view, without its log.
    fn rest(self) -> u64 {
        self.data.saturating_add(ALIGNMENT + ALLOC_UNIT)
    }

    /// The size of the smallest pool: info area, superblock, log, data.
    #[must_use]
    pub fn least_pool_size(self) -> u64 {
        self.rest().saturating_add(self.least_log_len())
    }

    /// The size of a pool with extra space.
    #[must_use]
    pub fn pool_size(self) -> u64 {
        let rest = self.rest().saturating_add(SPARE);
        let size = rest.saturating_add(self.least_log_len().max(default_log_len(rest)));
        size.checked_next_multiple_of(STEP).unwrap_or(u64::MAX - (u64::MAX % STEP))
    }

    /// The length of the log on a device: mkfs's default if entries and data leave room for it.
    #[must_use]
    pub fn log_len(self, device_len: u64) -> u64 {
        let room = device_len.saturating_sub(self.data.saturating_add(ALLOC_UNIT));
        let longest = 1 << room.max(MIN_LOG_LEN).ilog2();
        self.least_log_len().max(default_log_len(device_len).min(longest))
    }
}

#[cfg(test)]
mod tests {
    use famfs::format::slots;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_pool_grows_with_data_and_entries() {
        let none = Room { entries: 0, data: 0 };
        assert!(none.pool_size() >= SPARE && none.pool_size().is_multiple_of(STEP));
        let many = Room { entries: 100_000, data: 1 << 40 };
        assert!(many.pool_size() > many.least_pool_size() && many.least_pool_size() > 1 << 40);
        assert!(slots(many.log_len(many.pool_size())) > 100_000);
        let absurd = Room { entries: u64::MAX, data: u64::MAX };
        assert!(absurd.pool_size().is_multiple_of(STEP), "no overflow");
    }

    #[test]
    fn the_log_is_the_default_unless_the_contents_need_more_or_leave_less() {
        let log = |entries, data, device| Room { entries, data }.log_len(device * MIB) / MIB;
        assert_eq!(log(1, 0, 8192), 128);
        assert_eq!(log(1_000_000, 0, 8192), 1024);
        assert_eq!(log(1, 8180 * MIB, 8192), 8);
        for room in [Room { entries: 1, data: 6 * MIB }, Room { entries: 20_000, data: 4 << 30 }] {
            let device = room.least_pool_size() - ALIGNMENT;
            assert_eq!(room.log_len(device) + room.data + ALLOC_UNIT, device, "just enough");
        }
    }
}
