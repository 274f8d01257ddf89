// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What runs, and what it costs: by the host kernel's own account.

use std::fmt;
use std::thread;
use std::time::Duration;

use famfs::system::process::Handle;
use famfs::text::units::Bytes;
use serde::Serialize;

use super::FindError;
use super::directory::{Directory, DirectoryError};
use super::ends::{self, End};
use super::process::Process;
use super::state::{Phase, State, VmState};
use crate::host::residency::{self, PoolFile, Usage, VmMemory};
use crate::vm::Guest;

/// How long a guest has time to tell how it follows the pool.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How the status of a watch begins that cannot do its work (`famfs watch`).
const CANNOT_FOLLOW: &str = "cannot follow the log";

/// A cluster now.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Its name.
    pub cluster: String,
    /// How it is.
    pub status: ClusterStatus,
    /// Its pool.
    pub pool: PoolReport,
    /// Its VMs.
    pub vms: Vec<VmReport>,
    /// Bytes of images that are the root of VMs, once for all that share them: the sum of the VMs' parts.
    pub root_bytes: u64,
    /// Bytes of host memory in all: the pool once, roots once, and the RAM that guests have touched.
    pub host_bytes: u64,
}

/// How a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterStatus {
    /// Everything runs.
    Up,
    /// A VM or a back-end has ended.
    Degraded,
    /// It is being started.
    Starting,
    /// Its start was cut short; `down` removes what is left.
    Interrupted,
}

/// The pool of a cluster.
#[derive(Debug, Serialize)]
pub struct PoolReport {
    /// The file or device.
    pub path: String,
    /// What it is made of.
    pub kind: String,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes of memory or storage that it takes, once for all VMs; `None` if it is gone.
    pub allocated: Option<u64>,
}

/// A VM now.
#[derive(Debug, Serialize)]
pub struct VmReport {
    /// Its name.
    pub name: String,
    /// How it is.
    pub status: VmStatus,
    /// `rw`, `ro` or `slice`.
    pub access: String,
    /// `shmem` or `pmem`.
    pub transport: String,
    /// Whether its start reported the pool as mounted.
    pub mounted: bool,
    /// Its QEMU, while it runs.
    pub pid: Option<u32>,
    /// Its back-end, while it runs.
    pub backend_pid: Option<u32>,
    /// Bytes of RAM that the guest has.
    pub ram_bytes: u64,
    /// Bytes of RAM that the guest has touched.
    pub ram_touched_bytes: u64,
    /// Bytes of the pool in its address space.
    pub pool_mapped_bytes: u64,
    /// Bytes of these that are in its page table: it has touched them.
    pub pool_touched_bytes: u64,
    /// Its part of these, each page divided by the number of processes that map it.
    pub pool_share_bytes: u64,
    /// Bytes of the pool that it reaches by huge pages.
    pub pool_huge_bytes: u64,
    /// Bytes of the pages that the pool's file has on the host.
    pub pool_page_bytes: u64,
    /// Bytes of its root in memory that are in its page table; 0 if the root is on a disk.
    pub root_touched_bytes: u64,
    /// Its part of these, each page divided by the number of processes that map it.
    pub root_share_bytes: u64,
    /// What the guest's watch of the pool says of itself; `None` if the guest does not tell.
    pub watch: Option<String>,
    /// How its QEMU ended, if it has and that was recorded.
    pub ended: Option<End>,
    /// How its back-end ended, likewise.
    pub backend_ended: Option<End>,
    /// What is wrong, and what to do.
    pub note: Option<&'static str>,
}

/// How a VM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VmStatus {
    /// It runs.
    Running,
    /// It runs, but its back-end has ended.
    NoFlush,
    /// It has ended.
    Ended,
    /// It was not started yet.
    NotStarted,
}

impl VmStatus {
    fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::NoFlush => "no-flush",
            Self::Ended => "ended",
            Self::NotStarted => "not-started",
        }
    }
}

/// Asks the guests that run how they follow the pool, all at once.
fn ask_guests(directory: &Directory, vms: &mut [VmReport], emitted: bool) {
    thread::scope(|scope| {
        for vm in vms.iter_mut().filter(|vm| vm.pid.is_some() && (vm.mounted || emitted)) {
            let mut guest = Guest::new(directory.vm(&vm.name).agent);
            let ask = move || vm.watch = guest.watch_status(PATIENCE);
            // Without a thread there is no answer, as from a guest that does not tell.
            drop(thread::Builder::new().spawn_scoped(scope, ask));
        }
    });
}

/// Looks at a cluster. Changes nothing, and takes no lock that another command waits for. Guests that are busy with
/// another command do not tell how they follow the pool.
///
/// # Errors
/// There is no state of it.
pub fn look(directory: &Directory) -> Result<Report, FindError> {
    let state = super::state_of(directory)?;
    let pool = PoolFile::of(&state.pool.path).ok();
    let look_at = |vm| look_at(vm, &state, pool.as_ref(), directory);
    let mut vms: Vec<_> = state.vms.iter().map(look_at).collect();
    if state.phase == Phase::Up {
        ask_guests(directory, &mut vms, state.emitted);
    }
    let allocated = residency::allocated(&state.pool.path).ok();
    let in_memory = matches!(state.pool.kind.as_str(), "tmpfs" | "hugetlbfs");
    let pool_bytes = allocated.filter(|_| in_memory).unwrap_or(0);
    let root_bytes = vms.iter().map(|vm| vm.root_share_bytes).sum();
    let ram = vms.iter().map(|vm| vm.ram_touched_bytes).sum::<u64>();
    let host_bytes = ram + pool_bytes + root_bytes;
    let status = status(&state, &vms, directory)?;
    let State { name, pool, .. } = state;
    let (path, kind, size) = (pool.path.display().to_string(), pool.kind, pool.size);
    let pool = PoolReport { path, kind, size, allocated };
    Ok(Report { cluster: name, status, pool, vms, root_bytes, host_bytes })
}

fn status(
    state: &State,
    vms: &[VmReport],
    directory: &Directory,
) -> Result<ClusterStatus, FindError> {
    if state.phase == Phase::Starting {
        if state.launcher.is_alive() {
            return Ok(ClusterStatus::Starting);
        }
        // It may have finished between the two looks.
        return match directory.read() {
            Ok(Some(now)) if now.phase == Phase::Up => Ok(ClusterStatus::Up),
            Ok(_) => Ok(ClusterStatus::Interrupted),
            Err(error @ DirectoryError::State { .. }) => Err(error.into()),
            Err(_) => Ok(ClusterStatus::Interrupted),
        };
    }
    let fine = vms.iter().all(|vm| vm.status == VmStatus::Running);
    Ok(if fine { ClusterStatus::Up } else { ClusterStatus::Degraded })
}

fn look_at(
    vm: &VmState,
    state: &State,
    pool: Option<&PoolFile>,
    directory: &Directory,
) -> VmReport {
    let alive = |process: Option<Process>| process.and_then(|process| process.open(state.instance));
    let (qemu, backend) = (alive(vm.qemu), alive(vm.backend));
    let (status, note) = match (&vm.qemu, &qemu) {
        (None, _) => (VmStatus::NotStarted, None),
        (Some(hidden), None) if hidden.is_hidden() => {
            (VmStatus::Running, Some("no more can be told without the privileges of the `up`"))
        }
        (Some(_), None) => (
            VmStatus::Ended,
            Some("`vhost-famfs logs` has its last words; the others are not affected"),
        ),
        (Some(_), Some(_)) if vm.backend.is_some() && backend.is_none() => (
            VmStatus::NoFlush,
            Some("its back-end ended: data is intact, flushes fail; power it off, no reboot"),
        ),
        _ => (VmStatus::Running, None),
    };
    let held = match (&qemu, pool) {
        // The process may end while it is looked at.
        (Some(qemu), Some(pool)) => residency::of_process(qemu.pid(), pool).unwrap_or_default(),
        _ => VmMemory::default(),
    };
    let root = qemu.as_ref().and_then(|qemu| root_of(vm, qemu.pid())).unwrap_or_default();
    let record = directory.ends(&vm.name);
    let end_of = |process: Option<Process>, now: &Option<Handle>| match (process, now) {
        (Some(process), None) => ends::find(&record, process.pid),
        _ => None,
    };
    VmReport {
        name: vm.name.clone(),
        status,
        access: vm.access.clone(),
        transport: vm.transport.clone(),
        mounted: vm.booted.as_ref().is_some_and(|booted| booted.mounted),
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
        ended: end_of(vm.qemu, &qemu),
        backend_ended: end_of(vm.backend, &backend),
        note,
    }
}

/// What a VM holds of its root in memory, if it has one.
fn root_of(vm: &VmState, qemu: u32) -> Option<Usage> {
    let file = PoolFile::of(vm.memory_root.as_ref()?).ok()?;
    Some(residency::of_process(qemu, &file).ok()?.pool)
}

impl VmReport {
    /// The size of the pages by which the host maps the pool for this VM.
    fn pages(&self) -> &'static str {
        match (self.pool_huge_bytes, self.pool_touched_bytes) {
            (_, 0) => "-",
            (0, _) => "4K",
            _ if self.pool_page_bytes == 1 << 30 => "1G",
            // Huge pages of hugetlbfs, or those that tmpfs and file systems put in where they can.
            (huge, touched) if huge >= touched => "2M",
            _ => "4K+2M",
        }
    }
}

/// Bytes in whole MiB, for columns.
fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            ClusterStatus::Up => "up",
            ClusterStatus::Degraded => "degraded: not everything runs",
            ClusterStatus::Starting => "being started",
            ClusterStatus::Interrupted => "its start was cut short; `vhost-famfs down` removes it",
        };
        writeln!(f, "cluster {}: {status}", self.cluster)?;
        let PoolReport { path, kind, size, allocated } = &self.pool;
        let allocated = allocated.map_or("gone".to_owned(), |bytes| format!("{} used", mib(bytes)));
        writeln!(f, "pool {path}\n     {kind}, {}, {allocated}", Bytes(*size))?;
        // With the names that `up` gives, a row has 80 columns at most.
        let name = self.vms.iter().map(|vm| vm.name.len()).max().unwrap_or(0).max(4);
        write!(
            f,
            "\n{:<name$} {:<11} {:<6} {:<5} {:>7} {:>9} {:>10} {:>10} {:>6}",
            "VM", "STATE", "ACCESS", "VIA", "PID", "RAM USED", "MAPPED", "TOUCHED", "PAGES"
        )?;
        for vm in &self.vms {
            let status = vm.status.name();
            write!(f, "\n{:<name$} {status:<11} {:<6} {:<5} ", vm.name, vm.access, vm.transport)?;
            if let Some(end) = vm.ended {
                // In place of numbers that it no longer has.
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
        for vm in &self.vms {
            if let Some(watch) = vm.watch.as_ref().filter(|text| text.starts_with(CANNOT_FOLLOW)) {
                write!(f, "\n{}: {watch}; see `vhost-famfs logs {0}`", vm.name)?;
            }
            if let Some(end) = vm.backend_ended.filter(|_| vm.status == VmStatus::NoFlush) {
                write!(f, "\n{}: back-end {end}", vm.name)?;
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
