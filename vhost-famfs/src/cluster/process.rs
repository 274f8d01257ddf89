// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes that are not our children, identified so that no other process can be mistaken for
//! them.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use famfs::system::process::{self, Handle};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::vm::VmPaths;

/// Environment variable in all processes of a cluster. Its value identifies the start.
pub const MARK: &str = "VHOST_FAMFS_CLUSTER_INSTANCE";

/// A process. Its id and start time together identify it for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it started: clock ticks since the host booted (proc_pid_stat(5), field 22).
    pub start_ticks: u64,
}

impl Process {
    /// A process that has ended: no process has this id.
    pub const NONE: Self = Self { pid: 0, start_ticks: 0 };

    /// The process that has this id now.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, start_ticks: start_ticks(pid)? })
    }

    /// Opens it, if it has the mark of its cluster; `None` if it has ended.
    #[must_use]
    pub fn open(self, instance: Uuid) -> Option<Handle> {
        self.handle().filter(|_| is_marked(self.pid, instance)).filter(Handle::is_alive)
    }

    /// How long ago it started; `None` if the kernel does not tell.
    #[must_use]
    pub fn age(self) -> Option<Duration> {
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let now: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
        let started = Duration::from_secs(self.start_ticks)
            .checked_div(u32::try_from(rustix::param::clock_ticks_per_second()).ok()?)?;
        Some(Duration::try_from_secs_f64(now).ok()?.saturating_sub(started))
    }

    fn handle(self) -> Option<Handle> {
        let handle = Handle::open(self.pid).ok()?;
        // Compare after opening the handle: from here on, the handle refers to that process.
        let same = start_ticks(self.pid).is_ok_and(|ticks| ticks == self.start_ticks);
        (same && handle.is_alive()).then_some(handle)
    }

    /// Whether it still runs, but this program may not read its mark.
    #[must_use]
    pub fn is_hidden(self) -> bool {
        self.is_alive() && is_denied(self.pid)
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(self) -> bool {
        self.handle().is_some()
    }
}

/// Field of `/proc/PID/stat` with a process's start time (proc_pid_stat(5)).
const START_TIME: usize = 22;
/// Field with the address of a program's code. When a process starts a new program, its environment
/// is set before this address: until then its `/proc/PID/environ` is empty (`load_elf_binary` in
/// the kernel's fs/binfmt_elf.c).
const START_CODE: usize = 26;

/// The start time of a process.
fn start_ticks(pid: u32) -> io::Result<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    stat_field(&stat, START_TIME)
        .ok_or_else(|| io::Error::other(format!("cannot read /proc/{pid}/stat")))
}

/// A number from `/proc/PID/stat`; fields count from 1. The name in field 2 is in parentheses and
/// may contain anything.
fn stat_field(stat: &[u8], field: usize) -> Option<u64> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(&stat[after_name..]).ok()?;
    rest.split_ascii_whitespace().nth(field.checked_sub(3)?)?.parse().ok()
}

/// Whether a process has a cluster's mark in its environment.
fn is_marked(pid: u32, instance: Uuid) -> bool {
    let wanted = format!("{MARK}={instance}");
    let environment = environment(pid).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|word| word == wanted.as_bytes())
}

/// The marks of the processes whose command lines name something in a directory. This finds the
/// processes of a cluster whose own mark is lost.
#[must_use]
pub fn marks_in(directory: &Path) -> HashSet<Uuid> {
    let prefix = format!("{MARK}=");
    let mark = |pid: u32| {
        let environment = environment(pid).unwrap_or_default();
        let mut words = environment.split(|byte| *byte == 0);
        let mark = words.find_map(|word| word.strip_prefix(prefix.as_bytes()))?;
        Uuid::try_parse_ascii(mark).ok()
    };
    // In this order: a process that is starting its program has a command line by the time it has
    // an environment.
    pids()
        .filter_map(|pid| Some((pid, mark(pid)?)))
        .filter(|(pid, _)| names(*pid, directory))
        .map(|(_, mark)| mark)
        .collect()
}

/// Whether the command line of a process names something in a directory.
fn names(pid: u32, directory: &Path) -> bool {
    has_in_line(pid, directory, b'/')
}

/// Whether the command line of a process has a path, followed by this character.
fn has_in_line(pid: u32, path: &Path, next: u8) -> bool {
    let wanted = [path.as_os_str().as_bytes(), &[next]].concat();
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.windows(wanted.len()).any(|part| part == wanted)
}

/// All living processes of a VM: those with its cluster's mark whose command lines name its sockets
/// or logs. Names of VMs have no dot.
#[must_use]
pub fn of_vm(instance: Uuid, paths: &VmPaths) -> Vec<Handle> {
    let names = |pid| b"/.".iter().any(|next| has_in_line(pid, &paths.runtime_dir, *next));
    marked(instance).into_iter().filter(|handle| names(handle.pid())).collect()
}

/// As root: the processes whose command lines name something in a directory but that may not be
/// examined. Other users can examine all of their own processes.
#[must_use]
pub fn hidden_in(directory: &Path) -> Vec<u32> {
    if !rustix::process::geteuid().is_root() {
        return Vec::new();
    }
    pids().filter(|pid| names(*pid, directory) && is_denied(*pid)).collect()
}

fn is_denied(pid: u32) -> bool {
    environment(pid).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The environment of a process, even while it is starting its program.
fn environment(pid: u32) -> io::Result<Vec<u8>> {
    let end = Instant::now() + EXEC_TIME;
    loop {
        // Ask before reading: if the program starts in between, its environment can be read.
        let is_in_exec = is_in_exec(pid);
        let environment = fs::read(format!("/proc/{pid}/environ"))?;
        if !environment.is_empty() || !is_in_exec || Instant::now() > end {
            return Ok(environment);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// How long a process may take to start its program.
const EXEC_TIME: Duration = Duration::from_secs(2);

/// Whether a process is starting its program: the old one is gone, and the new one may not have its
/// environment yet. Kernel threads and ended processes have no program.
fn is_in_exec(pid: u32) -> bool {
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    fs::read_link(format!("/proc/{pid}/exe")).is_ok() && stat_field(&stat, START_CODE) == Some(0)
}

/// All living processes with a cluster's mark.
#[must_use]
pub fn marked(instance: Uuid) -> Vec<Handle> {
    pids()
        .filter_map(|pid| {
            let handle = Handle::open(pid).ok()?;
            (is_marked(pid, instance) && handle.is_alive()).then_some(handle)
        })
        .collect()
}

/// The ids of all other processes; none if /proc is missing.
fn pids() -> impl Iterator<Item = u32> {
    process::others().into_iter().flatten()
}

/// Kills every process with a cluster's mark, including new ones that appear meanwhile. Returns how
/// many there were.
///
/// # Errors
/// The ids of those that are still there some time after they were killed.
pub fn kill_marked(instance: Uuid) -> Result<usize, Vec<u32>> {
    kill_found(|| marked(instance))
}

/// Kills all processes that are found, including new ones that appear meanwhile. Returns how many
/// there were.
///
/// # Errors
/// As [`kill_marked`].
pub fn kill_found(find: impl Fn() -> Vec<Handle>) -> Result<usize, Vec<u32>> {
    let mut count = 0;
    loop {
        let found = find();
        if found.is_empty() {
            return Ok(count);
        }
        count += found.len();
        for handle in &found {
            // Processes that may not be killed are still there later.
            let _ = handle.signal(Signal::KILL);
        }
        // All share one deadline.
        let stuck = thread::scope(|scope| {
            let waits: Vec<_> =
                found.iter().map(|one| (one.pid(), scope.spawn(|| one.kill()))).collect();
            let gone = |wait: thread::ScopedJoinHandle<'_, bool>| wait.join().unwrap_or(false);
            waits.into_iter().filter_map(|(pid, wait)| (!gone(wait)).then_some(pid)).collect()
        });
        let stuck: Vec<u32> = stuck;
        if !stuck.is_empty() {
            return Err(stuck);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::{CapabilitySet, CapabilitySets};
    use std::os::unix::fs::MetadataExt;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_gets_older() {
        let process = Process::of(std::process::id()).unwrap();
        let age = process.age().unwrap();
        thread::sleep(Duration::from_millis(30));
        let later = process.age().unwrap();
        assert!(age < later && later < Duration::from_secs(86_400), "{age:?} {later:?}");
        assert!(Process::NONE.age().unwrap() >= later, "as old as the host");
    }

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let stat = b"7 (a) 1 (b) S 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 1 2 3";
        assert_eq!(stat_field(stat, START_TIME), Some(4711));
        assert_eq!(stat_field(b"7 (a) S 1", START_TIME), None);
        assert_eq!(stat_field(b"", START_TIME), None);
    }

    #[test]
    fn a_process_that_starts_its_program_has_its_mark() {
        let instance = Uuid::new_v4();
        for _ in 0..500 {
            let mut command = Command::new("sleep");
            let mut child = command.arg("60").env(MARK, instance.to_string()).spawn().unwrap();
            let handle = Process::of(child.id()).unwrap().open(instance);
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(handle.is_some());
        }
    }

    #[test]
    fn a_process_is_not_confused_with_a_later_one_of_its_id() {
        let mut command = Command::new("sleep");
        let mut child =
            command.arg("60").env(MARK, Uuid::from_u128(1).to_string()).spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        let other = Process { start_ticks: process.start_ticks + 1, ..process };
        assert!(process.is_alive() && !other.is_alive());
        let (instance, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert!(process.open(other).is_none(), "it does not belong to that cluster");
        assert!(process.open(instance).unwrap().kill());
        assert!(!process.is_alive(), "a process that was not reaped has ended");
        child.wait().unwrap();
        assert!(!process.is_alive());
    }

    #[test]
    fn a_process_that_may_not_be_looked_at_is_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("cat");
        let mut child =
            command.arg("-").arg(dir.path().join("x")).stdin(Stdio::piped()).spawn().unwrap();
        let (pid, path) = (child.id(), dir.path().to_owned());
        // It has its arguments only once its program has started.
        let end = Instant::now() + Duration::from_secs(60);
        while !names(pid, &path) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        // Applies to this thread only.
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        let hidden = thread::spawn(move || {
            rustix::thread::set_capabilities(None, sets).unwrap();
            (Process::of(1).unwrap().is_hidden(), hidden_in(&path))
        });
        // In a container, the first process may belong to this user.
        let first = fs::metadata("/proc/1").unwrap().uid();
        let user = rustix::process::geteuid();
        let expected = if user.is_root() { vec![pid] } else { Vec::new() };
        assert_eq!(hidden.join().unwrap(), (first != user.as_raw() || first == 0, expected));
        assert!(hidden_in(dir.path()).is_empty());
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn marked_processes_are_found_and_ended() {
        let instance = Uuid::new_v4();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & sleep 60; :"]).env(MARK, instance.to_string());
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while marked(instance).len() < 3 && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(kill_marked(instance), Ok(3));
        assert!(marked(instance).is_empty());
        child.wait().unwrap();
    }
}
