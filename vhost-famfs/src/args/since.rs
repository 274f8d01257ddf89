// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A moment in the past on the command line.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use famfs::text::time::parse_seconds;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::host::sys::local_time;

/// Units of a duration, and their seconds.
const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 24 * 3600)];

/// Reads a duration before now, a time, or seconds since 1970; returns milliseconds since 1970.
pub(super) fn since(text: &str) -> Result<u64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    moment(text, now).ok_or_else(|| {
        "expected how long ago, as in 90s, 10m, 1h30m or 2d, a time such as 2026-11-28T12:00 or \
         2026-11-28T12:00:00Z, or seconds since 1970"
            .to_owned()
    })
}

fn moment(text: &str, now: Duration) -> Option<u64> {
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).ok();
    if let Some(ago) = duration(text) {
        return milliseconds(now.saturating_sub(ago));
    }
    if let Some((seconds, nanoseconds)) = parse_seconds(text) {
        return milliseconds(Duration::new(u64::try_from(seconds).ok()?, nanoseconds));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return u64::try_from(time.as_millisecond()).ok();
    }
    let day = || text.parse::<Date>().map(|date| date.to_datetime(jiff::civil::Time::midnight()));
    let local: DateTime = text.parse().or_else(|_| day()).ok()?;
    let as_utc = TimeZone::UTC.to_timestamp(local).ok()?;
    // The offset at about that moment, which is right but near a change of the offset.
    let offset = local_time(u64::try_from(as_utc.as_second()).ok()?)?.tm_gmtoff;
    let time = as_utc.checked_sub(SignedDuration::from_secs(offset)).ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

/// A duration such as `1h30m`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0_u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = rest.split_at(end);
        let letter = unit.chars().next()?;
        let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == letter)?;
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = &unit[1..];
    }
    (!text.is_empty()).then_some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_durations_times_or_seconds() {
        let now = Duration::from_millis(1_795_825_588_500);
        for (text, expected) in [
            ("0s", 1_795_825_588_500),
            ("90s", 1_795_825_498_500),
            ("1h30m", 1_795_820_188_500),
            ("2d", 1_795_652_788_500),
            ("99999999d", 0),
            ("1795825588", 1_795_825_588_000),
            ("1795825588.25", 1_795_825_588_250),
            ("2026-11-28T00:26:28Z", 1_795_825_588_000),
            ("2026-11-28T02:26:28.5+02:00", 1_795_825_588_500),
        ] {
            assert_eq!(moment(text, now), Some(expected), "{text}");
        }
        // Local times depend on the time zone, but differ as they should.
        let [noon, later, day] =
            ["2026-11-28T12:00", "2026-11-28 12:00:30", "2026-11-28"].map(|text| moment(text, now));
        assert_eq!(later.unwrap() - noon.unwrap(), 30_000);
        assert_eq!(noon.unwrap() - day.unwrap(), 12 * 3_600_000);
        let offset = local_time(noon.unwrap() / 1000).unwrap().tm_gmtoff;
        let noon_utc = moment("2026-11-28T12:00Z", now).unwrap() / 1000;
        assert_eq!(noon.unwrap() / 1000, noon_utc.checked_add_signed(-offset).unwrap());
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in ["", "s", "5", "-1", "1x", "1h2", "yesterday", "2026-13-01"] {
            let expected = (text == "5").then_some(5000);
            assert_eq!(moment(text, Duration::from_secs(9)), expected, "{text}");
        }
        assert!(since("soon").unwrap_err().contains("1h30m"));
    }
}
