// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Times for people.

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

#[cfg(test)]
mod tests {
    use super::utc;

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
