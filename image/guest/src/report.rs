// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The report on the pool's mount, a file in the guest. The program that mounts the pool writes it;
//! the one that informs the host reads it.

use std::fs;
use std::io::{self, Error, ErrorKind};
use std::path::Path;

use protocol::attach::Attach;

/// Holds the report, the credentials, and the socket for the handover of the pool. `appliance-init`
/// creates it.
pub const DIR: &str = "/run/appliance";

/// The report: an [`Attach`] in JSON.
const REPORT: &str = "attach.json";

/// Writes a report, replacing an earlier one.
///
/// # Errors
/// It cannot be written.
pub fn leave(attach: &Attach) -> io::Result<()> {
    let (new, report) = (Path::new(DIR).join("new"), Path::new(DIR).join(REPORT));
    fs::write(&new, serde_json::to_vec(attach)?)?;
    fs::rename(&new, &report)
}

/// The report, if there is one.
#[must_use]
pub fn read() -> Option<Attach> {
    serde_json::from_slice(&fs::read(Path::new(DIR).join(REPORT)).ok()?).ok()
}

/// Time since the kernel started, in milliseconds.
///
/// # Errors
/// /proc/uptime (proc(5)) is missing or malformed.
pub fn uptime_ms() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/uptime")?;
    parse_uptime(&text)
        .ok_or_else(|| Error::new(ErrorKind::InvalidData, format!("/proc/uptime: {text:?}")))
}

/// Seconds with two decimals, then the idle time.
fn parse_uptime(text: &str) -> Option<u64> {
    let (seconds, hundredths) = text.split_ascii_whitespace().next()?.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1000 + hundredths.parse::<u64>().ok()? * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_read() {
        assert_eq!(parse_uptime("12.34 20.00\n"), Some(12_340));
        assert_eq!(parse_uptime("0.05 0.00\n"), Some(50));
        assert_eq!(parse_uptime("soon"), None);
        assert!(uptime_ms().unwrap() > 0);
    }
}
