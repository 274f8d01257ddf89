// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks whether a host can run clusters: one finding for each requirement, with its fix.

mod host;
mod image;
mod room;
mod ublk;
mod vmm;

use std::fmt;
use std::path::Path;

use famfs::text::terminal::is_harmful;
use serde::Serialize;

use crate::cluster;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Works, but slower than it could, or not in every case.
    Warning,
    /// Clusters cannot run.
    Failed,
    /// Missing, but optional.
    Absent,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
            Self::Absent => "absent",
        }
    }
}

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked.
    pub check: &'static str,
    /// The result.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// The command that fixes it, or what to do.
    #[serde(rename = "mend", skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, found: found.into(), fix: None }
    }

    fn with(
        check: &'static str,
        status: Status,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { check, status, found: found.into(), fix: Some(fix.into()) }
    }
}

/// All findings on a host.
#[derive(Debug, Serialize)]
pub struct DoctorReport {
    /// Whether clusters can run.
    pub healthy: bool,
    /// The findings, in the order in which a cluster needs the things.
    findings: Vec<Finding>,
}

impl DoctorReport {
    fn new(findings: Vec<Finding>) -> Self {
        let healthy = findings.iter().all(|finding| finding.status != Status::Failed);
        Self { healthy, findings }
    }
}

impl fmt::Display for DoctorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Finding { check, status, found, fix }) in self.findings.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{:<8} {check:<17} {}", status.word(), one_line(found))?;
            if let Some(fix) = fix {
                write!(f, "\n{:<26} fix: {}", "", one_line(fix))?;
            }
        }
        Ok(())
    }
}

/// Checks this host; `qemu` replaces the QEMU that would be found.
#[must_use]
pub fn examine(qemu: Option<&Path>) -> DoctorReport {
    let (mut findings, qemu) = vmm::qemu(qemu);
    findings.push(vmm::kvm(qemu.as_deref()));
    findings.push(image::examine(cluster::host::image()));
    findings.push(vmm::cloud_hypervisor());
    findings.extend(host::examine());
    findings.extend(room::examine());
    findings.push(ublk::examine());
    DoctorReport::new(findings)
}

/// The message on one line, without control characters: it may quote a program.
fn one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    lines.join("; ").replace(":;", ":").chars().filter(|c| !is_harmful(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_makes_a_host_unfit() {
        let finding = |status| Finding::with("a check", status, "found\n  this", "do that");
        let report = DoctorReport::new(vec![
            Finding::ok("x", "y"),
            finding(Status::Warning),
            finding(Status::Absent),
        ]);
        assert!(report.healthy);
        let report = DoctorReport::new(vec![Finding::ok("x", "y"), finding(Status::Failed)]);
        assert!(!report.healthy);
        let text = report.to_string();
        assert_eq!(
            text,
            "ok       x                 y\nFAILED   a check           found; this\n\
             \u{20}                          fix: do that"
        );
    }
}
