// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The plan of a cluster: every detail is decided.
//!
//! ```text
//! Spec (what is asked) + Host (what there is) --> ClusterPlan --> up, or text for other programs
//! ```
//! Planning examines the host and changes nothing.

mod again;
mod error;
mod pool;
mod system;
mod text;
mod vm;

use std::path::PathBuf;

use famfs::format::view::View;
use famfs::write::unsupported::LeftOut;
use uuid::Uuid;

use super::host::Host;
use super::sizing::{ImportError, Needs};
use super::spec::{Access, ImportSpec, Master, Restart, Spec, Transport, VmSpec};
use crate::bounded_log::DEFAULT_LIMIT;
use crate::pool::{CreateOptions, Identity, Kind, Owners};
use crate::vm::{BackendConfig, Confinement, RootDeviceConfig, VmConfig};

pub use again::{AgainError, Machines};
pub use error::PlanError;
pub use pool::is_own_pool;

/// A cluster that can be started.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    /// Its name.
    pub name: String,
    /// Marks the processes of this start.
    pub instance: Uuid,
    /// The cluster file that describes it; `None` for the command line.
    pub file: Option<PathBuf>,
    /// The directory with its state and sockets.
    pub dir: PathBuf,
    /// What runs the guests, and why, for the user.
    pub accelerator: String,
    /// How QEMU is confined, and why, for the user.
    pub confinement: String,
    /// The program that keeps logs.
    pub program: PathBuf,
    /// Maximum size of each log in bytes.
    pub log_limit: u64,
    /// Its pool.
    pub pool: PoolPlan,
    /// Its VMs.
    pub vms: Vec<VmPlan>,
}

/// The pool of a cluster.
#[derive(Debug, Clone)]
pub struct PoolPlan {
    /// The file or device.
    pub path: PathBuf,
    /// What it is made of.
    pub kind: Kind,
    /// Its size in bytes.
    pub size: u64,
    /// Which device guests see.
    pub view: View,
    /// How to create it; `None` if it exists.
    pub create: Option<CreateOptions>,
    /// Whose it may be.
    pub owners: Owners,
    /// The identity of the file, if it exists.
    pub identity: Option<Identity>,
    /// Whether it is made for the cluster and removed with it. A pool that already existed is kept.
    pub ours: bool,
    /// The first byte after its file system, whether existing or to be made; slices begin there.
    /// `None` if it has no file system.
    pub famfs_end: Option<u64>,
    /// The file system to make in it; `None` if it has one or needs none.
    pub mkfs: Option<MkfsPlan>,
    /// What to copy into it.
    pub imports: Vec<ImportSpec>,
    /// What famfs cannot store of each import.
    pub left_out: Vec<Vec<LeftOut>>,
    /// The space that the imports need.
    pub needs: Needs,
}

/// The file system to make in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MkfsPlan {
    /// Bytes of its log; `None` for mkfs's default.
    pub log_len: Option<u64>,
    /// How many bytes of the device it may use; `None` for all.
    pub size: Option<u64>,
    /// The system UUID of its master.
    pub system: Uuid,
}

/// A VM of a cluster.
#[derive(Debug, Clone)]
pub struct VmPlan {
    /// What it may do with the pool.
    pub access: Access,
    /// How many bytes of the pool it sees.
    pub pool_bytes: u64,
    /// How it gets the pool.
    pub transport: Transport,
    /// Why this transport, for the user.
    pub reason: &'static str,
    /// Whether the guest mounts the pool. If so, a start waits for the mount.
    pub mount: bool,
    /// Whether it is the VM that may add files.
    pub master: bool,
    /// Whether it is started again when it fails.
    pub restart: Restart,
    /// Its back-end, if the transport has one.
    pub backend: Option<BackendConfig>,
    /// Its root device, if it has one: the VM boots from it.
    pub root_device: Option<RootDeviceConfig>,
    /// The VM.
    pub config: VmConfig,
    /// What was asked for.
    pub asked: VmSpec,
}

impl VmPlan {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Its logs: of the console, of QEMU, and of the back-end and the root device if it has them.
    #[must_use]
    pub fn logs(&self) -> Vec<PathBuf> {
        let paths = &self.config.paths;
        let backend = self.backend.as_ref().map(|backend| backend.log.clone());
        let own = [paths.console_log.clone(), paths.qemu_log.clone()];
        let device = self.root_device.as_ref().map(|device| device.log.clone());
        own.into_iter().chain(backend).chain(device).collect()
    }
}

impl ClusterPlan {
    /// Whether the cluster, or its start, writes to the pool.
    #[must_use]
    pub fn writes_pool(&self) -> bool {
        let fills = self.pool.create.is_some() || self.pool.mkfs.is_some();
        let only_reads = |vm: &VmPlan| vm.access == Access::ReadOnly;
        fills || !self.pool.imports.is_empty() || !self.vms.iter().all(only_reads)
    }

    /// Decides everything that the user left open, and checks that it can work.
    ///
    /// # Errors
    /// The first obstacle, with a way out.
    pub fn new(spec: &Spec, host: &Host) -> Result<Self, PlanError> {
        let wants_files = !spec.imports.is_empty() || spec.vms.iter().any(mounts);
        let (pool, system) = pool::plan(spec, host, wants_files)?;
        let master = master(spec, pool.kind)?;
        let uuid = |vm: &VmSpec| match master == Some(&vm.name) {
            true => system,
            false => Uuid::new_v4(),
        };
        Self::with(spec, host, pool, Uuid::new_v4(), master, &uuid)
    }

    /// Plans the VMs on a pool. `uuid` tells the machine UUID of each.
    fn with(
        spec: &Spec,
        host: &Host,
        pool: PoolPlan,
        instance: Uuid,
        master: Option<&String>,
        uuid: &dyn Fn(&VmSpec) -> Uuid,
    ) -> Result<Self, PlanError> {
        let dir = host.runtime.join(&spec.name);
        let plan_one = |vm: &VmSpec| {
            let identity = (master == Some(&vm.name), uuid(vm));
            vm::plan(vm, host, &dir, &pool, mounts(vm), identity)
        };
        let vms: Vec<_> = spec.vms.iter().map(plan_one).collect::<Result<_, _>>()?;
        let accelerator = format!("{} ({})", host.accelerator, host.accelerator_reason);
        let confinement = match vms.iter().all(|vm| vm.config.confinement == Confinement::None) {
            true => Confinement::None.to_string(),
            false => format!("{} ({})", host.confinement, host.confinement_reason),
        };
        let (name, file) = (spec.name.clone(), spec.file.clone());
        let program = host.program.clone();
        let log_limit = spec.log_limit.unwrap_or(DEFAULT_LIMIT);
        Ok(Self {
            name,
            file,
            instance,
            dir,
            accelerator,
            confinement,
            program,
            log_limit,
            pool,
            vms,
        })
    }
}

/// Whether a VM mounts the pool.
fn mounts(vm: &VmSpec) -> bool {
    vm.mount.unwrap_or(!matches!(vm.access, Access::Slice { .. }))
}

/// The name of the VM that may change the file system; `None` if only the host may, or no VM can
/// write.
fn master(spec: &Spec, kind: Kind) -> Result<Option<&String>, PlanError> {
    let can_write = |vm: &&VmSpec| vm.access == Access::ReadWrite;
    let refused = |name: &str, why: String| Err(PlanError::Master { name: name.to_owned(), why });
    match &spec.master {
        None => Ok(spec.vms.iter().find(can_write).map(|vm| &vm.name)),
        Some(Master::Host) if kind == Kind::Devdax => {
            let why = "only VMs can format and fill a devdax device; name one of them";
            refused(Master::HOST, why.to_owned())
        }
        Some(Master::Host) => Ok(None),
        Some(Master::Vm(name)) => match spec.vms.iter().find(|vm| vm.name == *name) {
            Some(vm) if vm.access == Access::ReadWrite => Ok(Some(&vm.name)),
            Some(vm) => {
                let access = vm.access.name();
                refused(name, format!("this VM has access {access}; only one with rw can write"))
            }
            None => {
                let names: Vec<_> = spec.vms.iter().map(|vm| vm.name.as_str()).collect();
                let names = names.join(", ");
                refused(name, format!("no VM has this name; use \"host\", or one of {names}"))
            }
        },
    }
}

impl PoolPlan {
    /// The imports, each with what famfs cannot store of it.
    pub fn imports(&self) -> impl Iterator<Item = (&ImportSpec, &[LeftOut])> {
        self.imports.iter().zip(self.left_out.iter().map(Vec::as_slice))
    }

    /// Refuses imports of which something would be missing, unless the user agreed to that.
    ///
    /// # Errors
    /// The first such import, with what would be missing.
    pub fn refuse_left_out(&self) -> Result<(), PlanError> {
        let refused =
            self.imports().find(|(import, items)| !import.skip_unsupported && !items.is_empty());
        match refused {
            None => Ok(()),
            Some((import, items)) => {
                let (path, items) = (import.from.clone(), items.to_vec());
                Err(ImportError::LeftOut { path, items }.into())
            }
        }
    }
}

#[cfg(test)]
mod tests;
