// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clusters: described in a file or on the command line, started by one command, looked at and ended by
//! others.
//!
//! ```text
//!  Spec --> Plan --up--> runtime directory: state.json, sockets, logs   <--ps, exec, console, logs
//!                          |                                            <--down
//!                          '- processes, each with the cluster's mark: QEMU, back-ends
//! ```
//!
//! There is no daemon. What is known is in the runtime directory, written before a process is started
//! and after: a [`process::Process`] is identified by its id and start time together, reached by a
//! pidfd, and found by its mark if a start was cut short before it could be written down.
//!
//! The directory is locked while a cluster is started or ended. Looking takes no lock: the state is
//! replaced as a whole.

pub mod check;
pub mod cluster_file;
pub mod directory;
pub mod down;
pub mod emit;
pub mod emitted;
pub mod ends;
pub mod failed;
pub mod fill;
pub mod headroom;
pub mod host;
pub mod logs;
pub mod plan;
pub mod process;
pub mod ps;
mod roles;
pub mod sizing;
pub mod spec;
pub mod state;
pub mod terminal;
pub mod up;

use std::path::Path;

use directory::{Directory, DirectoryError};
use state::{State, VmState};

/// Why a cluster or VM is not found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// There is none.
    #[error("no cluster is up; start one with `vhost-famfs up`")]
    None,
    /// There is no such one.
    #[error("no cluster {name} is up; {}", list(.others))]
    NoCluster {
        /// The name asked for.
        name: String,
        /// The names of those that are up.
        others: Vec<String>,
    },
    /// There are several.
    #[error("more than one cluster is up ({}); name one", .0.join(", "))]
    Several(Vec<String>),
    /// The cluster has no such VM.
    #[error("cluster {cluster} has no VM {vm}; it has {}", .vms.join(", "))]
    NoVm {
        /// The cluster.
        cluster: String,
        /// The name asked for.
        vm: String,
        /// The names that it has.
        vms: Vec<String>,
    },
    /// Its start was cut short before anything was started.
    #[error("cluster {0}: nothing was started; `vhost-famfs down {0}` removes what is left")]
    Empty(String),
}

fn list(names: &[String]) -> String {
    match names {
        [] => "start one with `vhost-famfs up`".to_owned(),
        names => format!("these are: {}", names.join(", ")),
    }
}

/// The directory of a cluster: the one of that name, or the only one.
///
/// # Errors
/// There is none, or no telling which one.
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

/// The state of a cluster that was started, or half so.
///
/// # Errors
/// The state cannot be read.
pub fn state_of(directory: &Directory) -> Result<State, FindError> {
    directory.read()?.ok_or_else(|| FindError::Empty(directory.name().to_owned()))
}

/// A VM of a cluster, and the path of its agent's socket.
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
