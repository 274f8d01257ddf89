// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Changes a running cluster to what a changed description asks for: which VMs to start, to
//! restart, to stop, and to leave alone. What the host decides, such as the QEMU that is installed,
//! is no reason to touch a VM that runs.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::difference;
use super::directory::{Directory, DirectoryError};
use super::host::Host;
use super::life::LifeError;
use super::parts::Launch;
use super::plan::{AgainError, ClusterPlan, Machines, VmPlan};
use super::process::Process;
use super::spec::{Spec, Subject};
use super::state::{Phase, Source, State, VmState};
use crate::host::residency::{self, MappedFile};
use crate::vm::Forward;

/// Why a running cluster is not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It cannot be read, or is not up.
    #[error(transparent)]
    Life(#[from] LifeError),
    /// What is asked for is not possible while it runs.
    #[error(transparent)]
    Again(#[from] AgainError),
    /// Other programs start its VMs.
    #[error(
        "cluster {0} is running and was started by the output of `up --emit`; stop it there, or \
         start this one with another --name"
    )]
    Emitted(String),
    /// Its name belongs to another cluster.
    #[error(
        "cluster {cluster} is running, and is another one: it was started from {found}, not from \
         {asked}; start this one with another --name, or stop that one with `vhost-famfs down \
         {cluster}`"
    )]
    Other {
        /// The cluster.
        cluster: String,
        /// What it was started from.
        found: Described,
        /// What describes the new one.
        asked: Described,
    },
    /// It is not known what it was started from.
    #[error(
        "cluster {0} is running, and what it was started from is not recorded, because another \
         version of vhost-famfs started it or a path is not UTF-8; to change it, use `vhost-famfs \
         down {0}` and `vhost-famfs up`, or start this one with another --name"
    )]
    NotRecorded(String),
    /// Another command changes it.
    #[error("process {pid}, another `vhost-famfs up`, is changing cluster {cluster}; wait for it")]
    Busy {
        /// The cluster.
        cluster: String,
        /// The process.
        pid: u32,
    },
}

impl From<DirectoryError> for ChangeError {
    fn from(error: DirectoryError) -> Self {
        Self::Life(error.into())
    }
}

impl ChangeError {
    /// The part of the cluster that the error is about, if there is one.
    #[must_use]
    pub fn subject(&self) -> Option<Subject> {
        match self {
            Self::Again(error) => error.subject(),
            _ => None,
        }
    }
}

/// What describes a cluster, for the user.
#[derive(Debug)]
pub struct Described(Source);

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source { file: Some(file), .. } => write!(f, "{}", file.display()),
            Source { imports, .. } if imports.is_empty() => f.write_str("--vms without --share"),
            Source { imports, .. } => {
                f.write_str("--vms with")?;
                imports.iter().try_for_each(|path| write!(f, " --share {}", path.display()))
            }
        }
    }
}

/// What is done with a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is new, or does not run. Then it is started as it is asked for now.
    Start,
    /// It is started anew with other settings.
    Restart,
    /// It is no longer asked for.
    Stop,
    /// It goes on.
    Keep,
}

impl Action {
    /// The word for tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Keep => "keep",
        }
    }
}

/// What is done with a VM, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VmChange {
    /// Its name.
    pub name: String,
    /// What is done.
    pub action: Action,
    /// Why, for the user. For a VM that is kept: why it is not up yet; empty if it is.
    pub why: Vec<String>,
}

impl VmChange {
    /// A VM that does not exist yet.
    #[must_use]
    pub fn new(vm: &VmPlan) -> Self {
        let (name, why) = (vm.name().to_owned(), vec!["new".to_owned()]);
        Self { name, action: Action::Start, why }
    }
}

/// What the command line names, and so asks for.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    /// A QEMU.
    pub qemu: bool,
    /// An image.
    pub image: bool,
}

/// How to change a running cluster.
#[derive(Debug)]
pub struct Change {
    /// What it will be.
    pub plan: ClusterPlan,
    /// Its state when this was planned.
    pub state: State,
    /// What is done with each VM: in the order of the description, then those that are stopped.
    pub vms: Vec<VmChange>,
    /// What is imported now, but was not when the cluster started. It is not copied.
    pub new_imports: Vec<PathBuf>,
}

/// The state of the cluster with that name, if it is up and can be changed; `None` if there is no
/// such cluster.
///
/// # Errors
/// It is being started, was started by others, or its state cannot be read.
pub fn running(base: &Path, name: &str) -> Result<Option<State>, ChangeError> {
    let Some(state) = Directory::new(base, name).read()? else { return Ok(None) };
    if state.emitted {
        return Err(ChangeError::Emitted(state.name));
    }
    if state.phase != Phase::Up {
        return Err(LifeError::NotUp(state.name).into());
    }
    Ok(Some(state))
}

impl Change {
    /// Compares a running cluster with what is asked for. VMs that run with another QEMU or another
    /// image than the ones that are `named` are restarted.
    ///
    /// # Errors
    /// Why the cluster cannot become that.
    pub fn new(spec: &Spec, host: &Host, state: State, named: Named) -> Result<Self, ChangeError> {
        let not_recorded = || ChangeError::NotRecorded(state.name.clone());
        let found = state.source.as_ref().ok_or_else(not_recorded)?;
        let asked = Source::of(spec.file.as_deref(), &spec.imports).ok_or_else(not_recorded)?;
        // On the command line, the shares tell one cluster from another.
        if found.file != asked.file || asked.file.is_none() && found.imports != asked.imports {
            let (cluster, found) = (state.name.clone(), Described(found.clone()));
            return Err(ChangeError::Other { cluster, found, asked: Described(asked) });
        }
        let is_new = |path: &PathBuf| !found.imports.contains(path);
        let new_imports = asked.imports.into_iter().filter(is_new).collect();
        let identity = state.pool.identity.ok_or_else(not_recorded)?;
        let machine = |vm: &'_ VmState| vm.uuid.ok_or_else(not_recorded);
        let vms = state.vms.iter().map(|vm| Ok((vm.name.as_str(), machine(vm)?)));
        let vms = vms.collect::<Result<_, ChangeError>>()?;
        let (instance, pool) = (state.instance, &state.pool.path);
        let plan = ClusterPlan::again(spec, host, &Machines { instance, pool, identity, vms })?;
        let mut vms = Vec::new();
        for vm in &plan.vms {
            let name = vm.name().to_owned();
            let Some(now) = state.vms.iter().find(|now| now.name == name) else {
                vms.push(VmChange::new(vm));
                continue;
            };
            let (Some(asked), Some(launch)) = (&now.asked, &now.launch) else {
                return Err(not_recorded());
            };
            let mut why = difference::between(asked, &vm.asked);
            why.extend(others(launch, &Launch::new(&plan, vm), named));
            let action = match (ended(now), why.is_empty()) {
                (None, true) => {
                    why.extend(coming_up(now));
                    Action::Keep
                }
                (None, false) => Action::Restart,
                (Some(ended), _) => {
                    why.insert(0, ended.to_owned());
                    Action::Start
                }
            };
            vms.push(VmChange { name, action, why });
        }
        for vm in &state.vms {
            if !plan.vms.iter().any(|kept| kept.name() == vm.name) {
                let why = vec!["no longer asked for".to_owned()];
                let (name, action) = (vm.name.clone(), Action::Stop);
                vms.push(VmChange { name, action, why });
            }
        }
        Ok(Self { plan, state, vms, new_imports })
    }

    /// The names of the VMs with which one of these things is done.
    #[must_use]
    pub fn names(&self, actions: &[Action]) -> Vec<String> {
        let chosen = self.vms.iter().filter(|vm| actions.contains(&vm.action));
        chosen.map(|vm| vm.name.clone()).collect()
    }

    /// Bytes of the host's memory that come back when the VMs end that are stopped or restarted.
    #[must_use]
    pub fn returned(&self) -> u64 {
        let Ok(pool) = MappedFile::of(&self.state.pool.path) else { return 0 };
        let ends = self.names(&[Action::Stop, Action::Restart]);
        let qemus = self.state.vms.iter().filter(|vm| ends.contains(&vm.name));
        let qemus = qemus.filter_map(|vm| vm.qemu.filter(|qemu| qemu.is_alive()));
        // Who may not look counts nothing.
        qemus
            .filter_map(|qemu| residency::of_process(qemu.pid, &pool).ok())
            .map(|held| held.ram.rss)
            .sum()
    }

    /// The VMs that are kept and are not up yet.
    pub fn coming_up(&self) -> impl Iterator<Item = &VmChange> {
        self.vms.iter().filter(|vm| vm.action == Action::Keep && !vm.why.is_empty())
    }

    /// The ports of the host that VMs have which end before others are started.
    #[must_use]
    pub fn released_ports(&self) -> Vec<Forward> {
        let ends = self.names(&[Action::Stop, Action::Restart]);
        let vms = self.state.vms.iter().filter(|vm| ends.contains(&vm.name));
        let vms = vms.filter(|vm| vm.qemu.is_some_and(Process::is_alive));
        let launches = vms.filter_map(|vm| vm.launch.as_ref());
        launches.flat_map(|launch| launch.config.network.iter().flatten().copied()).collect()
    }

    /// A VM to be started that depends on one that is kept and is not up yet, and that one.
    #[must_use]
    pub fn too_early(&self) -> Option<(&str, &VmChange)> {
        let started = self.names(&[Action::Start, Action::Restart]);
        let started = |vm: &&VmPlan| started.iter().any(|name| name == vm.name());
        self.plan.vms.iter().filter(started).find_map(|vm| {
            let on = self.coming_up().find(|on| vm.asked.depends_on.contains(&on.name))?;
            Some((vm.name(), on))
        })
    }

    /// Whether the cluster is already what is asked for, or becomes it without this command.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let asked = |vm: &VmPlan| Some(Box::new(vm.asked.clone()));
        let is_same = |vm: &VmPlan| {
            self.state.vms.iter().any(|now| now.name == vm.name() && now.asked == asked(vm))
        };
        // Not only the order of the next start.
        self.vms.iter().all(|vm| vm.action == Action::Keep) && self.plan.vms.iter().all(is_same)
    }

    /// The plan with only those VMs that are started.
    #[must_use]
    pub fn starting(&self) -> ClusterPlan {
        let started = self.names(&[Action::Start, Action::Restart]);
        let mut plan = self.plan.clone();
        plan.vms.retain(|vm| started.iter().any(|name| name == vm.name()));
        plan
    }
}

/// Why a VM does not run; `None` if it does, or will without this command.
fn ended(vm: &VmState) -> Option<&'static str> {
    let is_alive = |process: Option<Process>| process.is_some_and(Process::is_alive);
    if is_alive(vm.starting) {
        return None;
    }
    match vm.qemu {
        _ if vm.starting.is_some() => Some("its start was interrupted"),
        _ if vm.stopped.is_some() => Some("it was stopped"),
        None => Some("it was not started"),
        Some(_) if is_alive(vm.qemu) || is_alive(vm.supervisor) => None,
        Some(_) => Some("it has ended"),
    }
}

/// Why a VM that runs, or will without this command, is not up; `None` if it is.
fn coming_up(vm: &VmState) -> Option<String> {
    match vm.starting.filter(|process| process.is_alive()) {
        Some(process) => Some(format!("process {} is starting it", process.pid)),
        None if vm.qemu.is_some_and(Process::is_alive) => None,
        None => Some("it has failed and is about to be started again".to_owned()),
    }
}

/// What differs of the settings that are not a VM's own.
fn others(old: &Launch, new: &Launch, named: Named) -> Vec<String> {
    let mut found = Vec::new();
    if old.log_limit != new.log_limit {
        found.push(format!("log-limit {} -> {}", old.log_limit, new.log_limit));
    }
    let (before, now) = (&old.config.qemu, &new.config.qemu);
    if named.qemu && before != now {
        found.push(format!("QEMU {} -> {}", before.display(), now.display()));
    }
    if named.image && old.config.system != new.config.system {
        found.push("another image".to_owned());
    }
    found
}
