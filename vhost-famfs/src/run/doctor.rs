// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `doctor`.

use std::process::ExitCode;

use anyhow::Result;

use super::report::json;
use super::say;
use vhost_famfs::args::DoctorConfig;
use vhost_famfs::doctor;

pub(super) fn run(config: &DoctorConfig) -> Result<ExitCode> {
    let report = doctor::examine(config.qemu.as_deref());
    if config.json {
        json(&report)?
    } else {
        say(&report)?
    }
    Ok(if report.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
