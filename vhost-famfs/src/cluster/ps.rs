// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which clusters run, and the memory they use according to the host kernel.

use std::fmt;
use std::thread;
use std::time::Duration;

use famfs::system::process::Handle;
use famfs::text::units::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::FindError;
use super::directory::{Directory, DirectoryError};
use super::ends::{self, End};
use super::follow::{Followers, LeaseState, PsFamfs, Role};
use super::health::{self, Health};
use super::keep_running::LIMIT;
use super::process::Process;
use super::spec::Restart;
use super::state::{Booted, Phase, State, VmState};
use super::stopped::Stopped;
use crate::host::residency::{self, MappedFile, Usage, VmMemory};
use crate::vm::Guest;

/// How long a guest may take to report how it follows the pool.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How long its health command may take.
const HEALTH_LIMIT: Duration = Duration::from_secs(5);

/// How long a VM may take to become a member once it is up, on a busy host, before text says that
/// it has not.
const NEW: Duration = Duration::from_secs(60);

/// The access of a VM that sees only a part of the pool.
const SLICE: &str = "slice";

/// How the status of a watch that cannot do its work begins (`famfs watch`).
const CANNOT_FOLLOW: &str = "cannot follow the log";

/// The current state of a cluster.
#[derive(Debug, Serialize)]
pub struct PsReport {
    /// Its name.
    pub cluster: String,
    /// How it is.
    pub status: ClusterStatus,
    /// Its pool.
    pub pool: PsPool,
    /// The file system in the pool; `None` if the host reads none there.
    pub famfs: Option<PsFamfs>,
    /// Its VMs.
    pub vms: Vec<PsVm>,
    /// Bytes of the images that are VMs' roots, counted once: the sum of the VMs' shares.
    pub root_bytes: u64,
    /// Bytes of host memory in total: the pool once, roots once, and the RAM that guests have
    /// touched.
    pub host_bytes: u64,
}

/// The status of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterStatus {
    /// Everything runs.
    Up,
    /// A VM or a back-end has ended, or a VM is not healthy.
    Degraded,
    /// It is being started.
    Starting,
    /// Its start was interrupted; `down` removes what is left.
    Interrupted,
}

/// The pool of a cluster.
#[derive(Debug, Serialize)]
pub struct PsPool {
    /// The file or device.
    pub path: String,
    /// What it is made of.
    pub kind: String,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes of memory or storage that it uses, once for all VMs; `None` if it is gone.
    pub allocated: Option<u64>,
}

/// The current state of a VM.
#[derive(Debug, Serialize)]
pub struct PsVm {
    /// Its name.
    pub name: String,
    /// How it is.
    pub status: VmStatus,
    /// `rw`, `ro` or `slice`.
    pub access: String,
    /// `shmem` or `pmem`.
    pub transport: String,
    /// Whether the guest reported at its start that it mounted the pool.
    pub mounted: bool,
    /// Its machine UUID; `None` if an older version of this program started it.
    pub uuid: Option<Uuid>,
    /// What it may do with the file system; `None` if it sees only a part of the pool, or the host
    /// reads no file system there.
    pub role: Option<Role>,
    /// Its mount shows the log's entries below this slot; `None` if it is not a member.
    pub applied: Option<u64>,
    /// How many entries it is behind; `None` if it is not a member, or says that it has applied
    /// more than there is.
    pub behind: Option<u64>,
    /// No program there uses what the log's entries below this slot deleted; `None` if it is not a
    /// member.
    pub released: Option<u64>,
    /// The first deleted file that a program there keeps open or mapped; `None` if there is none,
    /// or it is not known.
    pub holds: Option<String>,
    /// Whether it runs with the whole pool and is not a member, so that no deleted file's memory
    /// can be given back.
    pub no_place: bool,
    /// Whether it was started a moment ago, so that it may well become a member.
    #[serde(skip)]
    pub is_new: bool,
    /// Its QEMU, while it runs.
    pub pid: Option<u32>,
    /// Its back-end, while it runs.
    pub backend_pid: Option<u32>,
    /// Bytes of the guest's RAM.
    pub ram_bytes: u64,
    /// Bytes of RAM that the guest has touched.
    pub ram_touched_bytes: u64,
    /// Bytes of the pool in its address space.
    pub pool_mapped_bytes: u64,
    /// How many of these are in its page table, because it has touched them.
    pub pool_touched_bytes: u64,
    /// Its share of these: each page is divided by the number of processes that map it.
    pub pool_share_bytes: u64,
    /// Bytes of the pool that it maps with huge pages.
    pub pool_huge_bytes: u64,
    /// The size in bytes of the pages of the pool's file on the host.
    pub pool_page_bytes: u64,
    /// Bytes of its root in memory that are in its page table; 0 if the root is on a disk.
    pub root_touched_bytes: u64,
    /// Its share of these: each page is divided by the number of processes that map it.
    pub root_share_bytes: u64,
    /// The status of the guest's watch on the pool; `None` if the guest does not report one.
    pub watch: Option<String>,
    /// Whether its health command succeeds; `None` if it has none, or the guest did not answer.
    pub health: Option<Health>,
    /// How its QEMU ended, if it ended and that was recorded.
    pub ended: Option<End>,
    /// When and how the user stopped it; `None` if nobody did.
    pub stopped: Option<Stopped>,
    /// Whether it is started again when it fails.
    pub restart: Restart,
    /// How often that was done.
    pub restarts: u32,
    /// Why that was in vain, once it is no longer tried.
    pub given_up: Option<String>,
    /// How its back-end ended, if it ended and that was recorded.
    pub backend_ended: Option<End>,
    /// What is wrong, and what to do.
    pub note: Option<&'static str>,
}

/// The status of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VmStatus {
    /// It runs.
    Running,
    /// It runs, but its back-end has ended.
    NoFlush,
    /// It has ended by itself.
    Ended,
    /// The user stopped it.
    Stopped,
    /// It is being started again.
    Starting,
    /// It has not been started yet.
    NotStarted,
}

impl VmStatus {
    fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::NoFlush => "no-flush",
            Self::Ended => "ended",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::NotStarted => "not-started",
        }
    }
}

/// Asks all running guests at once how they follow the pool, and whether they are healthy.
fn ask_guests(directory: &Directory, state: &State, vms: &mut [PsVm]) {
    thread::scope(|scope| {
        let asked = vms.iter_mut().zip(&state.vms).filter(|(vm, _)| vm.pid.is_some());
        for (vm, described) in asked {
            let mut guest = Guest::of(&directory.vm(&vm.name), described.channel);
            // One that is starting has not succeeded yet, which is no news.
            let command = described.health().filter(|_| vm.status != VmStatus::Starting);
            let follows = vm.mounted || state.emitted;
            let ask = move || {
                if follows {
                    vm.watch = guest.watch_status(PATIENCE);
                }
                let look = |command| health::look(&mut guest, command, HEALTH_LIMIT);
                vm.health = command.and_then(look);
            };
            // Without a thread there is no answer, just as from a guest that does not report.
            drop(thread::Builder::new().spawn_scoped(scope, ask));
        }
    });
}

/// Examines a cluster. Changes nothing, and takes no lock that another command waits for. A guest
/// that is busy with another command does not report how it follows the pool.
///
/// # Errors
/// The cluster has no state.
pub fn look(directory: &Directory) -> Result<PsReport, FindError> {
    let mut state = super::state_of(directory)?;
    let has_finished = |vm: &VmState| vm.starting.is_some_and(|process| !process.is_alive());
    if state.vms.iter().any(has_finished) {
        // It may have finished after the state was read.
        state = super::state_of(directory)?;
    }
    let pool = MappedFile::of(&state.pool.path).ok();
    let followers = Followers::of(&state.pool.path);
    let look_at = |vm| look_at(vm, &state, pool.as_ref(), directory);
    let mut vms: Vec<_> = state.vms.iter().map(look_at).collect();
    if state.phase == Phase::Up {
        ask_guests(directory, &state, &mut vms);
    }
    let famfs = followers.and_then(|followers| follow(followers, &mut vms));
    let allocated = residency::allocated(&state.pool.path).ok();
    let in_memory = matches!(state.pool.kind.as_str(), "tmpfs" | "hugetlbfs");
    let pool_bytes = allocated.filter(|_| in_memory).unwrap_or(0);
    let root_bytes = vms.iter().map(|vm| vm.root_share_bytes).sum();
    let ram = vms.iter().map(|vm| vm.ram_touched_bytes).sum::<u64>();
    let host_bytes = ram + pool_bytes + root_bytes;
    let status = status(&state, &vms, directory)?;
    let State { name, pool, .. } = state;
    let (path, kind, size) = (pool.path.display().to_string(), pool.kind, pool.size);
    let pool = PsPool { path, kind, size, allocated };
    Ok(PsReport { cluster: name, status, pool, famfs, vms, root_bytes, host_bytes })
}

/// Finds out who writes, and how far each VM follows.
fn follow(followers: Followers, vms: &mut [PsVm]) -> Option<PsFamfs> {
    let machines: Vec<_> = vms.iter().map(|vm| (vm.name.as_str(), vm.uuid)).collect();
    let (famfs, follows) = followers.look(&machines);
    let famfs = famfs?;
    for (vm, follows) in vms.iter_mut().zip(follows) {
        vm.role = match vm.uuid {
            Some(_) if famfs.master_vm.as_ref() == Some(&vm.name) => Some(Role::Master),
            Some(_) if vm.access != SLICE => Some(Role::Client),
            _ => None,
        };
        // What one that has ended has left is no longer how far it is.
        if let Some(follows) =
            follows.filter(|_| matches!(vm.status, VmStatus::Running | VmStatus::NoFlush))
        {
            (vm.applied, vm.behind) = (Some(follows.applied), follows.behind);
            (vm.released, vm.holds) = (Some(follows.released), follows.holds);
        }
        let runs = matches!(vm.status, VmStatus::Running | VmStatus::NoFlush);
        vm.no_place = runs && vm.role.is_some() && vm.applied.is_none();
    }
    Some(famfs)
}

fn status(state: &State, vms: &[PsVm], directory: &Directory) -> Result<ClusterStatus, FindError> {
    if state.phase == Phase::Starting {
        if state.launcher.is_alive() {
            return Ok(ClusterStatus::Starting);
        }
        // It may have finished between the two checks.
        return match directory.read() {
            Ok(Some(now)) if now.phase == Phase::Up => Ok(ClusterStatus::Up),
            Ok(_) => Ok(ClusterStatus::Interrupted),
            Err(error @ DirectoryError::State { .. }) => Err(error.into()),
            Err(_) => Ok(ClusterStatus::Interrupted),
        };
    }
    let is_fine =
        |status| !matches!(status, VmStatus::Ended | VmStatus::NoFlush | VmStatus::NotStarted);
    let is_healthy = |vm: &PsVm| vm.health.as_ref().is_none_or(|health| health.healthy);
    let fine = vms.iter().all(|vm| is_fine(vm.status) && is_healthy(vm));
    Ok(if fine { ClusterStatus::Up } else { ClusterStatus::Degraded })
}

fn look_at(vm: &VmState, state: &State, pool: Option<&MappedFile>, directory: &Directory) -> PsVm {
    let alive = |process: Option<Process>| process.and_then(|process| process.open(state.instance));
    let (qemu, backend) = (alive(vm.qemu), alive(vm.backend));
    let is_starting = vm.starting.is_some_and(Process::is_alive);
    let (status, note) = match (&vm.qemu, &qemu) {
        _ if is_starting => (VmStatus::Starting, None),
        (_, None) if vm.stopped.is_some() => (VmStatus::Stopped, None),
        (None, _) => (VmStatus::NotStarted, None),
        (Some(hidden), None) if hidden.is_hidden() => {
            (VmStatus::Running, Some("more can be seen only with the privileges of `up`"))
        }
        (Some(_), None) => (
            VmStatus::Ended,
            Some(match state.emitted {
                true => "`vhost-famfs logs` shows its last messages; other VMs are not affected",
                false => "`vhost-famfs logs` shows its last messages, `start` starts it again",
            }),
        ),
        (Some(_), Some(_)) if vm.backend.is_some() && backend.is_none() => (
            VmStatus::NoFlush,
            Some("its back-end ended: data is intact, but fsync never returns; use `restart`"),
        ),
        _ if vm.starting.is_some() => (
            VmStatus::Running,
            Some("its start was interrupted; `vhost-famfs start` begins it again"),
        ),
        _ if vm.stopped.is_some() => (
            VmStatus::Running,
            Some("it is being stopped, or that was interrupted: then use `stop` again"),
        ),
        _ => (VmStatus::Running, None),
    };
    let held = match (&qemu, pool) {
        // The process may end during the check.
        (Some(qemu), Some(pool)) => residency::of_process(qemu.pid(), pool).unwrap_or_default(),
        _ => VmMemory::default(),
    };
    let root = qemu.as_ref().and_then(|qemu| root_of(vm, qemu.pid())).unwrap_or_default();
    let record = directory.ends(&vm.name);
    let end_of = |process: Option<Process>, now: &Option<Handle>| match (process, now) {
        (Some(process), None) => ends::find(&record, process.pid),
        _ => None,
    };
    PsVm {
        name: vm.name.clone(),
        status,
        access: vm.access.clone(),
        transport: vm.transport.clone(),
        mounted: vm.booted.as_ref().is_some_and(|booted| booted.mounted),
        uuid: vm.uuid,
        role: None,
        applied: None,
        behind: None,
        released: None,
        holds: None,
        no_place: false,
        is_new: is_new(vm.qemu.and_then(Process::age), vm.booted.as_ref()),
        pid: qemu.as_ref().map(Handle::pid),
        backend_pid: backend.as_ref().map(Handle::pid),
        ram_bytes: vm.memory,
        ram_touched_bytes: held.ram.rss,
        pool_mapped_bytes: held.pool.size,
        pool_touched_bytes: held.pool.rss,
        pool_share_bytes: held.pool.pss,
        pool_huge_bytes: held.pool.huge,
        pool_page_bytes: held.pool.page_size,
        root_touched_bytes: root.rss,
        root_share_bytes: root.pss,
        watch: None,
        health: None,
        ended: end_of(vm.qemu, &qemu).filter(|_| status == VmStatus::Ended),
        stopped: vm.stopped,
        restart: vm.launch.as_ref().map(|launch| launch.restart).unwrap_or_default(),
        restarts: vm.restarts,
        given_up: vm.given_up.clone(),
        backend_ended: end_of(vm.backend, &backend),
        note,
    }
}

/// Whether a VM with a QEMU of this age came up a moment ago, or has not yet.
fn is_new(age: Option<Duration>, booted: Option<&Booted>) -> bool {
    let boot = booted.map(|booted| Duration::from_millis(booted.boot_ms));
    age.zip(boot).is_none_or(|(age, boot)| age < boot.saturating_add(NEW))
}

/// How much memory a VM uses for its root, if the root is in memory.
fn root_of(vm: &VmState, qemu: u32) -> Option<Usage> {
    let file = MappedFile::of(vm.memory_root.as_ref()?).ok()?;
    Some(residency::of_process(qemu, &file).ok()?.pool)
}

impl PsVm {
    /// The size of the pages with which the host maps the pool for this VM.
    fn pages(&self) -> &'static str {
        match (self.pool_huge_bytes, self.pool_touched_bytes) {
            (_, 0) => "-",
            (0, _) => "4K",
            _ if self.pool_page_bytes == 1 << 30 => "1G",
            // Huge pages of hugetlbfs, or those that tmpfs and file systems use where they can.
            (huge, touched) if huge >= touched => "2M",
            _ => "4K+2M",
        }
    }
}

impl PsReport {
    /// Who writes the file system, and how far its VMs follow.
    fn write_famfs(&self, f: &mut fmt::Formatter<'_>, famfs: &PsFamfs, name: usize) -> fmt::Result {
        match &famfs.master_vm {
            Some(vm) => write!(f, "\n\nmaster: {vm}")?,
            None => write!(f, "\n\nmaster: none of these VMs; the host writes (`famfs --pool`)")?,
        }
        match (famfs.lease, &famfs.lease_vm) {
            (LeaseState::Vm, Some(vm)) => write!(f, "; {vm} holds the lease")?,
            (LeaseState::Host, _) => write!(f, "; a command of the host holds the lease")?,
            (LeaseState::Other | LeaseState::Vm, _) => {
                write!(f, "; a system outside this cluster holds the lease")?;
            }
            (LeaseState::Free, _) => write!(f, "; the lease is free")?,
        }
        write!(f, "\nlog entries: {}", famfs.published)?;
        write!(f, "\n\n{:<name$} {:<7} {:>9} {:>9}", "VM", "ROLE", "APPLIED", "BEHIND")?;
        for vm in &self.vms {
            let role = vm.role.map_or("-", Role::name);
            let (applied, behind) = match (vm.applied, vm.behind) {
                (None, _) => ("-".to_owned(), "-".to_owned()),
                (Some(applied), None) => (applied.to_string(), "wrong".to_owned()),
                (Some(applied), Some(behind)) => (applied.to_string(), behind.to_string()),
            };
            write!(f, "\n{:<name$} {role:<7} {applied:>9} {behind:>9}", vm.name)?;
        }
        Ok(())
    }
}

/// Bytes as whole MiB, for columns.
fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

impl fmt::Display for PsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            ClusterStatus::Up => "up",
            ClusterStatus::Degraded => "degraded: parts of it have ended or are not healthy",
            ClusterStatus::Starting => "starting",
            ClusterStatus::Interrupted => {
                "the start was interrupted; remove it with `vhost-famfs \
                                           down`"
            }
        };
        writeln!(f, "cluster {}: {status}", self.cluster)?;
        let PsPool { path, kind, size, allocated } = &self.pool;
        let allocated = allocated.map_or("gone".to_owned(), |bytes| format!("{} used", mib(bytes)));
        writeln!(f, "pool {path}\n     {kind}, {}, {allocated}", Bytes(*size))?;
        // With the names that `up` assigns, a row has at most 80 columns.
        let name = self.vms.iter().map(|vm| vm.name.len()).max().unwrap_or(0).max(4);
        write!(
            f,
            "\n{:<name$} {:<11} {:<6} {:<5} {:>7} {:>9} {:>10} {:>10} {:>6}",
            "VM", "STATE", "ACCESS", "VIA", "PID", "RAM USED", "MAPPED", "TOUCHED", "PAGES"
        )?;
        for vm in &self.vms {
            let status = vm.status.name();
            write!(f, "\n{:<name$} {status:<11} {:<6} {:<5} ", vm.name, vm.access, vm.transport)?;
            if let Some(stopped) = vm.stopped.filter(|_| vm.status == VmStatus::Stopped) {
                write!(f, "{stopped}")?;
                continue;
            }
            if let Some(end) = vm.ended {
                // Instead of numbers that no longer exist.
                write!(f, "{end}")?;
                continue;
            }
            write!(
                f,
                "{:>7} {:>9} {:>10} {:>10} {:>6}",
                vm.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                mib(vm.ram_touched_bytes),
                mib(vm.pool_mapped_bytes),
                mib(vm.pool_touched_bytes),
                vm.pages()
            )?;
        }
        if let Some(famfs) = &self.famfs {
            self.write_famfs(f, famfs, name)?;
        }
        for vm in &self.vms {
            if let Some(watch) = vm.watch.as_ref().filter(|text| text.starts_with(CANNOT_FOLLOW)) {
                write!(f, "\n{}: {watch}; see `vhost-famfs logs {0}`", vm.name)?;
            }
            let unhealthy = vm.health.as_ref().filter(|health| !health.healthy);
            if let Some(said) = unhealthy.and_then(|health| health.said.as_ref()) {
                write!(f, "\n{}: not healthy: its health command failed: {said}", vm.name)?;
            }
            if let Some(end) = vm.backend_ended.filter(|_| vm.status == VmStatus::NoFlush) {
                write!(f, "\n{}: back-end {end}", vm.name)?;
            }
            if let Some(path) = &vm.holds {
                write!(f, "\n{}: holds {path}, which is deleted", vm.name)?;
            }
            if vm.no_place && !vm.is_new {
                let text = "no place among the members, so deleted files keep their memory";
                write!(f, "\n{}: {text}", vm.name)?;
            }
            if vm.restarts > 0 {
                write!(f, "\n{}: restarts {}", vm.name, vm.restarts)?;
            }
            if let Some(why) = &vm.given_up {
                write!(f, "\n{}: no longer started again, {LIMIT} times in vain: {why}", vm.name)?;
            }
            if let Some(note) = vm.note {
                write!(f, "\n{}: {note}", vm.name)?;
            }
        }
        let ram: u64 = self.vms.iter().map(|vm| vm.ram_touched_bytes).sum();
        write!(f, "\n\nhost memory: {}", mib(self.host_bytes))?;
        write!(f, " = pool once {}", mib(self.host_bytes - ram - self.root_bytes))?;
        if self.root_bytes > 0 {
            write!(f, " + image once {}", mib(self.root_bytes))?;
        }
        write!(f, " + guest RAM {}", mib(ram))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_is_new_until_a_minute_after_it_came_up() {
        let booted = Booted { boot_ms: 90_000, mounted: true };
        let after = |seconds| is_new(Some(Duration::from_secs(seconds)), Some(&booted));
        assert!(after(91) && after(149) && !after(151));
        assert!(is_new(Some(Duration::from_secs(3600)), None), "it is not up yet");
        let endless = Booted { boot_ms: u64::MAX, mounted: true };
        assert!(is_new(Some(Duration::from_secs(1)), Some(&endless)));
    }
}
