// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `famfs doctor` must report for a healthy VM.

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Prints the findings of `famfs doctor` as JSON, once the log is followed: that is the last
/// service that a boot starts.
pub const DOCTOR: &str = "for n in {1..600}; do systemctl is-active -q famfs-watch && break; \
                          sleep 0.1; done; famfs doctor --json";

/// Fails if `famfs doctor` reports a problem in a VM, or omits a check.
pub fn check(vm: &str, report: &[u8]) -> Result<()> {
    let report: Value = serde_json::from_slice(report)
        .with_context(|| format!("{vm}: not a report of doctor: {report:?}"))?;
    let findings = report["findings"].as_array().context("no findings")?;
    let wrong: Vec<String> = findings
        .iter()
        .filter(|finding| finding["status"] != "ok")
        .map(ToString::to_string)
        .collect();
    if findings.is_empty() || report["healthy"] != true || !wrong.is_empty() {
        bail!("{vm} is healthy, doctor finds {}", wrong.join("; "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_warning_is_a_fault() {
        let report = |status: &str| {
            format!(
                "{{\"healthy\":true,\"findings\":[{{\"check\":\"x\",\"status\":\"{status}\"}}]}}"
            )
        };
        assert!(check("vm", report("ok").as_bytes()).is_ok());
        for status in ["warning", "failed", "skipped"] {
            assert!(check("vm", report(status).as_bytes()).is_err(), "{status}");
        }
        assert!(check("vm", b"{\"healthy\":true,\"findings\":[]}").is_err());
    }
}
