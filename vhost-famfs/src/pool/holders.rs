// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds out who has a pool open or mapped, from /proc (proc_pid_fd(5), proc_pid_maps(5)).

use std::fs;
use std::ops::Range;
use std::path::Path;

use famfs::system::holders::NamedProcess;
use famfs::system::{holders, process};
use serde::Serialize;

use super::kind::Identity;
use crate::host::residency::{self, MappedFile};

/// A process that uses a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Name of its program.
    pub command: String,
    /// Whether it has a descriptor of the pool.
    pub open: bool,
    /// Bytes of the pool in its address space.
    pub mapped: u64,
    /// How many of these are in memory and in its page table.
    pub resident: u64,
    /// How many of these it maps with huge pages.
    pub huge: u64,
}

/// The processes that use the pool at `path`, except this one. Only root sees the descriptors of
/// other users' processes. A process that ends meanwhile is omitted.
pub(super) fn find(path: &Path, identity: Identity) -> Vec<Holder> {
    let Ok(processes) = process::others() else { return Vec::new() };
    let pool = MappedFile::of(path).ok();
    let mut holders: Vec<_> =
        processes.filter_map(|pid| holder(pid, identity, pool.as_ref())).collect();
    holders.sort_by_key(|holder| holder.pid);
    holders
}

fn holder(pid: u32, identity: Identity, pool: Option<&MappedFile>) -> Option<Holder> {
    let open = holders::has_open(pid, |meta| Identity::from_metadata(meta) == identity);
    // For the full figures, the kernel has to walk the page table.
    let usage = if maps(pid, identity) {
        residency::of_process(pid, pool?).ok()?.pool
    } else {
        residency::Usage::default()
    };
    (open || usage.size > 0).then(|| Holder {
        pid,
        command: holders::named(pid).name.unwrap_or_default(),
        open,
        mapped: usage.size,
        resident: usage.rss,
        huge: usage.huge,
    })
}

/// The processes that map a part of the pool which begins between two offsets in it.
pub(super) fn of_part(identity: Identity, part: &Range<u64>) -> Vec<NamedProcess> {
    let Ok(processes) = process::others() else { return Vec::new() };
    let maps_it = |pid: &u32| {
        let table = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
        // Some file systems (btrfs) show another device here than to stat(2).
        let is_open = || holders::has_open(*pid, |meta| Identity::from_metadata(meta) == identity);
        let table = String::from_utf8_lossy(&table);
        table.lines().any(|line| is_of_part(line, identity, part, is_open))
    };
    processes.filter(maps_it).map(holders::named).collect()
}

/// Whether a line of proc_pid_maps(5) is about a mapping that begins in a part of the pool. The
/// device may be another one if the process has the pool open.
fn is_of_part(
    line: &str,
    identity: Identity,
    part: &Range<u64>,
    is_open: impl Fn() -> bool,
) -> bool {
    let mut words = line.split_ascii_whitespace().skip(2);
    let [offset, device, inode] = [(); 3].map(|()| words.next());
    let offset = offset.and_then(|offset| u64::from_str_radix(offset, 16).ok());
    let (major, minor) = (rustix::fs::major(identity.dev), rustix::fs::minor(identity.dev));
    inode == Some(identity.ino.to_string().as_str())
        && offset.is_some_and(|offset| part.contains(&offset))
        && (device == Some(format!("{major:02x}:{minor:02x}").as_str()) || is_open())
}

/// Whether a mapping of the process has the pool's inode number.
fn maps(pid: u32, identity: Identity) -> bool {
    let inode = identity.ino.to_string();
    let table = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    String::from_utf8_lossy(&table)
        .lines()
        .any(|line| line.split_ascii_whitespace().nth(4) == Some(inode.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    #[test]
    fn a_mapping_of_a_part_is_told_by_device_inode_and_offset() {
        let of = |device, inode| Identity { dev: rustix::fs::makedev(0, device), ino: inode };
        let line = "7f00-7f80 rw-s 00200000 00:1b 4711                /dev/shm/a pool";
        let is_it = |identity, part, open| is_of_part(line, identity, &part, || open);
        assert!(is_it(of(0x1b, 4711), 0x10_0000..0x30_0000, false));
        assert!(!is_it(of(0x1b, 4711), 0..0x20_0000, true));
        assert!(!is_it(of(0x1b, 471), 0..0x30_0000, true));
        assert!(!is_it(of(0x1c, 4711), 0..0x30_0000, false), "a file of another file system");
        assert!(is_it(of(0x1c, 4711), 0..0x30_0000, true));
    }

    #[test]
    fn finds_a_process_that_has_the_file_open() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let identity = Identity::of(file.as_file()).unwrap();
        // A program that another test is just starting also has it for a moment.
        let find_so_many = |count| {
            let end = Instant::now() + Duration::from_secs(60);
            loop {
                let holders = find(file.path(), identity);
                if holders.len() == count {
                    return holders;
                }
                assert!(Instant::now() < end, "{holders:?}, expected {count}");
            }
        };
        // This process does not count.
        find_so_many(0);
        let input = fs::File::open(file.path()).unwrap();
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::from(input)).spawn().unwrap();
        let holders = find_so_many(1);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((holders[0].pid, holders[0].open, holders[0].mapped), (child.id(), true, 0));
    }
}
