// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Stops a cluster: first orderly, then by force. Afterwards nothing of it remains.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use famfs::system::ownership::Fault;
use famfs::system::process::Handle;
use serde::Serialize;
use uuid::Uuid;

use super::FindError;
use super::directory::{Directory, DirectoryError};
use super::kept_logs;
use super::order::waves;
use super::process::{self, Process};
use super::root_devices::{self, DriverError};
use super::state::{Phase, State, VmState};
use super::stopped::End;
use crate::pool::{self, Owners, PoolError};
use crate::vm::{Channel, Ending, Guest, VmPaths, end_vm, quit_by_qmp};

/// How long a back-end may take to end after its VM.
const BACKEND_LIMIT: Duration = Duration::from_secs(5);

/// How long a guest without a back-end may take: its unmount may wait for a flush that never
/// completes.
const CRIPPLED_LIMIT: Duration = Duration::from_secs(10);

/// Why a cluster could not be stopped.
#[derive(Debug, thiserror::Error)]
pub enum DownError {
    /// It does not exist, or is in use.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its directory cannot be removed.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Its processes do not end.
    #[error(
        "cluster {cluster}: {} cannot be killed, because the kernel waits for a device or a file \
         system on their behalf; nothing was removed: run `vhost-famfs down {cluster}` again when \
         they are gone, or reboot the host", processes(.pids)
    )]
    Stuck {
        /// The cluster.
        cluster: String,
        /// Their ids.
        pids: Vec<u32>,
    },
    /// Processes that may belong to it cannot be examined.
    #[error(
        "cluster {cluster}: cannot read the environment of {}, which tells whether a process \
         belongs to the cluster; nothing was stopped or removed: run `vhost-famfs down {cluster}` \
         with the privileges of `up`, or with CAP_SYS_PTRACE", processes(.pids)
    )]
    Hidden {
        /// The cluster.
        cluster: String,
        /// Their ids.
        pids: Vec<u32>,
    },
    /// A root device stays.
    #[error(
        "cluster {cluster}: cannot remove a root device of its VMs; nothing else was removed: use \
         `vhost-famfs ublk del --force`, and `vhost-famfs down {cluster}` again"
    )]
    RootDevice {
        /// The cluster.
        cluster: String,
        /// Why not.
        #[source]
        source: DriverError,
    },
    /// Its pool cannot be removed.
    #[error("all VMs are stopped, but the pool {} cannot be removed", path.display())]
    Pool {
        /// The pool.
        path: PathBuf,
        /// The cause.
        #[source]
        source: PoolError,
    },
}

fn processes(pids: &[u32]) -> String {
    let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    if pids.len() == 1 { format!("process {list}") } else { format!("processes {list}") }
}

/// How to stop a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long each guest may take to shut down.
    pub limit: Duration,
    /// Keep a pool that was made for the cluster.
    pub keep_pool: bool,
    /// Also a cluster whose state cannot be read.
    pub force: bool,
}

/// A stopped cluster.
#[derive(Debug, Serialize)]
pub struct DownReport {
    /// Its name.
    pub cluster: String,
    /// Its VMs.
    pub vms: Vec<DownVm>,
    /// Its pool.
    pub pool: Option<String>,
    /// Whether the pool was removed.
    pub pool_removed: bool,
    /// Where its logs are, until the next start with its name.
    pub logs: Option<String>,
    /// Number of processes of the cluster that were not in its state, and were killed.
    pub strays: usize,
}

/// A stopped VM.
#[derive(Debug, Serialize)]
pub struct DownVm {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub end: End,
}

/// Stops a cluster.
///
/// # Errors
/// Another command is starting or stopping it, or something cannot be removed.
pub fn down(directory: &Directory, options: Options) -> Result<DownReport, DownError> {
    let gone = || FindError::NoCluster { name: directory.name().into(), others: Vec::new() };
    let _lock = directory.lock()?.ok_or_else(gone)?;
    let hidden = |pids: Vec<u32>| match pids.is_empty() {
        true => Ok(()),
        false => Err(DownError::Hidden { cluster: directory.name().to_owned(), pids }),
    };
    // This includes processes that no state names.
    hidden(process::hidden_in(directory.path()))?;
    let state = match directory.read() {
        Err(DirectoryError::State { .. }) if options.force => return by_force(directory),
        state => state?,
    };
    let Some(state) = state else {
        // A start that was interrupted before any process was started.
        directory.remove()?;
        let cluster = directory.name().to_owned();
        let (vms, pool) = (Vec::new(), None);
        return Ok(DownReport { cluster, vms, pool, pool_removed: false, logs: None, strays: 0 });
    };
    let recorded = state.vms.iter().flat_map(|vm| [vm.qemu, vm.backend, vm.keeper]).flatten();
    let denied = recorded.filter(|process| process.is_hidden());
    hidden(denied.map(|process| process.pid).collect())?;
    // Whoever would start VMs again goes first.
    for supervisor in state.vms.iter().filter_map(|vm| vm.supervisor?.open(state.instance)) {
        // If it is still running, it is found by its mark.
        let _ = supervisor.signal(rustix::process::Signal::KILL);
    }
    let vms = end_all(directory, &state, options.limit);
    remove_devices(directory, state.instance)?;
    // Processes that were started but not recorded, and what remains of the others.
    let strays = process::kill_marked(state.instance)
        .map_err(|pids| DownError::Stuck { cluster: state.name.clone(), pids })?;
    let pool_removed = remove_pool(&state, options.keep_pool)?;
    let logs = state.vms.iter().flat_map(|vm| directory.vm(&vm.name).logs());
    let logs: Vec<_> = logs.collect();
    // Logs that cannot be kept are no reason to keep the cluster.
    let logs = kept_logs::keep(directory.base(), directory.name(), &logs).ok().flatten();
    let logs = logs.map(|logs| logs.display().to_string());
    directory.remove()?;
    let pool = Some(state.pool.path.display().to_string());
    Ok(DownReport { cluster: state.name, vms, pool, pool_removed, logs, strays })
}

fn remove_devices(directory: &Directory, instance: Uuid) -> Result<(), DownError> {
    let cluster = directory.name().to_owned();
    root_devices::remove_all(instance, directory.path())
        .map_err(|source| DownError::RootDevice { cluster, source })
}

/// Ends all VMs: those that depend on others before these.
fn end_all(directory: &Directory, state: &State, limit: Duration) -> Vec<DownVm> {
    let vms: Vec<_> = state.vms.iter().map(|vm| (vm.name.as_str(), vm.depends_on())).collect();
    // A circle has no order.
    let waves = waves(&vms).unwrap_or_else(|_| vec![(0..vms.len()).collect()]);
    let mut ended = Vec::new();
    for wave in waves.into_iter().rev() {
        thread::scope(|scope| {
            let begin = |index: usize| {
                let vm = &state.vms[index];
                (index, scope.spawn(|| end(state, vm, &directory.vm(&vm.name), limit)))
            };
            let ends: Vec<_> = wave.into_iter().map(begin).collect();
            for (index, thread) in ends {
                let end = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                ended.push((index, DownVm { name: state.vms[index].name.clone(), end }));
            }
        });
    }
    ended.sort_by_key(|(index, _)| *index);
    ended.into_iter().map(|(_, vm)| vm).collect()
}

/// Stops a cluster whose state cannot be read: kills all processes with its mark. Its pool is kept.
fn by_force(directory: &Directory) -> Result<DownReport, DownError> {
    let cluster = directory.name().to_owned();
    let mut instances = process::marks_in(directory.path());
    instances.extend(directory.instance());
    let mut strays = 0;
    for instance in instances {
        remove_devices(directory, instance)?;
        strays += process::kill_marked(instance)
            .map_err(|pids| DownError::Stuck { cluster: cluster.clone(), pids })?;
    }
    directory.remove()?;
    let (vms, pool) = (Vec::new(), None);
    Ok(DownReport { cluster, vms, pool, pool_removed: false, logs: None, strays })
}

/// Removes the pool if it was made for the cluster, or is only half made.
fn remove_pool(state: &State, keep: bool) -> Result<bool, DownError> {
    let path = &state.pool.path;
    let is_made =
        |uuid| pool::form(path, Owners::Trusted).is_ok_and(|form| form.uuid == Some(uuid));
    let half_made = state.phase == Phase::Starting && state.pool.made.is_some_and(is_made);
    if !(half_made || state.pool.ours && !keep) {
        return Ok(false);
    }
    let removed = match pool::open_for(path, false, Owners::Trusted, None) {
        Err(PoolError::Missing(_)) => return Ok(false),
        // A pool with a second name still belongs to the cluster.
        Err(PoolError::Foreign { fault: Fault::Names { .. }, .. }) => {
            pool::open_for(path, false, Owners::Any, None)
        }
        opened => opened,
    };
    removed
        .and_then(|file| pool::unlink(path, &file))
        .map(|()| true)
        .map_err(|source| DownError::Pool { path: path.clone(), source })
}

/// Stops a VM, its back-end and its keeper.
pub(super) fn end(state: &State, vm: &VmState, paths: &VmPaths, limit: Duration) -> End {
    let open = |process: Option<Process>| process.and_then(|process| process.open(state.instance));
    let backend = open(vm.backend);
    let end = match (vm.qemu, open(vm.qemu)) {
        (None, _) if vm.stopped.is_some() => End::WasStopped,
        (None, _) => End::NotStarted,
        (Some(_), None) => End::WasDead,
        (Some(_), Some(qemu)) => {
            let crippled = vm.backend.is_some() && backend.is_none();
            let limit = if crippled { limit.min(CRIPPLED_LIMIT) } else { limit };
            end_vm(&Recorded { qemu: &qemu, paths, channel: vm.channel }, limit).into()
        }
    };
    if let Some(backend) = backend
        && !backend.wait(if matches!(end, End::NotStarted | End::WasStopped) {
            Duration::ZERO
        } else {
            BACKEND_LIMIT
        })
    {
        // If it is still running, it is found by its mark.
        let _ = backend.end(BACKEND_LIMIT);
    }
    // Nobody will read how they ended.
    if let Some(keeper) = open(vm.keeper) {
        let _ = keeper.end(BACKEND_LIMIT);
    }
    end
}

/// A VM that another process started.
struct Recorded<'v> {
    qemu: &'v Handle,
    paths: &'v VmPaths,
    channel: Channel,
}

impl Ending for Recorded<'_> {
    fn ask(&self, limit: Duration) {
        let _ = Guest::of(self.paths, self.channel).poweroff(limit);
    }

    fn ended(&self, limit: Duration) -> bool {
        self.qemu.wait(limit)
    }

    fn quit(&self) -> bool {
        match self.channel {
            Channel::Ports => quit_by_qmp(&self.paths.qmp),
            // VMMs other than QEMU end in order at this signal.
            Channel::Vsock => self.qemu.signal(rustix::process::Signal::TERM).is_ok(),
        }
    }

    fn kill(&self) {
        // If it is still running, it is found by its mark.
        let _ = self.qemu.kill();
    }
}

#[cfg(test)]
mod tests {
    use famfs::system::process::boot_id;

    use super::*;
    use crate::cluster::host::Host;
    use crate::cluster::plan::ClusterPlan;
    use crate::cluster::spec::Spec;

    #[test]
    fn a_pool_goes_with_the_cluster_that_it_was_made_for() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let named = Some(dir.path().join("pool"));
        for (path, keep_pool, removed) in
            [(None, false, true), (None, true, false), (named, false, false)]
        {
            let mut spec = Spec::of_shares("lab", 1, Vec::new());
            (spec.pool.path, spec.pool.size) = (path, Some(16 << 20));
            let plan = ClusterPlan::new(&spec, &Host::for_tests(dir.path(), "image")).unwrap();
            pool::create(plan.pool.create.as_ref().unwrap(), &mut |_, _| ()).unwrap();
            let directory = Directory::new(plan.dir.parent().unwrap(), &plan.name);
            drop(directory.create(plan.instance).unwrap());
            let launcher = Process::of(std::process::id()).unwrap();
            let state = State::new(&plan, boot_id().unwrap().to_string(), launcher);
            directory.write(&State { phase: Phase::Up, ..state }).unwrap();
            let options = Options { limit: Duration::ZERO, keep_pool, force: false };
            let report = down(&directory, options).unwrap();
            assert_eq!((report.pool_removed, plan.pool.path.exists()), (removed, !removed));
            assert!(!plan.dir.exists());
        }
    }

    fn cluster(dir: &std::path::Path) -> (Directory, State) {
        let mut spec = Spec::of_shares("lab", 1, Vec::new());
        spec.pool.size = Some(16 << 20);
        let plan = ClusterPlan::new(&spec, &Host::for_tests(dir, "image")).unwrap();
        let directory = Directory::new(plan.dir.parent().unwrap(), &plan.name);
        drop(directory.create(plan.instance).unwrap());
        let launcher = Process::of(std::process::id()).unwrap();
        (directory, State::new(&plan, boot_id().unwrap().to_string(), launcher))
    }

    const OPTIONS: Options = Options { limit: Duration::ZERO, keep_pool: false, force: false };

    #[test]
    fn a_process_without_the_mark_and_a_file_elsewhere_are_left_alone() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let (directory, mut state) = cluster(dir.path());
        let mut command = std::process::Command::new("sleep");
        let mut victim = command.arg("60").spawn().unwrap();
        state.phase = Phase::Up;
        state.vms[0].qemu = Some(Process::of(victim.id()).unwrap());
        state.pool.ours = false;
        directory.write(&state).unwrap();
        let report = down(&directory, OPTIONS).unwrap();
        assert_eq!(report.vms[0].end, End::WasDead);
        assert!(victim.try_wait().unwrap().is_none(), "the process was killed");
        victim.kill().unwrap();
        victim.wait().unwrap();
        let precious = dir.path().join("precious");
        std::fs::write(&precious, "x").unwrap();
        let (directory, mut state) = cluster(dir.path());
        (state.pool.ours, state.pool.path) = (true, precious.clone());
        directory.write(&state).unwrap();
        let error = down(&directory, OPTIONS).unwrap_err().to_string();
        assert!(error.contains("precious is not a pool that is made for this cluster"), "{error}");
        assert!(precious.exists());
    }

    #[test]
    fn a_damaged_cluster_is_ended_by_force() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let (directory, state) = cluster(dir.path());
        let mut command = std::process::Command::new("sleep");
        command.arg("60").env(process::MARK, state.instance.to_string());
        let mut child = command.spawn().unwrap();
        std::fs::write(directory.path().join("state.json"), "{").unwrap();
        let error = down(&directory, OPTIONS).unwrap_err().to_string();
        assert!(error.contains("down --force lab"), "{error}");
        let report = down(&directory, Options { force: true, ..OPTIONS }).unwrap();
        assert_eq!(report.strays, 1);
        assert!(!directory.path().exists());
        child.wait().unwrap();
        // A directory in place of the state does not prevent it.
        let (directory, _) = cluster(dir.path());
        std::fs::create_dir(directory.path().join("state.json")).unwrap();
        let error = down(&directory, OPTIONS).unwrap_err().to_string();
        assert!(error.contains("is a directory") && error.contains("--force lab"), "{error}");
        down(&directory, Options { force: true, ..OPTIONS }).unwrap();
        assert!(!directory.path().exists());
        // Without the mark, the processes are found by their command lines.
        let (directory, state) = cluster(dir.path());
        let mut command = std::process::Command::new("cat");
        command.arg("-").arg(directory.path().join("vm1.console"));
        command.env(process::MARK, state.instance.to_string());
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        std::fs::write(directory.path().join("state.json"), "{").unwrap();
        std::fs::remove_file(directory.path().join("instance")).unwrap();
        let report = down(&directory, Options { force: true, ..OPTIONS }).unwrap();
        assert_eq!(report.strays, 1);
        child.wait().unwrap();
    }
}
