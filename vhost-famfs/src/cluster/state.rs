// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The state of a cluster: `state.json` in its directory.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::parts::Launch;
use super::plan::{ClusterPlan, PoolPlan, VmPlan, is_own_pool};
use super::process::Process;
use super::spec::{ImportSpec, VmSpec, check_vm_name};
use super::stopped::Stopped;
use crate::pool::{Identity, Owners};
use crate::vm::Channel;

/// Version of the file. Other versions are refused: they were written by other versions of this
/// program.
pub const VERSION: u32 = 1;

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// [`VERSION`].
    pub version: u32,
    /// Its name.
    pub name: String,
    /// The mark of its processes.
    pub instance: Uuid,
    /// The boot of the host in which its processes run.
    pub boot_id: String,
    /// Whether others start its processes. Then they are not in this file.
    #[serde(default)]
    pub emitted: bool,
    /// How far its start is.
    pub phase: Phase,
    /// The process that starts it, or did so.
    pub launcher: Process,
    /// What described it at its start. `None` if an older version of this program started it, or a
    /// path is not UTF-8.
    #[serde(default)]
    pub source: Option<Source>,
    /// The `up` that changes it, until it has finished.
    #[serde(default)]
    pub changing: Option<Process>,
    /// Its pool.
    pub pool: PoolState,
    /// Its VMs.
    pub vms: Vec<VmState>,
}

/// How far the start of a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It is being started, or its start was interrupted.
    Starting,
    /// All its VMs were up.
    Up,
}

/// The pool of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolState {
    /// The file or device.
    pub path: PathBuf,
    /// What it is made of.
    pub kind: String,
    /// Its size in bytes.
    pub size: u64,
    /// What guests see.
    pub view: String,
    /// Whether it was made for this cluster and is removed with it.
    pub ours: bool,
    /// The identity of the info block of the pool that this start creates. If the start is
    /// interrupted, the pool is removed by it. A raw pool has none, and is kept.
    pub made: Option<Uuid>,
    /// The identity of its file; older versions of this program did not write it.
    #[serde(default)]
    pub identity: Option<Identity>,
    /// Whether it may be another user's.
    #[serde(default)]
    pub foreign: bool,
}

/// A VM of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmState {
    /// Its name.
    pub name: String,
    /// Its machine UUID; older versions of this program did not write it.
    #[serde(default)]
    pub uuid: Option<Uuid>,
    /// `rw`, `ro` or `slice`.
    pub access: String,
    /// `shmem` or `pmem`.
    pub transport: String,
    /// How its agent is reached.
    #[serde(default)]
    pub channel: Channel,
    /// Whether the guest was asked to mount the pool.
    pub mount: bool,
    /// The guest's RAM in bytes.
    pub memory: u64,
    /// The image file of its root, if the root is in memory.
    #[serde(default)]
    pub memory_root: Option<PathBuf>,
    /// QEMU, once started.
    pub qemu: Option<Process>,
    /// Its back-end, once started, if it has one.
    pub backend: Option<Process>,
    /// The process that keeps its logs, once started.
    #[serde(default)]
    pub keeper: Option<Process>,
    /// How its start went, once it was up.
    pub booted: Option<Booted>,
    /// Set when the user asks to stop it, until it is started again.
    #[serde(default)]
    pub stopped: Option<Stopped>,
    /// The process that starts it again, until it is up.
    #[serde(default)]
    pub starting: Option<Process>,
    /// The process that starts it again when it fails, if there is one.
    #[serde(default)]
    pub supervisor: Option<Process>,
    /// How often that was done since the start of the cluster.
    #[serde(default)]
    pub restarts: u32,
    /// Why that was in vain, once it is no longer tried.
    #[serde(default)]
    pub given_up: Option<String>,
    /// How to start it again. `None` if others start it, if an older version of this program
    /// started it, or if a path is not UTF-8.
    #[serde(default)]
    pub launch: Option<Box<Launch>>,
    /// What was asked for, to notice what changes. `None` as for `launch`.
    #[serde(default)]
    pub asked: Option<Box<VmSpec>>,
}

/// What described a cluster at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The cluster file; `None` for the command line.
    pub file: Option<PathBuf>,
    /// The directories and archives that were imported.
    pub imports: Vec<PathBuf>,
}

/// The start of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Booted {
    /// Time from the start of QEMU to the guest's report, in milliseconds.
    pub boot_ms: u64,
    /// Whether the pool is mounted in it.
    pub mounted: bool,
}

impl State {
    /// The state of a cluster before any process is started.
    #[must_use]
    pub fn new(plan: &ClusterPlan, boot_id: String, launcher: Process) -> Self {
        Self {
            version: VERSION,
            name: plan.name.clone(),
            instance: plan.instance,
            boot_id,
            emitted: false,
            phase: Phase::Starting,
            launcher,
            source: Source::of(plan.file.as_deref(), &plan.pool.imports),
            changing: None,
            pool: PoolState::new(&plan.pool),
            vms: plan.vms.iter().map(|vm| VmState::new(plan, vm)).collect(),
        }
    }
}

impl State {
    /// Checks what the format does not guarantee: names must not lead elsewhere, and a pool that is
    /// removed with the cluster must be one that this program makes.
    pub(super) fn check(&self, name: &str, base: &Path) -> Result<(), String> {
        if self.name != name {
            return Err(format!("it belongs to cluster {:?}, expected {name}", self.name));
        }
        let mut names = HashSet::new();
        for vm in &self.vms {
            check_vm_name(&vm.name)?;
            if !names.insert(&vm.name) {
                return Err(format!("two VMs named {}", vm.name));
            }
        }
        if self.pool.ours && !is_own_pool(&self.pool.path, base, name) {
            let path = self.pool.path.display();
            return Err(format!("{path} is not a pool that is made for this cluster"));
        }
        Ok(())
    }
}

impl Source {
    /// What describes a cluster, by paths that are the same in every directory; `None` if a state
    /// file cannot hold them.
    #[must_use]
    pub fn of(file: Option<&Path>, imports: &[ImportSpec]) -> Option<Self> {
        let whole = |path: &Path| {
            let path = path.canonicalize().or_else(|_| std::path::absolute(path)).ok()?;
            path.to_str().is_some().then_some(path)
        };
        let imports = imports.iter().map(|import| whole(&import.from)).collect::<Option<_>>()?;
        let file = match file {
            Some(file) => Some(whole(file)?),
            None => None,
        };
        Some(Self { file, imports })
    }
}

impl PoolState {
    fn new(plan: &PoolPlan) -> Self {
        Self {
            path: plan.path.clone(),
            kind: plan.kind.name().to_owned(),
            size: plan.size,
            view: plan.view.name().to_owned(),
            ours: plan.ours,
            made: plan.create.as_ref().and_then(|options| options.uuid),
            identity: None,
            foreign: plan.owners == Owners::Any,
        }
    }
}

impl VmState {
    /// A VM before any process is started.
    #[must_use]
    pub fn new(cluster: &ClusterPlan, plan: &VmPlan) -> Self {
        let (launch, asked) = (Launch::new(cluster, plan), plan.asked.clone());
        let can_be_kept = serde_json::to_value((&launch, &asked)).is_ok();
        Self {
            name: plan.name().to_owned(),
            uuid: Some(plan.config.uuid),
            access: plan.access.name().to_owned(),
            transport: plan.transport.name().to_owned(),
            channel: Channel::Ports,
            mount: plan.mount,
            memory: plan.config.memory,
            memory_root: plan.config.root_in_memory().map(|(path, _)| path),
            qemu: None,
            backend: None,
            keeper: None,
            booted: None,
            stopped: None,
            starting: None,
            supervisor: None,
            restarts: 0,
            given_up: None,
            launch: can_be_kept.then(|| Box::new(launch)),
            asked: can_be_kept.then(|| Box::new(asked)),
        }
    }

    /// A shell command in the guest that succeeds when what the VM is for works.
    #[must_use]
    pub fn health(&self) -> Option<&str> {
        self.asked.as_ref()?.health.as_deref()
    }

    /// The names of the VMs that must be up before it is started.
    #[must_use]
    pub fn depends_on(&self) -> &[String] {
        self.asked.as_ref().map(|asked| asked.depends_on.as_slice()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_an_older_version_is_read() {
        let vm = serde_json::json!({
            "name": "vm1", "access": "rw", "transport": "shmem", "mount": true, "memory": 1,
            "qemu": null, "backend": null, "booted": null,
        });
        let old: VmState = serde_json::from_value(vm.clone()).unwrap();
        assert_eq!(old.uuid, None);
        let mut new = vm;
        let uuid = Uuid::from_u128(7);
        new["uuid"] = uuid.to_string().into();
        let new: VmState = serde_json::from_value(new).unwrap();
        assert_eq!(new, VmState { uuid: Some(uuid), ..old });
    }
}
