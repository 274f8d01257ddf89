// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starts a VM again when it fails. One process for each VM with `restart = "on-failure"` waits for
//! the end of its QEMU. It ends when the user stops the VM, when the guest powers itself off, when
//! the cluster is gone, or when starting the VM is in vain.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::directory::Directory;
use super::ends::{self, End};
use super::life::{LifeError, change, own_vm};
use super::process::Process;
use super::state::VmState;
use crate::vm::VmPaths;

/// How often in a row a VM is started again.
pub const LIMIT: u32 = 5;

/// How long to wait before the first time; each next pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A VM that ran so long has not failed in a row.
const LONG: Duration = Duration::from_secs(300);

/// How long to wait for the kernel to tell how QEMU ended.
const TOLD: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(50);

/// How much of the console's end is searched for a panic.
const SEARCHED: u64 = 64 * 1024;

/// What the kernel of a guest says before a panic ends it (kernel/panic.c).
const PANIC: &[u8] = b"Kernel panic - not syncing";

/// Longest reason that is kept.
const MAX_REASON: usize = 400;

/// Keeps a VM of a cluster running; `program` is this program, and each start has `limit`.
///
/// # Errors
/// The state of the cluster cannot be read or written.
pub fn keep_running(
    directory: &Directory,
    name: &str,
    program: &Path,
    limit: Duration,
) -> Result<(), LifeError> {
    let me = Process::of(std::process::id()).map_err(LifeError::This)?;
    let mut failures = 0;
    let mut reason = String::new();
    let mut instance = None;
    loop {
        let Some(state) = directory.read()? else { return Ok(()) };
        let is_same = instance.is_none_or(|instance: Uuid| instance == state.instance);
        instance = Some(state.instance);
        let Some(vm) = state.vms.iter().find(|vm| vm.name == name && is_same) else {
            return Ok(());
        };
        if vm.stopped.is_some() || is_others(vm, me) {
            return Ok(());
        }
        if vm.starting.is_some_and(Process::is_alive) {
            thread::sleep(TICK);
            continue;
        }
        if let Some(qemu) = vm.qemu.and_then(|qemu| qemu.open(state.instance)) {
            let begun = Instant::now();
            while !qemu.wait(LONG) {}
            if begun.elapsed() >= LONG {
                failures = 0;
            }
            continue;
        }
        let paths = directory.vm(name);
        if vm.qemu.is_some_and(|qemu| is_orderly(directory, name, &paths, qemu.pid)) {
            return Ok(());
        }
        if failures == LIMIT {
            return change(directory, instance, |state| {
                own_vm(state, name)?.given_up = Some(reason);
                Ok(())
            });
        }
        thread::sleep(FIRST_PAUSE * 2_u32.pow(failures));
        failures += 1;
        match start_again(directory, instance, name, (program, limit)) {
            Ok(()) => reason = "it ends soon after each start".to_owned(),
            Err(why) => reason = why,
        }
    }
}

/// Whether another process has taken over.
fn is_others(vm: &VmState, me: Process) -> bool {
    vm.supervisor.is_some_and(|other| other != me && other.is_alive())
}

/// Starts the VM by another process, so that QEMU is not a child of this one, which would have to
/// reap it.
fn start_again(
    directory: &Directory,
    instance: Option<Uuid>,
    name: &str,
    (program, limit): (&Path, Duration),
) -> Result<(), String> {
    let counted = change(directory, instance, |state| {
        let vm = own_vm(state, name)?;
        // The user may have been faster meanwhile.
        if vm.stopped.is_none() && !vm.qemu.is_some_and(Process::is_alive) {
            vm.restarts += 1;
            return Ok(true);
        }
        Ok(false)
    });
    match counted {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        Err(error) => return Err(error.to_string()),
    }
    let mut command = Command::new(program);
    let seconds = limit.as_secs().to_string();
    let words = ["start", "--cluster", directory.name(), "--timeout", &seconds, name];
    command.args(words).stdin(Stdio::null());
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().next().unwrap_or_default().chars().take(MAX_REASON).collect())
}

/// Whether the guest powered itself off, or QEMU was told to quit. An end of which nothing is known
/// is a failure.
fn is_orderly(directory: &Directory, name: &str, paths: &VmPaths, pid: u32) -> bool {
    let limit = Instant::now() + TOLD;
    loop {
        let end = ends::find(&directory.ends(name), pid);
        match end {
            // QEMU also ends so after a panic, because it may not reboot.
            Some(End { exit_code: Some(code), .. }) => {
                return code == 0 && !panicked(&paths.console_log).unwrap_or(false);
            }
            Some(End { signal: Some(_), .. }) => return false,
            _ if Instant::now() > limit => return false,
            _ => thread::sleep(TICK),
        }
    }
}

/// Whether the end of a console's log tells of a panic.
fn panicked(log: &Path) -> io::Result<bool> {
    let mut file = File::open(log)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(SEARCHED)))?;
    let mut end = Vec::new();
    file.take(SEARCHED).read_to_end(&mut end)?;
    Ok(end.windows(PANIC.len()).any(|part| part == PANIC))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_panic_at_the_end_of_the_console_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert!(panicked(&log).is_err());
        fs::write(&log, "reboot: Power down\r\n").unwrap();
        assert!(!panicked(&log).unwrap());
        let text = "x".repeat(100_000) + "[1.0] Kernel panic - not syncing: Fatal exception\r\n";
        fs::write(&log, &text).unwrap();
        assert!(panicked(&log).unwrap());
        fs::write(&log, text + &"x".repeat(100_000)).unwrap();
        assert!(!panicked(&log).unwrap(), "that was long before its end");
    }
}
