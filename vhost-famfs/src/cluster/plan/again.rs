// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plans a cluster that runs: the pool is the one that it has, and every machine stays what it is
//! for the file system.

use std::path::PathBuf;

use uuid::Uuid;

use super::{ClusterPlan, PlanError, mounts, pool};
use crate::cluster::host::Host;
use crate::cluster::spec::{Access, Master, Spec, Subject, VmSpec};
use crate::pool::Identity;

/// The VMs and the pool of a cluster that runs.
#[derive(Debug)]
pub struct Machines<'m> {
    /// The mark of its processes.
    pub instance: Uuid,
    /// Its pool.
    pub pool: &'m PathBuf,
    /// The identity of the pool's file.
    pub identity: Identity,
    /// Its VMs, with their machine UUIDs.
    pub vms: Vec<(&'m str, Uuid)>,
}

/// Why a running cluster cannot become what is asked for.
#[derive(Debug, thiserror::Error)]
pub enum AgainError {
    /// The plan itself fails.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Another pool is asked for.
    #[error(
        "cluster {cluster} runs on the pool {}, not on {}: VMs cannot change their pool; use \
         `vhost-famfs down {cluster}` and `vhost-famfs up`", found.display(), asked.display()
    )]
    Pool {
        /// The cluster.
        cluster: String,
        /// Its pool.
        found: PathBuf,
        /// The requested one.
        asked: PathBuf,
    },
    /// The file of the pool is gone or another one.
    #[error(
        "the pool {} of cluster {cluster} was removed or replaced while its VMs run; use \
         `vhost-famfs down {cluster}` and `vhost-famfs up`", pool.display()
    )]
    Replaced {
        /// The cluster.
        cluster: String,
        /// The pool.
        pool: PathBuf,
    },
    /// The pool has no file system to mount.
    #[error(
        "the pool {} has no famfs that VM {vm} could mount, and none is made while VMs use the \
         pool; use `vhost-famfs down {cluster}` and `vhost-famfs up`", pool.display()
    )]
    NoFamfs {
        /// The cluster.
        cluster: String,
        /// The pool.
        pool: PathBuf,
        /// The VM.
        vm: String,
    },
    /// The master would not be one of its VMs any more, or could not write.
    #[error(
        "VM {vm} is the master of the pool's file system, so it must stay, with access \"rw\"; \
         first make another VM the master, with `famfs takeover --yes` in that VM"
    )]
    MasterLeaves {
        /// The VM.
        vm: String,
    },
    /// Another master is asked for.
    #[error(
        "the master is {}, not {asked}; {way}", found.as_deref().unwrap_or("the host"),
        way = match asked.as_str() {
            Master::HOST => "for the host, use `vhost-famfs down` and `vhost-famfs up`".to_owned(),
            vm => format!("to change that, use `famfs takeover --yes` in {vm}"),
        }
    )]
    Master {
        /// The VM that it is; `None` if it is no VM of the cluster.
        found: Option<String>,
        /// The VM that it should be, or `host`.
        asked: String,
    },
}

impl AgainError {
    /// The part of the cluster that the error is about, if there is one.
    #[must_use]
    pub fn subject(&self) -> Option<Subject> {
        match self {
            Self::Plan(error) => error.subject(),
            Self::Pool { .. } | Self::Replaced { .. } => Some(Subject::Pool("path")),
            Self::Master { .. } => Some(Subject::Master),
            Self::NoFamfs { vm, .. } => Some(Subject::Vm(vm.clone(), "mount")),
            Self::MasterLeaves { vm } => Some(Subject::Vm(vm.clone(), "access")),
        }
    }
}

impl ClusterPlan {
    /// Plans a cluster that runs. Its imports were done when it was started: they are not looked
    /// at.
    ///
    /// # Errors
    /// What cannot change while it runs, with a way out.
    pub fn again(spec: &Spec, host: &Host, machines: &Machines<'_>) -> Result<Self, AgainError> {
        let spec = &Spec { imports: Vec::new(), ..spec.clone() };
        let cluster = || spec.name.clone();
        let asked = spec.pool.path.as_ref();
        if let Some(asked) = asked.filter(|asked| *asked != machines.pool) {
            let (found, asked) = (machines.pool.clone(), asked.clone());
            return Err(AgainError::Pool { cluster: cluster(), found, asked });
        }
        // A pool that is gone would be planned as a new one.
        let mounting = spec.vms.iter().find(|vm| mounts(vm));
        let gone = || AgainError::Replaced { cluster: cluster(), pool: machines.pool.clone() };
        if machines.pool.symlink_metadata().is_err() {
            return Err(gone());
        }
        let (pool, system) = pool::plan(spec, host, mounting.is_some())?;
        if pool.path != *machines.pool {
            let (found, asked) = (machines.pool.clone(), pool.path);
            return Err(AgainError::Pool { cluster: cluster(), found, asked });
        }
        if pool.identity != Some(machines.identity) {
            return Err(gone());
        }
        if let Some(vm) = mounting.filter(|_| pool.mkfs.is_some()) {
            let (pool, vm) = (pool.path, vm.name.clone());
            return Err(AgainError::NoFamfs { cluster: cluster(), pool, vm });
        }
        let named = |uuid| machines.vms.iter().find(|(_, machine)| *machine == uuid);
        let master = named(system).map(|(name, _)| (*name).to_owned());
        // Only a VM can tell who is the master of a devdax device.
        if pool.famfs_end.is_some() {
            check_master(spec, master.as_ref())?;
        }
        let uuid = |vm: &VmSpec| {
            let machine = machines.vms.iter().find(|(name, _)| *name == vm.name);
            machine.map_or_else(Uuid::new_v4, |(_, uuid)| *uuid)
        };
        Ok(Self::with(spec, host, pool, machines.instance, master.as_ref(), &uuid)?)
    }
}

/// Checks that the master stays who it is.
fn check_master(spec: &Spec, found: Option<&String>) -> Result<(), AgainError> {
    let is_same = match &spec.master {
        None => true,
        Some(Master::Host) => found.is_none(),
        Some(Master::Vm(asked)) => found == Some(asked),
    };
    if !is_same {
        let asked = match &spec.master {
            Some(Master::Vm(asked)) => asked.clone(),
            _ => Master::HOST.to_owned(),
        };
        return Err(AgainError::Master { found: found.cloned(), asked });
    }
    let can_write = |vm: &VmSpec| vm.access == Access::ReadWrite;
    match found {
        Some(found) if !spec.vms.iter().any(|vm| vm.name == *found && can_write(vm)) => {
            Err(AgainError::MasterLeaves { vm: found.clone() })
        }
        _ => Ok(()),
    }
}
