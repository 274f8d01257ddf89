// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Stops VMs of a cluster; the others keep running.

use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::directory::Directory;
use super::down;
use super::life::{LifeError, change, clear, own_vm};
use super::process::Process;
use super::state::{State, VmState};
use super::stopped::{End, Stopped};

/// The stopped VMs.
#[derive(Debug, Serialize)]
pub struct StopReport {
    /// The cluster.
    pub cluster: String,
    /// The VMs.
    pub vms: Vec<StopVm>,
}

/// A stopped VM.
#[derive(Debug, Serialize)]
pub struct StopVm {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub end: End,
}

/// Stops VMs: their guests have `limit` to shut down.
///
/// # Errors
/// Nothing is stopped if one of the names is wrong. Otherwise the first failure; the other VMs are
/// stopped.
pub fn stop(
    directory: &Directory,
    names: &[String],
    limit: Duration,
) -> Result<StopReport, LifeError> {
    // The request is recorded first, so that nobody takes the end for a failure.
    let state = change(directory, None, |state| {
        for name in names {
            own_vm(state, name)?;
        }
        let instance = state.instance;
        for vm in state.vms.iter_mut().filter(|vm| names.contains(&vm.name)) {
            // Whoever starts it sees that another command has taken over.
            vm.starting = None;
            let is_alive = |qemu: Process| qemu.open(instance).is_some();
            if vm.qemu.is_some_and(|qemu| vm.stopped.is_none() || is_alive(qemu)) {
                vm.stopped = Some(Stopped::now(None));
            }
        }
        Ok(state.clone())
    })?;
    let vms: Vec<&VmState> = state.vms.iter().filter(|vm| names.contains(&vm.name)).collect();
    let stop_one = |vm| stop_vm(directory, &state, vm, limit);
    let results = thread::scope(|scope| {
        let threads: Vec<_> = vms.iter().map(|vm| scope.spawn(|| stop_one(*vm))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect::<Vec<_>>()
    });
    let vms = results.into_iter().collect::<Result<_, _>>()?;
    Ok(StopReport { cluster: state.name, vms })
}

fn stop_vm(
    directory: &Directory,
    state: &State,
    vm: &VmState,
    limit: Duration,
) -> Result<StopVm, LifeError> {
    let paths = directory.vm(&vm.name);
    // Whoever would start it again goes first.
    if let Some(supervisor) = vm.supervisor.and_then(|process| process.open(state.instance)) {
        let _ = supervisor.kill();
    }
    let end = down::end(state, vm, &paths, limit);
    clear(state.instance, &vm.name, &paths)?;
    change(directory, Some(state.instance), |now| {
        let now = own_vm(now, &vm.name)?;
        // Another command may have started it again.
        if now.qemu == vm.qemu && now.starting.is_none() {
            // Also if it had failed: the user does not want it to run.
            if end != End::WasStopped {
                now.stopped = Some(Stopped::now(Some(end)));
            }
            now.qemu = None;
            (now.backend, now.keeper, now.supervisor) = (None, None, None);
        }
        Ok(())
    })?;
    Ok(StopVm { name: vm.name.clone(), end })
}
