// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Times on the command line.

use std::time::{SystemTime, UNIX_EPOCH};

use famfs::replay::Time;
use famfs::text::time::{parse_seconds, split};

/// Reads a time: `now`, as RFC 3339 writes it, or `@` and seconds since 1970.
pub(super) fn parse(text: &str) -> Result<Time, String> {
    if text == "now" {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_err(|_| "the clock is before 1970".to_owned())?;
        let sec = i64::try_from(now.as_secs()).map_err(|err| err.to_string())?;
        return Ok(Time { sec, nsec: now.subsec_nanos() });
    }
    if let Some(seconds) = text.strip_prefix('@') {
        let (sec, nsec) = parse_seconds(seconds)
            .ok_or_else(|| "expected @SECONDS or @SECONDS.FRACTION".to_owned())?;
        return Ok(Time { sec, nsec });
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        "expected a time such as 2026-11-28T12:00:00Z, 2026-11-28T14:00:00.5+02:00, @1795867200 \
         or now"
            .to_owned()
    })?;
    let (sec, nsec) = split(time.as_nanosecond())
        .ok_or_else(|| "the time is out of the range that a file can have".to_owned())?;
    Ok(Time { sec, nsec })
}

#[cfg(test)]
mod tests {
    use famfs::text::time::utc;

    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond() {
        for (text, sec, nsec) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2026-11-28T00:26:28Z", 1_795_825_588, 0),
            ("2026-11-28T02:26:28.5+02:00", 1_795_825_588, 500_000_000),
            ("1969-12-31T23:59:59.999999999Z", -1, 999_999_999),
            ("@0", 0, 0),
            ("@1.5", 1, 500_000_000),
            ("@-1.5", -2, 500_000_000),
            ("@-0.000000001", -1, 999_999_999),
            ("@9223372036854775807", i64::MAX, 0),
        ] {
            assert_eq!(parse(text), Ok(Time { sec, nsec }), "{text}");
        }
        let time = parse("2000-02-29T12:34:56.000000001Z").unwrap();
        assert_eq!(utc(time.sec, time.nsec), "2000-02-29T12:34:56.000000001Z");
        assert!(parse("now").unwrap().sec > 1_700_000_000);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "@",
            "@x",
            "@1.",
            "@--1",
            "@ 1",
            "yesterday",
            "2026-11-28",
            "2026-11-28T00:26:28",
            "2026-13-01T00:00:00Z",
            "@9223372036854775808",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
