// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Numbers and sizes as people write them.

use std::fmt::Display;
use std::ops::RangeInclusive;

/// Parses a size with a binary unit: `4096`, `8k`, `16M`, `1GiB`, `2t`, `0x200000`. `GB` and the
/// like are refused, because programs disagree about their meaning.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    if number.is_empty() || unit.starts_with('.') {
        return Err("expected a whole number and a unit, as in 8m or 512MiB".to_owned());
    }
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => {
            return Err(format!(
                "unknown unit \"{unit}\": expected k, m, g or t, or the same with iB (powers of 1024)"
            ));
        }
    };
    let bytes = read(number)?.and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "more bytes than fit into 64 bits".to_owned())
}

/// A parser for whole numbers of a range, decimal or with `0x`.
pub fn number<T: TryFrom<u64> + Into<u64> + Display + Copy>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let (low, high) = (*range.start(), *range.end());
        let expected = || format!("expected a number from {low} to {high}");
        let (digits, rest) = split(text);
        if digits.is_empty() || !rest.is_empty() {
            return Err(expected());
        }
        let number = read(digits)?.filter(|number| (low.into()..=high.into()).contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(expected)
    }
}

/// Splits a number from what follows it.
fn split(text: &str) -> (&str, &str) {
    let digits = |text: &str, is_digit: fn(&char) -> bool| {
        text.chars().take_while(is_digit).count() // ASCII: characters are bytes.
    };
    let len = match hexadecimal(text) {
        Some(hex) => text.len() - hex.len() + digits(hex, char::is_ascii_hexdigit),
        None => digits(text, char::is_ascii_digit),
    };
    text.split_at(len)
}

/// What follows the prefix of a hexadecimal number.
fn hexadecimal(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

/// The value of digits; `None` if it needs more than 64 bits. A leading zero is refused: the
/// reference takes it for octal, other programs do not.
fn read(digits: &str) -> Result<Option<u64>, String> {
    if let Some(hex) = hexadecimal(digits) {
        return match hex.is_empty() {
            true => Err(format!("\"{digits}\": expected hexadecimal digits after the prefix")),
            false => Ok(u64::from_str_radix(hex, 16).ok()),
        };
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return Err(format!(
            "\"{digits}\" could be octal or decimal: leave out the leading zero, or write it with 0x"
        ));
    }
    Ok(digits.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary() {
        for (text, size) in [
            ("0", 0),
            ("4096", 4096),
            ("8k", 8192),
            ("1GiB", 1 << 30),
            ("2T", 2 << 40),
            ("0x200000", 2 << 20),
            ("0X10m", 16 << 20),
            ("0x1bK", 27 << 10),
        ] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "k", "8x", "8kb", "-1", "1.5g", "99999999999t", "0x", "0xg", "010", "00"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_have_one_base_or_none() {
        let parse = number::<u16>(1..=256);
        for (text, value) in [("1", 1), ("256", 256), ("0x10", 16), ("0XfF", 255)] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
        for text in ["", "0", "257", "010", "0x", "0x1g", "1k", " 1", "+1", "-1", "१", "1 "] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("010").unwrap_err().contains("octal"));
    }
}
