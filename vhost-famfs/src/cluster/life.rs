// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What stopping a VM and starting it again have in common: one VM of a running cluster changes,
//! the others do not notice.
//!
//! The cluster is locked only while its state and processes change, not while a guest shuts down or
//! boots. So several VMs can be stopped and started at once.

use std::fs;
use std::io;
use std::path::PathBuf;

use famfs::system::process::Handle;
use famfs::text::units::Bytes;
use uuid::Uuid;

use super::directory::{Directory, DirectoryError};
use super::parts::PartError;
use super::process::{self, Process};
use super::root_devices::{self, DriverError};
use super::state::{Phase, State, VmState};
use super::{FindError, vm_of};
use crate::pool::PoolError;
use crate::vm::{VmError, VmPaths};

/// Why a VM was not stopped or started.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// The cluster or the VM was not found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The directory of the cluster cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The cluster is not up.
    #[error(
        "cluster {0} is being started, or its start was interrupted; wait for `vhost-famfs up`, or \
         remove it with `vhost-famfs down {0}`"
    )]
    NotUp(String),
    /// Other programs start its VMs.
    #[error(
        "VM {vm} of cluster {cluster} is started by another program (`up --emit`); stop and start \
         it with that program"
    )]
    Emitted {
        /// The cluster.
        cluster: String,
        /// The VM.
        vm: String,
    },
    /// It is not known how to start it.
    #[error(
        "VM {vm}: how it was started is not recorded, because another version of vhost-famfs \
         started it or a path is not UTF-8; use `vhost-famfs down {cluster}` and `vhost-famfs up`"
    )]
    NotRecorded {
        /// The cluster.
        cluster: String,
        /// The VM.
        vm: String,
    },
    /// The VMs were planned for another size of the pool.
    #[error(
        "pool {}: its size is {found}, but cluster {cluster} was started with {expected}; for the \
         new size, use `vhost-famfs down {cluster}` and `vhost-famfs up`", .pool.display()
    )]
    Resized {
        /// The cluster.
        cluster: String,
        /// The pool.
        pool: PathBuf,
        /// Its size.
        found: Bytes,
        /// The size that it had.
        expected: Bytes,
    },
    /// It runs.
    #[error(
        "VM {vm} is running; to start it again, use `vhost-famfs restart --cluster {cluster} {vm}`"
    )]
    Running {
        /// The cluster.
        cluster: String,
        /// The VM.
        vm: String,
    },
    /// Another command starts it.
    #[error(
        "VM {vm} is being started by process {pid}; wait for it, or stop it with `vhost-famfs stop --cluster {cluster} {vm}`"
    )]
    Starting {
        /// The cluster.
        cluster: String,
        /// The VM.
        vm: String,
        /// The process.
        pid: u32,
    },
    /// Its processes cannot be examined.
    #[error(
        "VM {vm}: cannot read the environment of process {pid}, which tells whether it belongs to \
         the cluster; nothing was changed: use the privileges of `up`, or CAP_SYS_PTRACE"
    )]
    Hidden {
        /// The VM.
        vm: String,
        /// The process.
        pid: u32,
    },
    /// Its processes do not end.
    #[error(
        "VM {vm}: processes {pids:?} cannot be killed, because the kernel waits for a device or a \
         file system on their behalf; try again when they are gone"
    )]
    Stuck {
        /// The VM.
        vm: String,
        /// Their ids.
        pids: Vec<u32>,
    },
    /// Its root device stays.
    #[error("VM {vm}: cannot remove its root device")]
    RootDevice {
        /// The VM.
        vm: String,
        /// Why not.
        #[source]
        source: DriverError,
    },
    /// Something of it cannot be removed.
    #[error("VM {vm}: cannot remove its sockets or logs")]
    Sockets {
        /// The VM.
        vm: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another command has changed the cluster meanwhile.
    #[error("cluster {0} was changed by another command meanwhile; nothing was done: try again")]
    Changed(String),
    /// Another command has started a VM that is to be changed.
    #[error(
        "VM {0} was started by another command while the cluster was changed; use `vhost-famfs up` \
         again"
    )]
    Meanwhile(String),
    /// A VM that it depends on does not come up.
    #[error("VM {vm} was not started, because it depends on {on}")]
    Dependency {
        /// The VM.
        vm: String,
        /// The other one.
        on: String,
    },
    /// The cluster has ended meanwhile.
    #[error("cluster {0} was taken down meanwhile")]
    Gone(String),
    /// Another command has stopped the VM meanwhile.
    #[error("VM {0} was stopped meanwhile, so it was not started")]
    Stopped(String),
    /// The pool cannot be used.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A process does not start, or the guest does not come up.
    #[error(transparent)]
    Part(#[from] PartError),
    /// The kernel does not tell the start time of this process.
    #[error("cannot look at this process in /proc")]
    This(#[source] io::Error),
    /// The user asked to stop.
    #[error("interrupted; VM {0} is not running")]
    Interrupted(String),
}

impl From<Box<VmError>> for LifeError {
    fn from(error: Box<VmError>) -> Self {
        Self::Part(error.into())
    }
}

/// Changes the state of the cluster with that mark while it is locked. What `change` returns as an
/// error leaves it as it was.
pub(super) fn change<T>(
    directory: &Directory,
    instance: Option<Uuid>,
    change: impl FnOnce(&mut State) -> Result<T, LifeError>,
) -> Result<T, LifeError> {
    let gone = || LifeError::Gone(directory.name().to_owned());
    let _lock = directory.lock()?.ok_or_else(gone)?;
    let mut state = directory.read()?.ok_or_else(gone)?;
    if instance.is_some_and(|instance| instance != state.instance) {
        return Err(gone());
    }
    let result = change(&mut state)?;
    directory.write(&state)?;
    Ok(result)
}

/// A VM that this program may stop and start.
pub(super) fn own_vm<'s>(state: &'s mut State, name: &str) -> Result<&'s mut VmState, LifeError> {
    let vm = vm_of(state, name)?;
    let (cluster, vm) = (state.name.clone(), vm.name.clone());
    if state.emitted {
        return Err(LifeError::Emitted { cluster, vm });
    }
    if state.phase != Phase::Up {
        return Err(LifeError::NotUp(cluster));
    }
    let no_vm = || LifeError::Gone(cluster);
    let found = state.vms.iter_mut().find(|found| found.name == name).ok_or_else(no_vm)?;
    let processes = [found.qemu, found.backend, found.keeper];
    match processes.into_iter().flatten().find(|process| process.is_hidden()) {
        Some(Process { pid, .. }) => Err(LifeError::Hidden { vm, pid }),
        None => Ok(found),
    }
}

/// Kills what remains of a VM's processes, and removes its root device and its sockets.
pub(super) fn clear(instance: Uuid, name: &str, paths: &VmPaths) -> Result<(), LifeError> {
    // Before their end is waited for: a QEMU that waits for a device without a process cannot end.
    root_devices::kill_users(&process::of_vm(instance, paths));
    root_devices::remove(instance, paths)
        .map_err(|source| LifeError::RootDevice { vm: name.to_owned(), source })?;
    let find = || -> Vec<Handle> { process::of_vm(instance, paths) };
    process::kill_found(find).map_err(|pids| LifeError::Stuck { vm: name.to_owned(), pids })?;
    let removed = [fs::remove_dir_all(&paths.runtime_dir), fs::remove_file(&paths.backend)];
    let failed = removed.into_iter().filter_map(Result::err);
    match failed.into_iter().find(|error| error.kind() != io::ErrorKind::NotFound) {
        Some(source) => Err(LifeError::Sockets { vm: name.to_owned(), source }),
        None => Ok(()),
    }
}
