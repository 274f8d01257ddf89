// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clusters: described in a file or on the command line, started by one command, inspected and
//! stopped by others.
//!
//! ```text
//!  Spec --> ClusterPlan --up--> runtime directory: state.json, sockets, logs
//!                         |                ^-- ps, exec, console, logs, stop, start, down
//!                         '--> processes, each with the cluster's mark: QEMU, back-ends
//! ```
//!
//! There is no daemon. The state is in the runtime directory, written before and after a process is
//! started. A [`process::Process`] is identified by its id together with its start time, and is
//! signalled through a pidfd. If a start was interrupted before it could be recorded, it is found
//! by its mark.
//!
//! The directory is locked while a cluster is started or stopped, and while the state of a single
//! VM changes ([`life`]). Reading takes no lock: the state file is replaced as a whole.

pub mod apply;
pub mod change;
pub mod cluster_file;
pub mod difference;
pub mod directory;
pub mod down;
pub mod emit;
pub mod emitted;
pub mod ends;
pub mod fill;
pub mod follow;
pub mod headroom;
pub mod health;
pub mod host;
pub mod keep_running;
pub mod kept_logs;
pub mod life;
pub mod logs;
pub mod order;
pub mod parts;
pub mod plan;
pub mod pools;
pub mod preflight;
pub mod process;
pub mod ps;
mod roles;
mod room;
pub mod root_devices;
pub mod sizing;
pub mod spec;
pub mod start;
pub mod state;
pub mod stop;
pub mod stopped;
pub mod up;

use std::path::Path;

use directory::{Directory, DirectoryError};
use process::Process;
use state::{Phase, State, VmState};

/// Why a cluster or VM was not found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// There is no cluster.
    #[error("no cluster is running; start one with `vhost-famfs up`")]
    None,
    /// There is no cluster with that name.
    #[error("no cluster {name} is running; {}", list(.others))]
    NoCluster {
        /// The requested name.
        name: String,
        /// The names of the running ones.
        others: Vec<String>,
    },
    /// There is more than one.
    #[error("more than one cluster is running ({}); name one", .0.join(", "))]
    Several(Vec<String>),
    /// The cluster has no VM with that name.
    #[error("cluster {cluster} has no VM {vm}; it has {}", .vms.join(", "))]
    NoVm {
        /// The cluster.
        cluster: String,
        /// The requested name.
        vm: String,
        /// The names of its VMs.
        vms: Vec<String>,
    },
    /// The VM does not run.
    #[error("VM {vm} of cluster {cluster} is not running: {how}")]
    NotRunning {
        /// The cluster.
        cluster: String,
        /// The VM.
        vm: String,
        /// Why not, and what to do.
        how: String,
    },
    /// Its start was interrupted before any process was started.
    #[error("cluster {0}: nothing was started; `vhost-famfs down {0}` removes what is left")]
    Empty(String),
}

fn list(names: &[String]) -> String {
    match names {
        [] => "start one with `vhost-famfs up`".to_owned(),
        names => format!("running: {}", names.join(", ")),
    }
}

/// The directory of a cluster: the one with that name, or the only one.
///
/// # Errors
/// There is no such cluster, or more than one.
pub fn find(base: &Path, name: Option<&str>) -> Result<Directory, FindError> {
    let mut names = directory::names(base)?;
    let name = match name {
        Some(name) if names.iter().any(|other| other == name) => name.to_owned(),
        Some(name) => return Err(FindError::NoCluster { name: name.to_owned(), others: names }),
        None if names.len() > 1 => return Err(FindError::Several(names)),
        None => names.pop().ok_or(FindError::None)?,
    };
    Ok(Directory::new(base, &name))
}

/// The state of a cluster that was started, completely or in part.
///
/// # Errors
/// The state cannot be read.
pub fn state_of(directory: &Directory) -> Result<State, FindError> {
    directory.read()?.ok_or_else(|| FindError::Empty(directory.name().to_owned()))
}

/// A VM of a cluster.
///
/// # Errors
/// The cluster has no VM of that name.
pub fn vm_of<'s>(state: &'s State, vm: &str) -> Result<&'s VmState, FindError> {
    state.vms.iter().find(|found| found.name == vm).ok_or_else(|| FindError::NoVm {
        cluster: state.name.clone(),
        vm: vm.to_owned(),
        vms: state.vms.iter().map(|vm| vm.name.clone()).collect(),
    })
}

/// A VM of a cluster that runs.
///
/// # Errors
/// The cluster has no VM of that name, or the VM does not run.
pub fn running_vm<'s>(
    state: &'s State,
    directory: &Directory,
    vm: &str,
) -> Result<&'s VmState, FindError> {
    let found = vm_of(state, vm)?;
    match why_not_running(state, directory, found) {
        None => Ok(found),
        Some(how) => {
            Err(FindError::NotRunning { cluster: state.name.clone(), vm: found.name.clone(), how })
        }
    }
}

/// Why a VM does not run, and what to do; `None` if it runs.
#[must_use]
pub fn why_not_running(state: &State, directory: &Directory, vm: &VmState) -> Option<String> {
    if vm.qemu.is_some_and(Process::is_alive) {
        return None;
    }
    let (name, cluster) = (&vm.name, &state.name);
    let start = match state.emitted {
        true => "start it with the program that started it".to_owned(),
        false => format!("start it with `vhost-famfs start --cluster {cluster} {name}`"),
    };
    if vm.starting.is_some_and(Process::is_alive) {
        return Some("it is being started; see `vhost-famfs ps`".to_owned());
    }
    let record = directory.ends(name);
    Some(match (vm.stopped, vm.qemu) {
        (Some(stopped), _) => format!("{stopped}; {start}"),
        (None, None) if state.phase == Phase::Up && !state.emitted => {
            format!("it was not started; {start}")
        }
        (None, None) => "it was not started; see `vhost-famfs ps`".to_owned(),
        (None, Some(qemu)) => match ends::find(&record, qemu.pid) {
            Some(end) => format!("{end}; {start}"),
            None => format!("it has ended; {start}"),
        },
    })
}
