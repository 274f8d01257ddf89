// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Carries out a [`Change`] of a running cluster, up to the point where VMs can be started.

use std::fs;
use std::io;
use std::time::Duration;

use super::change::{Action, Change, ChangeError};
use super::directory::Directory;
use super::life::{LifeError, change};
use super::process::Process;
use super::state::{State, VmState};
use super::stop::{StopReport, stop};

/// A change of a cluster in progress. While it lives, no other `up` changes the cluster.
#[derive(Debug)]
pub struct Applied<'c> {
    directory: &'c Directory,
    change: &'c Change,
    me: Process,
}

impl<'c> Applied<'c> {
    /// Reserves the cluster, if nobody has changed it since the change was planned.
    ///
    /// # Errors
    /// Another command changes it, or has done so.
    pub fn new(directory: &'c Directory, change: &'c Change) -> Result<Self, ChangeError> {
        let me = Process::of(std::process::id()).map_err(LifeError::This)?;
        let busy = self::change(directory, Some(change.state.instance), |state| {
            match state.changing.filter(|other| other.is_alive()) {
                Some(other) => return Ok(Some(other.pid)),
                None => state.changing = Some(me),
            }
            let described = |state: &State| {
                let vms = state.vms.iter();
                vms.map(|vm| (vm.name.clone(), vm.asked.clone())).collect::<Vec<_>>()
            };
            match described(state) == described(&change.state) {
                true => Ok(None),
                false => Err(LifeError::Changed(state.name.clone())),
            }
        })?;
        match busy {
            Some(pid) => Err(ChangeError::Busy { cluster: change.state.name.clone(), pid }),
            None => Ok(Self { directory, change, me }),
        }
    }

    /// Stops what is not to run, or not as it does; `limit` is for guests to shut down. Then the
    /// cluster has the VMs that are asked for.
    ///
    /// # Errors
    /// A VM cannot be stopped, or another command started it meanwhile.
    pub fn stop(&self, limit: Duration) -> Result<StopReport, LifeError> {
        // Also what has ended: a process may still wait to start it as it was.
        let known = |name: &String| self.change.state.vms.iter().any(|vm| vm.name == *name);
        let changed = self.change.names(&[Action::Stop, Action::Restart, Action::Start]);
        let stopped: Vec<_> = changed.into_iter().filter(known).collect();
        let report = stop(self.directory, &stopped, limit)?;
        // Before the cluster forgets them: whoever repeats this after a kill removes them again.
        for name in self.change.names(&[Action::Stop]) {
            remove_files(self.directory, &name)?;
        }
        self.describe()?;
        Ok(report)
    }

    /// Writes the VMs that are asked for into the state.
    fn describe(&self) -> Result<(), LifeError> {
        let plan = &self.change.plan;
        change(self.directory, Some(self.change.state.instance), |state| {
            let kept = self.change.names(&[Action::Keep]);
            let is_alive =
                |vm: &&VmState| [vm.qemu, vm.starting].into_iter().flatten().any(Process::is_alive);
            if let Some(vm) = state.vms.iter().filter(is_alive).find(|vm| !kept.contains(&vm.name))
            {
                return Err(LifeError::Meanwhile(vm.name.clone()));
            }
            let before = std::mem::take(&mut state.vms);
            let mut before = before.into_iter().map(Some).collect::<Vec<_>>();
            for vm in &plan.vms {
                let is_it = |old: &&mut Option<VmState>| {
                    old.as_ref().is_some_and(|old| old.name == vm.name())
                };
                let old = before.iter_mut().find(is_it).and_then(Option::take);
                let old = old.filter(|old| kept.contains(&old.name));
                let new = VmState::new(plan, vm);
                state.vms.push(match old {
                    Some(old) => VmState { asked: new.asked, ..old },
                    None => new,
                });
            }
            Ok(())
        })
    }
}

impl Drop for Applied<'_> {
    /// If it cannot be written, the next command sees that this process has ended.
    fn drop(&mut self) {
        let _ = change(self.directory, Some(self.change.state.instance), |state| {
            if state.changing == Some(self.me) {
                state.changing = None;
            }
            Ok(())
        });
    }
}

/// Removes the logs of a VM that is gone. Names of VMs have no dot and are not those of the
/// cluster's files, so what begins with its name and one is its own.
fn remove_files(directory: &Directory, name: &str) -> Result<(), LifeError> {
    let failed = |source| LifeError::Sockets { vm: name.to_owned(), source };
    let prefix = format!("{name}.");
    for entry in fs::read_dir(directory.path()).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
    }
    Ok(())
}
