// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sizes as people write them: binary units, as QEMU and mkfs read them.

use std::fmt;

/// The unit of pools and windows: 2 MiB, the size of a PMD mapping and of the guest's
/// pmem alignment on x86-64.
pub const ALIGNMENT: u64 = 2 << 20;

/// A number of bytes that prints in the largest binary unit that fits exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// Why a text is not a size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No number in front of the unit, or one that is not whole.
    #[error("{0:?} is not a size: expected a whole number and a unit, as in 512M, 8G or 8GiB")]
    Number(String),
    /// A unit that is unknown or read differently by different programs.
    #[error("unknown unit {0:?}: expected K, M, G or T, or the same with iB (powers of 1024)")]
    Unit(String),
    /// More than 64 bits of bytes.
    #[error("{0:?} is more bytes than fit into 64 bits")]
    Overflow(String),
}

/// Reads a size in bytes: `4096`, `512M`, `8G`, `8GiB`. All units are powers of 1024;
/// `GB` is refused, because programs differ about what it means.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() || unit.starts_with('.') {
        return Err(SizeError::Number(text.to_owned()));
    }
    let shift = match unit {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err(SizeError::Unit(unit.to_owned())),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| SizeError::Overflow(text.to_owned()))
}

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
    fn units_are_binary() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("16M"), Ok(16 << 20));
        assert_eq!(parse_size("8G"), parse_size("8GiB"));
        assert_eq!(parse_size("1T"), Ok(1 << 40));
    }

    #[test]
    fn refuses_what_programs_read_differently() {
        assert!(matches!(parse_size("8GB"), Err(SizeError::Unit(_))));
        assert!(matches!(parse_size("8g"), Err(SizeError::Unit(_))));
        assert!(matches!(parse_size("1.5G"), Err(SizeError::Number(_))));
        assert!(matches!(parse_size("-1"), Err(SizeError::Number(_))));
        assert!(matches!(parse_size(""), Err(SizeError::Number(_))));
        assert!(matches!(parse_size("16777216T"), Err(SizeError::Overflow(_))));
        assert!(matches!(parse_size("99999999999999999999"), Err(SizeError::Overflow(_))));
    }

    #[test]
    fn prints_exactly() {
        assert_eq!(Bytes(3 << 30).to_string(), "3 GiB");
        assert_eq!(Bytes((3 << 30) + (2 << 20)).to_string(), "3074 MiB");
        assert_eq!(Bytes(4097).to_string(), "4097 bytes");
        assert_eq!(Bytes(0).to_string(), "0 bytes");
    }
}
