// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The window: the checked range of a pool that one guest sees.

use famfs::text::units::Bytes;

/// A range of a pool that is, by construction, aligned, not empty, and inside the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    offset: u64,
    len: u64,
}

/// Why a range is not a window.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Offset or length is not a multiple of the pool's unit.
    #[error(
        "{what} {}: expected a multiple of {unit}, such as {}", Bytes(*.found), nearest(what, *.found, unit.0)
    )]
    Unaligned {
        /// `offset` or `length`.
        what: &'static str,
        /// Its value in bytes.
        found: u64,
        /// What it must be a multiple of.
        unit: Bytes,
    },
    /// The range is empty.
    #[error("length 0: expected at least 2 MiB")]
    Empty,
    /// The range begins after the end of the pool.
    #[error("offset {offset} is not inside the pool of {pool}")]
    Beyond {
        /// Offset in the pool.
        offset: Bytes,
        /// Size of the pool.
        pool: Bytes,
    },
    /// The range extends beyond the end of the pool.
    #[error("{len} at offset {offset} do not fit into the pool of {pool}")]
    Outside {
        /// Offset in the pool.
        offset: Bytes,
        /// The requested length.
        len: Bytes,
        /// Size of the pool.
        pool: Bytes,
    },
    /// The next power of two does not fit into a 64-bit BAR.
    #[error("{0} is more than a PCI memory region can have")]
    TooLarge(Bytes),
}

fn nearest(what: &str, found: u64, unit: u64) -> String {
    let below = found - found % unit;
    match below.checked_add(unit) {
        // An empty range is not a window.
        Some(above) if below == 0 && what == "length" => Bytes(above).to_string(),
        Some(above) => format!("{} or {}", Bytes(below), Bytes(above)),
        None => Bytes(below).to_string(),
    }
}

impl Window {
    /// Checks the range `offset`, `len` (default: up to the end of the pool) of a pool of
    /// `pool_size` bytes. Both must be multiples of `unit`: 2 MiB, or the pool's page size if that
    /// is larger.
    pub fn new(
        pool_size: u64,
        unit: u64,
        offset: u64,
        len: Option<u64>,
    ) -> Result<Self, WindowError> {
        if offset >= pool_size {
            return Err(WindowError::Beyond { offset: Bytes(offset), pool: Bytes(pool_size) });
        }
        let rest = pool_size - offset;
        let len = len.unwrap_or(rest);
        for (what, found) in [("offset", offset), ("length", len)] {
            if !found.is_multiple_of(unit) {
                return Err(WindowError::Unaligned { what, found, unit: Bytes(unit) });
            }
        }
        if len == 0 {
            return Err(WindowError::Empty);
        }
        if len > rest {
            let (offset, len, pool) = (Bytes(offset), Bytes(len), Bytes(pool_size));
            return Err(WindowError::Outside { offset, len, pool });
        }
        if len > 1 << 62 {
            return Err(WindowError::TooLarge(Bytes(len)));
        }
        Ok(Self { offset, len })
    }

    /// Offset in bytes from the start of the pool.
    pub fn offset(self) -> u64 {
        self.offset
    }

    /// Length in bytes.
    pub fn len(self) -> u64 {
        self.len
    }

    /// Always false: an empty range is not a window.
    pub fn is_empty(self) -> bool {
        false
    }

    /// Sizes in bytes of the shared memory regions to announce. The first is the window; a
    /// second one, which is never mapped, fills up to a power of two.
    ///
    /// QEMU 11.1 creates one PCI BAR for all regions, and aborts unless their sum is a power of
    /// two. Rounding up the window itself would show the guest a device with a hole at its end.
    pub fn regions(self) -> Vec<u64> {
        match self.len.next_power_of_two() - self.len {
            0 => vec![self.len],
            filler => vec![self.len, filler],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::ALIGNMENT;

    const MIB: u64 = 1 << 20;

    #[test]
    fn defaults_to_the_whole_pool() {
        let window = Window::new(64 * MIB, ALIGNMENT, 0, None).unwrap();
        assert_eq!((window.offset(), window.len()), (0, 64 * MIB));
        let window = Window::new(64 * MIB, ALIGNMENT, 4 * MIB, None).unwrap();
        assert_eq!((window.offset(), window.len()), (4 * MIB, 60 * MIB));
    }

    #[test]
    fn refuses_ranges_outside_the_pool() {
        for (offset, len) in [(0, 66), (62, 4)] {
            let result = Window::new(64 * MIB, ALIGNMENT, offset * MIB, Some(len * MIB));
            assert!(matches!(result, Err(WindowError::Outside { .. })), "{offset}+{len}");
        }
        for (offset, len) in [(64, Some(2 * MIB)), (64, None), (128, None)] {
            let err = Window::new(64 * MIB, ALIGNMENT, offset * MIB, len).unwrap_err();
            let expected = format!("offset {offset} MiB is not inside the pool of 64 MiB");
            assert_eq!(err.to_string(), expected);
        }
        let huge = u64::MAX - (ALIGNMENT - 1);
        assert!(Window::new(64 * MIB, ALIGNMENT, huge, Some(huge)).is_err());
        assert!(Window::new(64 * MIB, ALIGNMENT, 2 * MIB, Some(huge)).is_err());
        assert_eq!(Window::new(64 * MIB, ALIGNMENT, 0, Some(0)), Err(WindowError::Empty));
        assert!(matches!(Window::new(1 << 63, ALIGNMENT, 0, None), Err(WindowError::TooLarge(_))));
    }

    #[test]
    fn names_the_nearest_sizes() {
        let err = Window::new(64 * MIB, ALIGNMENT, 4097, Some(2 * MIB)).unwrap_err();
        assert_eq!(
            err.to_string(),
            "offset 4097 bytes: expected a multiple of 2 MiB, such as 0 bytes or 2 MiB"
        );
        let err = Window::new(64 * MIB, ALIGNMENT, 0, Some(3)).unwrap_err();
        assert_eq!(err.to_string(), "length 3 bytes: expected a multiple of 2 MiB, such as 2 MiB");
    }

    #[test]
    fn regions_sum_up_to_a_power_of_two() {
        for pool in [16 * MIB, 18 * MIB, (3 << 30) + 2 * MIB, 1 << 40] {
            let window = Window::new(pool, ALIGNMENT, 0, None).unwrap();
            let regions = window.regions();
            assert_eq!(regions[0], pool);
            assert!(regions.iter().sum::<u64>().is_power_of_two());
            assert!(regions.len() <= 2);
        }
    }
}
