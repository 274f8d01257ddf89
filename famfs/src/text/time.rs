// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Times for people.

/// Nanoseconds of a second.
const NANOSECONDS: i128 = 1_000_000_000;
/// Seconds of a day.
const DAY: i64 = 86_400;
/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;
/// Days from the first of March of the year 0 to the beginning of 1970.
const EPOCH: i64 = 719_468;

/// A time as RFC 3339 writes it, in UTC: seconds since 1970, or before, and nanoseconds.
pub fn utc(sec: i64, nsec: u32) -> String {
    // Years begin in March here, so that the leap day is their last one.
    let days = sec.div_euclid(DAY) + EPOCH;
    let (era, day) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let time = sec.rem_euclid(DAY);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    let fraction = if nsec == 0 { String::new() } else { format!(".{nsec:09}") };
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Reads seconds since 1970 in decimal, with a sign and a fraction if there are any: whole seconds,
/// and the nanoseconds after them. Digits after the ninth of a fraction do not count.
pub fn parse_seconds(text: &str) -> Option<(i64, u32)> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let nanoseconds: i128 = format!("{:0<9}", &fraction[..fraction.len().min(9)]).parse().ok()?;
    let all = i128::from(whole.parse::<u64>().ok()?) * NANOSECONDS + nanoseconds;
    split(if negative { -all } else { all })
}

/// Nanoseconds since 1970 as whole seconds and the nanoseconds after them.
pub fn split(nanoseconds: i128) -> Option<(i64, u32)> {
    let sec = i64::try_from(nanoseconds.div_euclid(NANOSECONDS)).ok()?;
    Some((sec, u32::try_from(nanoseconds.rem_euclid(NANOSECONDS)).ok()?))
}

#[cfg(test)]
mod tests {
    use super::{parse_seconds, utc};

    #[test]
    fn seconds_are_read_to_the_nanosecond() {
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-0.000000001", Some((-1, 999_999_999))),
            ("1.1234567899", Some((1, 123_456_789))),
            ("9223372036854775807", Some((i64::MAX, 0))),
            ("-9223372036854775808", Some((i64::MIN, 0))),
            ("9223372036854775808", None),
            ("", None),
            ("x", None),
            ("1.", None),
            (".5", None),
            ("--1", None),
            ("+1", None),
        ] {
            assert_eq!(parse_seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (sec, nsec, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (-1, 999_999_999, "1969-12-31T23:59:59.999999999Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (4_107_542_399, 0, "2100-02-28T23:59:59Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
            (1_795_825_588, 0, "2026-11-28T00:26:28Z"),
            (-62_167_219_200, 0, "0000-01-01T00:00:00Z"),
            (i64::MAX, 0, "292277026596-12-04T15:30:07Z"),
            (i64::MIN, 0, "-292277022657-01-27T08:29:52Z"),
        ] {
            assert_eq!(utc(sec, nsec), text, "{sec}");
        }
    }
}
