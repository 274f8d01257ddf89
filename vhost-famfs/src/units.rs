// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sizes as people read them: in binary units, as QEMU and mkfs take them.

use std::fmt;

/// The unit of pools and windows: 2 MiB, the size of a PMD mapping and of the guest's
/// pmem alignment on x86-64.
pub const ALIGNMENT: u64 = 2 << 20;

/// A number of bytes that prints in the largest binary unit that fits exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_exactly() {
        assert_eq!(Bytes(3 << 30).to_string(), "3 GiB");
        assert_eq!(Bytes((3 << 30) + (2 << 20)).to_string(), "3074 MiB");
        assert_eq!(Bytes(4097).to_string(), "4097 bytes");
        assert_eq!(Bytes(0).to_string(), "0 bytes");
    }
}
