// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which processes of this system have a file open or mapped, from /proc. What may not be looked
//! at (other users' processes, for those without privileges) is not seen.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process that has a file open or mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name, as the kernel keeps it.
    pub name: String,
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

/// The other processes that have a file open or mapped.
pub fn of(file: &Path) -> io::Result<Vec<Process>> {
    let wanted = fs::metadata(file)?;
    let is_it = |path: &Path| {
        fs::metadata(path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
    };
    let mut holders = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let has = |dir: &str| {
            let links = fs::read_dir(entry.path().join(dir)).into_iter().flatten().flatten();
            links.map(|link| link.path()).any(|link| is_it(&link))
        };
        if pid != std::process::id() && (has("fd") || has("map_files")) {
            holders.push(named(pid));
        }
    }
    Ok(holders)
}

/// A process with its name.
pub fn named(pid: u32) -> Process {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Process { pid, name: name.trim().to_owned() }
}

/// The process that holds the flock of a file, by the kernel's list of locks.
pub fn of_lock(device: u64, inode: u64) -> Option<Process> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let wanted = format!("{major:02x}:{minor:02x}:{inode}");
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // "1: FLOCK  ADVISORY  WRITE 1234 00:2d:42 0 EOF"; waiters have "->" as second field.
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, _, pid, file, ..] if file == wanted => pid.parse().ok().map(named),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn another_process_with_the_file_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // A program that another test starts just now has it for a moment, too.
        let expect = |expected: &[u32]| {
            let end = Instant::now() + Duration::from_secs(60);
            loop {
                let found = of(file.path()).unwrap();
                let pids: Vec<_> = found.iter().map(|process| process.pid).collect();
                if pids == expected {
                    return;
                }
                assert!(Instant::now() < end, "{found:?}, expected {expected:?}");
            }
        };
        // This process does not count.
        expect(&[]);
        let input = fs::File::open(file.path()).unwrap();
        rustix::fs::flock(&input, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let metadata = input.metadata().unwrap();
        let mine = of_lock(metadata.dev(), metadata.ino()).unwrap();
        assert_eq!(mine.pid, std::process::id());
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::from(input)).spawn().unwrap();
        expect(&[child.id()]);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
