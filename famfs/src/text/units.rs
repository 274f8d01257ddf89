// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sizes as people read them.

/// Units, each 1024 of the one before.
const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A size with a binary unit, as in "1.50 GiB".
pub fn human(bytes: u64) -> String {
    let Some(unit) = (bytes.max(1).ilog2() / 10).checked_sub(1) else {
        return format!("{bytes} B");
    };
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    let number = bytes as f64 / (1_u64 << (10 * (unit + 1))) as f64;
    format!("{number:.2} {}", UNITS[unit as usize])
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
}
