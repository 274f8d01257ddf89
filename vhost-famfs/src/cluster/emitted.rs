// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clusters whose processes are started by the output of `up --emit`. Such a cluster has a
//! directory and a state like one that `up` starts. Its processes are not in the state: each has
//! the cluster's mark and its role in its environment.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use famfs::system::process::boot_id;
use uuid::Uuid;

use super::directory::{Directory, DirectoryError};
use super::down::{self, DownError};
use super::kept_logs;
use super::plan::ClusterPlan;
use super::process::Process;
use super::spec::Transport;
use super::state::{Phase, State};
use crate::vm::Channel;

/// Why such a cluster cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its directory cannot be created.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The given text is not its state.
    #[error("{0}; create it again with `vhost-famfs up --emit`")]
    State(String),
    /// A directory of a VM cannot be created.
    #[error("{}: cannot create this directory", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel does not tell the start time of this process.
    #[error("cannot look at this process in /proc")]
    This(#[source] io::Error),
}

/// The state of a cluster to be emitted, as text for [`start`]. A VMM that reaches its guests by
/// vsock, which QEMU does not, maps pools itself.
#[must_use]
pub fn describe(plan: &ClusterPlan, channel: Channel) -> String {
    let mut state = State::new(plan, String::new(), Process::NONE);
    state.emitted = true;
    state.vms.iter_mut().for_each(|vm| (vm.launch, vm.asked) = (None, None));
    if channel == Channel::Vsock {
        for vm in &mut state.vms {
            vm.channel = channel;
            vm.transport = Transport::Pmem.name().to_owned();
            vm.memory_root = None;
        }
    }
    state.source = None;
    // Others make the pool, and it is kept for the next start.
    (state.pool.ours, state.pool.made) = (false, None);
    serde_json::json!(state).to_string()
}

/// Creates the directories and the state of a cluster whose processes will be started next.
///
/// # Errors
/// A cluster of that name exists, or something cannot be created. Nothing is left behind.
pub fn start(base: &Path, text: &str) -> Result<(), StartError> {
    let mut state: State =
        serde_json::from_str(text).map_err(|error| StartError::State(error.to_string()))?;
    let name = state.name.clone();
    state.check(&name, base).map_err(StartError::State)?;
    if !state.emitted || state.pool.ours {
        return Err(StartError::State("it is not the state of an emitted cluster".to_owned()));
    }
    state.boot_id = boot_id().map_err(StartError::This)?.to_string();
    state.phase = Phase::Up;
    let directory = Directory::new(base, &name);
    let _lock = directory.create(state.instance)?;
    // Logs of an earlier start; they may stay if they cannot be removed.
    let _ = kept_logs::forget(base, &name);
    let made = state.vms.iter().try_for_each(|vm| {
        let path = directory.path().join(&vm.name);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|source| StartError::Make { path, source })
    });
    let made = made.and_then(|()| Ok(directory.write(&state)?));
    if made.is_err() {
        // The first error is the one to report.
        let _ = directory.remove();
    }
    made
}

/// Stops what remains of a cluster and keeps its logs; returns where they are. If the cluster is
/// gone, or another one with its name exists, does nothing.
///
/// # Errors
/// As [`down::down`].
pub fn stop(
    base: &Path,
    name: &str,
    instance: Uuid,
    limit: Duration,
) -> Result<Option<PathBuf>, DownError> {
    let directory = Directory::new(base, name);
    if directory.instance() != Some(instance) {
        return Ok(None);
    }
    let mut kept = None;
    // A running `down` stops the cluster in order: there are no logs to keep and nothing to report.
    let lock = match directory.lock() {
        Ok(Some(lock)) => lock,
        Ok(None) | Err(DirectoryError::Busy(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if let Some(state) = directory.read()? {
        let logs = state.vms.iter().flat_map(|vm| directory.vm(&vm.name).logs());
        let logs: Vec<_> = logs.collect();
        // If they cannot be kept, only what was printed remains.
        kept = kept_logs::keep(base, name, &logs).ok().flatten();
    }
    drop(lock);
    let options = down::Options { limit, keep_pool: true, force: false };
    match down::down(&directory, options) {
        // Another command was faster.
        Err(DownError::Find(_)) => Ok(kept),
        done => done.map(|_| kept),
    }
}
