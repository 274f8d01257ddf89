// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ending a cluster: in order, then firmly; in the end nothing is left.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use famfs::ownership::Fault;
use serde::Serialize;
use serde_json::json;

use super::directory::{Directory, DirectoryError};
use super::process;
use super::state::{Phase, State, VmState};
use super::{FindError, VmPaths};
use crate::launch::{Guest, Qmp, QmpError};
use crate::pidfd::Handle;
use crate::pool::{self, Owners, PoolError};

/// Time for QEMU to leave when it is told to.
const QUIT_LIMIT: Duration = Duration::from_secs(5);

/// Time for a back-end to leave after its VM.
const BACKEND_LIMIT: Duration = Duration::from_secs(5);

/// Time for a guest whose back-end is gone: its unmount may wait for a flush that never ends.
const CRIPPLED_LIMIT: Duration = Duration::from_secs(10);

/// Why a cluster is not gone.
#[derive(Debug, thiserror::Error)]
pub enum DownError {
    /// It is not there, or in use.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its directory cannot be removed.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Processes do not go.
    #[error(
        "cluster {cluster}: {} cannot be killed, because the kernel waits for a device or a file \
         system for them; nothing was removed: run `vhost-famfs down {cluster}` again when they have \
         gone, or restart the host", processes(.pids)
    )]
    Stuck {
        /// The cluster.
        cluster: String,
        /// Their ids.
        pids: Vec<u32>,
    },
    /// Its pool cannot be removed.
    #[error("all VMs are down, but the pool {} cannot be removed", path.display())]
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

/// How to end a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Time for each guest to shut itself down.
    pub limit: Duration,
    /// Leave a pool that was made for the cluster.
    pub keep_pool: bool,
}

/// A cluster that is gone.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Its name.
    pub cluster: String,
    /// Its VMs.
    pub vms: Vec<VmReport>,
    /// Its pool.
    pub pool: Option<String>,
    /// Whether the pool was removed.
    pub pool_removed: bool,
    /// Processes of the cluster that nothing was known of, killed.
    pub strays: usize,
}

/// A VM that is gone.
#[derive(Debug, Serialize)]
pub struct VmReport {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub end: End,
}

/// How a VM ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The guest shut itself down.
    Orderly,
    /// The guest did not; QEMU left when it was told to.
    Quit,
    /// QEMU was killed.
    Killed,
    /// It had ended before.
    WasDead,
    /// It had not been started.
    NotStarted,
}

impl End {
    /// The word for it in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Orderly => "powered off",
            Self::Quit => "did not power off in time, ended by QEMU",
            Self::Killed => "killed",
            Self::WasDead => "had ended before",
            Self::NotStarted => "was not started",
        }
    }
}

/// Ends a cluster.
///
/// # Errors
/// It is being started or ended by another command, or something cannot be removed.
pub fn down(directory: &Directory, options: Options) -> Result<Report, DownError> {
    let gone = || FindError::NoCluster { name: directory.name().into(), others: Vec::new() };
    let _lock = directory.lock()?.ok_or_else(gone)?;
    let Some(state) = directory.read()? else {
        // A start that was cut short before anything was started.
        directory.remove()?;
        let cluster = directory.name().to_owned();
        let (vms, pool) = (Vec::new(), None);
        return Ok(Report { cluster, vms, pool, pool_removed: false, strays: 0 });
    };
    let vms = thread::scope(|scope| {
        let ends: Vec<_> = state
            .vms
            .iter()
            .map(|vm| scope.spawn(|| end(vm, &VmPaths::new(directory, &vm.name), options.limit)))
            .collect();
        ends.into_iter()
            .zip(&state.vms)
            .map(|(thread, vm)| {
                let end = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                VmReport { name: vm.name.clone(), end }
            })
            .collect()
    });
    // What was started and could not be written down any more, and what is left of what was.
    let strays = process::kill_marked(state.instance)
        .map_err(|pids| DownError::Stuck { cluster: state.name.clone(), pids })?;
    let pool_removed = remove_pool(&state, options.keep_pool)?;
    directory.remove()?;
    let pool = Some(state.pool.path.display().to_string());
    Ok(Report { cluster: state.name, vms, pool, pool_removed, strays })
}

/// Removes the pool if it is the cluster's own, or half made.
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
        // A second name does not make it another's.
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

fn end(vm: &VmState, paths: &VmPaths, limit: Duration) -> End {
    let backend = vm.backend.and_then(process::Process::open);
    let end = match (vm.qemu, vm.qemu.and_then(process::Process::open)) {
        (None, _) => End::NotStarted,
        (Some(_), None) => End::WasDead,
        (Some(_), Some(qemu)) => {
            let crippled = vm.backend.is_some() && backend.is_none();
            end_vm(&qemu, paths, if crippled { limit.min(CRIPPLED_LIMIT) } else { limit })
        }
    };
    if let Some(backend) = backend
        && !backend.wait(if end == End::NotStarted { Duration::ZERO } else { BACKEND_LIMIT })
    {
        // One that is still there is found by its mark.
        let _ = backend.end(BACKEND_LIMIT);
    }
    // It ends when nobody writes any more.
    if let Some(keeper) = vm.keeper.and_then(process::Process::open)
        && !keeper.wait(BACKEND_LIMIT)
    {
        let _ = keeper.end(BACKEND_LIMIT);
    }
    end
}

fn end_vm(qemu: &Handle, paths: &VmPaths, limit: Duration) -> End {
    // An agent that does not take the request is the case that the next steps are for.
    let begun = std::time::Instant::now();
    let _ = Guest::new(paths.agent.clone()).poweroff(limit);
    if qemu.wait(limit.saturating_sub(begun.elapsed())) {
        return End::Orderly;
    }
    let quit = Qmp::connect(&paths.qmp, QUIT_LIMIT)
        .and_then(|mut qmp| qmp.execute("quit", json!({}), QUIT_LIMIT));
    // It may be gone before it answers.
    if matches!(quit, Ok(_) | Err(QmpError::Ended { .. })) && qemu.wait(QUIT_LIMIT) {
        return End::Quit;
    }
    // One that is still there is found by its mark.
    let _ = qemu.kill();
    End::Killed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::process::Process;
    use crate::launch::host::Host;
    use crate::launch::plan::Plan;
    use crate::launch::spec::Spec;

    #[test]
    fn a_pool_goes_with_the_cluster_that_it_was_made_for() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let named = Some(dir.path().join("pool"));
        for (path, keep_pool, removed) in
            [(None, false, true), (None, true, false), (named, false, false)]
        {
            let mut spec = Spec::of_shares("lab", 1, Vec::new());
            (spec.pool.path, spec.pool.size) = (path, Some(16 << 20));
            let plan = Plan::new(&spec, &Host::for_tests(dir.path(), "image")).unwrap();
            pool::create(plan.pool.create.as_ref().unwrap(), &mut |_, _| ()).unwrap();
            let directory = Directory::new(plan.dir.parent().unwrap(), &plan.name);
            drop(directory.create().unwrap());
            let launcher = Process::of(std::process::id()).unwrap();
            let state = State::new(&plan, process::boot_id().unwrap(), launcher);
            directory.write(&State { phase: Phase::Up, ..state }).unwrap();
            let options = Options { limit: Duration::ZERO, keep_pool };
            let report = down(&directory, options).unwrap();
            assert_eq!((report.pool_removed, plan.pool.path.exists()), (removed, !removed));
            assert!(!plan.dir.exists());
        }
    }
}
