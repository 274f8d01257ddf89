// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `keep-logs`.

use std::path::PathBuf;

use clap::Args;
use famfs::system::neighbours::PoolId;
use famfs::text::number::parse_size;
use uuid::Uuid;

use crate::bounded_log::{DEFAULT_LIMIT, MIN_LIMIT};
use crate::pool::Owners;

/// Limit the size of logs: copy the output of FILE.pipe into FILE and FILE.old.
///
/// `up` starts one for each VM. It creates the pipes. It ends when no process has the pipes open
/// for writing and all processes whose end it records have ended. With --wake-port, it also wakes
/// the guest when something is published in the pool, and others when the guest publishes. With
/// --pool, it runs `famfs reclaim` when files were deleted.
#[derive(Debug, Args)]
pub(super) struct KeepLogsArgs {
    /// The log files.
    #[arg(value_name = "FILE", required = true)]
    logs: Vec<PathBuf>,
    /// Maximum size of each log [default: 16M]
    #[arg(long, value_name = "SIZE", value_parser = limit)]
    limit: Option<u64>,
    /// Record in FILE how processes end; standard input lists their ids, one per line
    #[arg(long, value_name = "FILE")]
    ends: Option<PathBuf>,
    /// The socket of the VM's wake-up port, which QEMU makes
    #[arg(long, value_name = "SOCKET", requires = "wake_pool")]
    wake_port: Option<PathBuf>,
    /// The pool: device and inode number of its file, in hexadecimal, as in 1a-2b3c
    #[arg(long, value_name = "ID", requires = "wake_port")]
    wake_pool: Option<PoolId>,
    /// The path of the pool, to give the memory of deleted files back
    #[arg(long, value_name = "FILE", requires = "wake_pool")]
    pool: Option<PathBuf>,
    /// The machine UUID of the VM, for its place among the members if it cannot write the pool
    #[arg(long, value_name = "UUID", requires = "pool")]
    machine: Option<Uuid>,
    /// The pool may belong to another user
    #[arg(long, requires = "pool")]
    foreign_pool: bool,
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
    /// The log files.
    pub logs: Vec<PathBuf>,
    /// Maximum size of each log in bytes.
    pub limit: u64,
    /// Where to record how the processes listed on standard input end.
    pub ends: Option<PathBuf>,
    /// The pool whose changes wake the VM, and the socket of the VM's port.
    pub wake: Option<(PoolId, PathBuf)>,
    /// The path of the pool whose deleted files' memory is given back, and whose it may be.
    pub pool: Option<(PathBuf, Owners)>,
    /// The machine UUID of the VM.
    pub machine: Option<Uuid>,
}

impl From<KeepLogsArgs> for KeepLogsConfig {
    fn from(args: KeepLogsArgs) -> Self {
        let KeepLogsArgs { logs, limit, ends, wake_port, wake_pool, pool, machine, foreign_pool } =
            args;
        let wake = wake_pool.zip(wake_port);
        let pool = pool.map(|pool| (pool, Owners::foreign(foreign_pool)));
        Self { logs, limit: limit.unwrap_or(DEFAULT_LIMIT), ends, wake, pool, machine }
    }
}
