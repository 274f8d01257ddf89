// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ps`.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::report::json_list;
use super::{notice, say};
use vhost_famfs::args::PsConfig;
use vhost_famfs::cluster::directory::{Directory, names};
use vhost_famfs::cluster::host::runtime_dir;
use vhost_famfs::cluster::ps::{ClusterStatus, PsReport, look};
use vhost_famfs::cluster::{FindError, find};

/// Exit code if something of a cluster has ended.
const DEGRADED: u8 = 3;

/// What `ps` found in a cluster's directory.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Listed {
    /// The state of the cluster.
    Seen(Box<PsReport>),
    /// Why the state is not known.
    Unseen { cluster: String, status: &'static str, error: String },
}

pub(super) fn run(config: PsConfig) -> Result<ExitCode> {
    let base = runtime_dir()?;
    let directories = match &config.cluster {
        Some(name) => vec![find(&base, Some(name))?],
        None => names(&base)?.iter().map(|name| Directory::new(&base, name)).collect(),
    };
    let mut fine = true;
    let mut listed = Vec::new();
    let mut texts = Vec::new();
    for directory in &directories {
        let cluster = directory.name().to_owned();
        let item = match look(directory) {
            Ok(report) => {
                fine &= matches!(report.status, ClusterStatus::Up | ClusterStatus::Starting);
                texts.push(report.to_string());
                Listed::Seen(Box::new(report))
            }
            // Removed since the names were read, or not yet created.
            Err(error @ FindError::Empty(_)) => {
                fine = false;
                texts.push(error.to_string());
                Listed::Unseen { cluster, status: "interrupted", error: error.to_string() }
            }
            // One that fails does not hide the others.
            Err(error) => {
                fine = false;
                let error = format!("{:#}", anyhow::Error::from(error));
                notice(format_args!("cluster {cluster}: {error}"));
                Listed::Unseen { cluster, status: "damaged", error }
            }
        };
        listed.push(item);
    }
    if config.json {
        json_list("clusters", &listed)?;
    } else if directories.is_empty() {
        say("no cluster is running")?;
    } else if !texts.is_empty() {
        say(texts.join("\n\n"))?;
    }
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::from(DEGRADED) })
}
