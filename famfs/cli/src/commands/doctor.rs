// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs doctor`

mod contents;
mod guest;
mod pool;

use std::path::Path;

use famfs::text::terminal::escape_name;
use famfs_cli::args::Doctor;
use serde::Serialize;

use crate::output::{FAILED, OK, Outcome, print_json, to_stdout};

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be.
    Ok,
    /// Works, but less well than it could.
    Warning,
    /// Does not work.
    Failed,
    /// Could not be checked.
    Skipped,
}

/// The result of one check.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    status: Status,
    found: String,
    /// The command that fixes it, or else what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, found: found.into(), mend: None }
    }

    fn warning(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, status: Status::Warning, found: found.into(), mend: Some(mend.into()) }
    }

    fn failed(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, status: Status::Failed, found: found.into(), mend: Some(mend.into()) }
    }

    fn skipped(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, status: Status::Skipped, found: found.into(), mend: Some(mend.into()) }
    }
}

#[derive(Serialize)]
struct DoctorReport {
    version: u32,
    healthy: bool,
    findings: Vec<Finding>,
}

pub fn run(pool: Option<&Path>, args: &Doctor) -> Outcome {
    let findings = match pool {
        Some(pool) => pool::examine(pool),
        None => guest::examine(args.path.as_deref()),
    };
    let healthy = findings.iter().all(|finding| finding.status != Status::Failed);
    let report = DoctorReport { version: 1, healthy, findings };
    if args.json {
        print_json(&report)?
    } else {
        print(&report)?
    }
    Ok(if healthy { OK } else { FAILED })
}

fn print(report: &DoctorReport) -> anyhow::Result<()> {
    to_stdout(|out| {
        for Finding { check, status, found, mend } in &report.findings {
            let word = match status {
                Status::Ok => "ok",
                Status::Warning => "warning",
                Status::Failed => "FAILED",
                Status::Skipped => "skipped",
            };
            writeln!(out, "{word:<8} {check:<10} {}", escape_name(found.as_bytes()))?;
            if let Some(mend) = mend {
                writeln!(out, "{:<19} fix: {}", "", escape_name(mend.as_bytes()))?;
            }
        }
        Ok(())
    })
}
