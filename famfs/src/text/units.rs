// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sizes and numbers as people read them; sizes in binary units, as QEMU and mkfs take them.

use std::fmt;

/// Units, each 1024 of the one before.
const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A size with a binary unit, to a hundredth, as in "1.50 GiB".
pub fn human(bytes: u64) -> String {
    let Some(unit) = (bytes.max(1).ilog2() / 10).checked_sub(1) else {
        return format!("{bytes} B");
    };
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    let number = bytes as f64 / (1_u64 << (10 * (unit + 1))) as f64;
    format!("{number:.2} {}", UNITS[unit as usize])
}

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

/// A number of bytes that was measured, to a tenth of the largest binary unit below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About(pub u64);

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >> shift > 0 {
                let tenths = (u128::from(self.0) * 10) >> shift;
                return write!(f, "{}.{} {unit}", tenths / 10, tenths % 10);
            }
        }
        Bytes(self.0).fmt(f)
    }
}

/// A number of things, in the singular if it is one.
pub fn count(number: impl TryInto<u64>, one: &str, many: &str) -> String {
    // What does not fit is many.
    match number.try_into() {
        Ok(1) => format!("1 {one}"),
        Ok(number) => format!("{number} {many}"),
        Err(_) => many.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_largest_unit_that_they_fill() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1500, "1.46 KiB"),
            ((1 << 20) - 1, "1024.00 KiB"),
            (3 << 29, "1.50 GiB"),
            (u64::MAX, "16.00 EiB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn measures_and_numbers_are_short() {
        assert_eq!(About((3 << 30) + (600 << 20)).to_string(), "3.5 GiB");
        assert_eq!(About(u64::MAX).to_string(), "16777215.9 TiB");
        assert_eq!(About(1023).to_string(), "1023 bytes");
        assert_eq!(count(1_u64, "VM", "VMs"), "1 VM");
        assert_eq!(count(0_usize, "VM", "VMs"), "0 VMs");
    }

    #[test]
    fn prints_exactly() {
        assert_eq!(Bytes(3 << 30).to_string(), "3 GiB");
        assert_eq!(Bytes((3 << 30) + (2 << 20)).to_string(), "3074 MiB");
        assert_eq!(Bytes(4097).to_string(), "4097 bytes");
        assert_eq!(Bytes(0).to_string(), "0 bytes");
    }
}
