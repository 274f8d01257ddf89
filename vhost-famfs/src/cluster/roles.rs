// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds the processes of an emitted cluster: each has the cluster's mark and its role in its
//! environment.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use uuid::Uuid;

use super::emit::{ROLE, backend_role, qemu_role};
use super::process::{self, Process};
use super::spec::Transport;
use super::state::State;
use crate::vm::VmPaths;

/// Fills in the processes of an emitted cluster that are running or have run.
pub(super) fn find(state: &mut State, directory: &Path) {
    let found = roles(state.instance);
    for vm in &mut state.vms {
        // QEMU creates the log of its console when it starts.
        let ran = VmPaths::new(&vm.name, directory, directory).console_log.exists();
        vm.qemu = found.get(&qemu_role(&vm.name)).copied().or(ran.then_some(Process::NONE));
        let backend = found.get(&backend_role(&vm.name)).copied();
        let has_one = vm.transport == Transport::Shmem.name();
        vm.backend = backend.or((ran && has_one).then_some(Process::NONE));
    }
}

/// The processes with a cluster's mark, by role; if there are several, the first.
fn roles(instance: Uuid) -> HashMap<String, Process> {
    let mut roles: HashMap<String, Process> = HashMap::new();
    for handle in process::marked(instance) {
        let Some((role, process)) = role_of(handle.pid()) else { continue };
        let first = roles.entry(role).or_insert(process);
        if (process.start_ticks, process.pid) < (first.start_ticks, first.pid) {
            *first = process;
        }
    }
    roles
}

fn role_of(pid: u32) -> Option<(String, Process)> {
    let process = Process::of(pid).ok()?;
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{ROLE}=");
    let role = environment.split(|byte| *byte == 0).find_map(|word| {
        let text = std::str::from_utf8(word).ok()?;
        text.strip_prefix(&prefix)
    });
    Some((role?.to_owned(), process))
}
