// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `keep-logs`.

use std::path::PathBuf;

use clap::Args;
use famfs::text::number::parse_size;

use crate::bounded_log::{DEFAULT_LIMIT, MIN_LIMIT};

/// Keep logs within a limit: move what comes by FILE.pipe into FILE and FILE.old.
///
/// `up` starts it for each VM. It makes the pipes, and ends when nobody can write to them any more, and the
/// processes have ended whose ends it records.
#[derive(Debug, Args)]
pub(super) struct KeepLogsArgs {
    /// The logs.
    #[arg(value_name = "FILE", required = true)]
    logs: Vec<PathBuf>,
    /// Most bytes of each log [default: 16M]
    #[arg(long, value_name = "SIZE", value_parser = limit)]
    limit: Option<u64>,
    /// Record in FILE how processes end whose ids come on standard input, one on a line
    #[arg(long, value_name = "FILE")]
    ends: Option<PathBuf>,
}

fn limit(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        limit if limit >= MIN_LIMIT => Ok(limit),
        _ => Err(format!("expected at least {MIN_LIMIT} bytes")),
    }
}

/// Which logs to keep.
#[derive(Debug)]
pub struct KeepLogsConfig {
    /// The logs.
    pub logs: Vec<PathBuf>,
    /// Most bytes of each.
    pub limit: u64,
    /// Where to record how the processes end whose ids come on standard input.
    pub ends: Option<PathBuf>,
}

impl From<KeepLogsArgs> for KeepLogsConfig {
    fn from(KeepLogsArgs { logs, limit, ends }: KeepLogsArgs) -> Self {
        Self { logs, limit: limit.unwrap_or(DEFAULT_LIMIT), ends }
    }
}
