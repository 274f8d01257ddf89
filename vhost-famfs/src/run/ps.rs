// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ps`.

use std::process::ExitCode;

use anyhow::Result;

use super::report::json_list;
use super::{notice, say};
use crate::args::PsConfig;
use crate::cluster::directory::{Directory, names};
use crate::cluster::ps::{ClusterStatus, look};
use crate::cluster::{FindError, find};
use crate::launch::host::runtime_dir;

/// Something of a cluster has ended.
const DEGRADED: u8 = 3;

pub(super) fn run(config: PsConfig) -> Result<ExitCode> {
    let base = runtime_dir()?;
    let directories = match &config.cluster {
        Some(name) => vec![find(&base, Some(name))?],
        None => names(&base)?.iter().map(|name| Directory::new(&base, name)).collect(),
    };
    let mut reports = Vec::new();
    let mut empty = Vec::new();
    let mut damaged = false;
    for directory in &directories {
        match look(directory) {
            Ok(report) => reports.push(report),
            // Taken down, or not begun, since the names were read.
            Err(error @ FindError::Empty(_)) => empty.push(error.to_string()),
            // The others are shown all the same.
            Err(error) => {
                damaged = true;
                let error = anyhow::Error::from(error);
                notice(format_args!("cluster {}: {error:#}", directory.name()));
            }
        }
    }
    let fine = |status| matches!(status, ClusterStatus::Up | ClusterStatus::Starting);
    let fine = !damaged && empty.is_empty() && reports.iter().all(|report| fine(report.status));
    if config.json {
        json_list("clusters", &reports)?;
    } else if directories.is_empty() {
        say("no cluster is up")?;
    } else {
        let texts = reports.iter().map(ToString::to_string).chain(empty);
        say(texts.collect::<Vec<_>>().join("\n\n"))?;
    }
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::from(DEGRADED) })
}
