// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The memory that VMs use, according to the host kernel: /proc/PID/smaps (proc(5)) and the blocks
//! of the pool file.
//!
//! A page counts fully in the RSS of every process that maps it, and in equal shares in their PSS.
//! With N VMs that map one pool, the sum of their RSS is N times the pool; the sum of their PSS is
//! the pool once.

use std::fs;
use std::io;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Name that QEMU's `memory-backend-memfd` gives to guest RAM.
const RAM_MAPPING: &str = "/memfd:memory-backend-memfd (deleted)";

/// Memory of some mappings of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Address space.
    pub size: u64,
    /// Resident pages.
    pub rss: u64,
    /// Resident pages, each divided by the number of processes that map it.
    pub pss: u64,
    /// Pages of shared memory mapped as huge pages (`ShmemPmdMapped`, `FilePmdMapped`, hugetlb).
    pub huge: u64,
    /// The page size of the file (`KernelPageSize`); for a tmpfs, the size of its pages that are
    /// not huge.
    pub page_size: u64,
}

/// Memory of a VM's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VmMemory {
    /// The guest's RAM.
    pub ram: Usage,
    /// The pool.
    pub pool: Usage,
}

/// A process or pool cannot be examined.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct MemoryError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// A pool file as the mappings of processes show it: device and inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedFile {
    device: (u32, u32),
    inode: u64,
}

impl MappedFile {
    /// The file at a path.
    ///
    /// # Errors
    /// It cannot be examined.
    pub fn of(path: &Path) -> Result<Self, MemoryError> {
        let metadata = metadata(path)?;
        let device = metadata.st_dev();
        Ok(Self {
            device: (rustix::fs::major(device), rustix::fs::minor(device)),
            inode: metadata.st_ino(),
        })
    }
}

/// Bytes of host memory (or disk) that a pool file occupies, no matter who maps it.
///
/// # Errors
/// It cannot be examined.
pub fn allocated(pool: &Path) -> Result<u64, MemoryError> {
    Ok(metadata(pool)?.st_blocks() * 512)
}

/// The memory of a QEMU process: its RAM, and its part of a pool.
///
/// # Errors
/// The process is gone or belongs to someone else.
pub fn of_process(pid: u32, pool: &MappedFile) -> Result<VmMemory, MemoryError> {
    let path = PathBuf::from(format!("/proc/{pid}/smaps"));
    // Names of mapped files are arbitrary bytes.
    let smaps = fs::read(&path).map_err(|source| MemoryError { path, source })?;
    Ok(parse(&String::from_utf8_lossy(&smaps), pool))
}

fn metadata(path: &Path) -> Result<fs::Metadata, MemoryError> {
    fs::metadata(path).map_err(|source| MemoryError { path: path.into(), source })
}

/// What a mapping counts as.
#[derive(Clone, Copy)]
enum Owner {
    Ram,
    Pool,
    Other,
}

fn parse(smaps: &str, pool: &MappedFile) -> VmMemory {
    let mut memory = VmMemory::default();
    let mut owner = Owner::Other;
    for line in smaps.lines() {
        let Some((key, value)) = line.split_once(": ").and_then(|(key, rest)| {
            let kib = rest.trim_start().strip_suffix(" kB")?.parse::<u64>().ok()?;
            Some((key, kib * 1024))
        }) else {
            owner = mapping_owner(line, pool).unwrap_or(owner);
            continue;
        };
        let usage = match owner {
            Owner::Ram => &mut memory.ram,
            Owner::Pool => &mut memory.pool,
            Owner::Other => continue,
        };
        match key {
            "Size" => usage.size += value,
            "Rss" => usage.rss += value,
            "Pss" => usage.pss += value,
            // hugetlbfs pages are in none of the other counts.
            "Shared_Hugetlb" | "Private_Hugetlb" => {
                usage.rss += value;
                usage.huge += value;
            }
            "ShmemPmdMapped" | "FilePmdMapped" => usage.huge += value,
            "KernelPageSize" => usage.page_size = value,
            _ => {}
        }
    }
    memory
}

/// What a mapping counts as; `None` if the line is not the first of a mapping.
///
/// Such a line is `start-end perms offset major:minor inode path`, the device in hexadecimal.
fn mapping_owner(line: &str, pool: &MappedFile) -> Option<Owner> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    u64::from_str_radix(start, 16).ok()?;
    u64::from_str_radix(end, 16).ok()?;
    let (major, minor) = words.nth(2)?.split_once(':')?;
    let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let inode = words.next()?.parse::<u64>().ok()?;
    let path = words.next().unwrap_or_default().trim_start();
    Some(if device == pool.device && inode == pool.inode {
        Owner::Pool
    } else if path == RAM_MAPPING {
        Owner::Ram
    } else {
        Owner::Other
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f0000000000-7f0020000000 rw-s 00000000 00:01 77                         /memfd:memory-backend-memfd (deleted)
Size:             524288 kB
KernelPageSize:        4 kB
Rss:              131072 kB
Pss:              131072 kB
ShmemPmdMapped:        0 kB
VmFlags: rd wr sh mr mw me ms sd
7f0020000000-7f0030000000 rw-s 00000000 00:1a 42                         /dev/shm/a pool: 1
Size:             262144 kB
KernelPageSize:        4 kB
Rss:              262144 kB
Pss:               87381 kB
ShmemPmdMapped:   262144 kB
7f0030000000-7f0030200000 rw-s 00000000 00:1a 43                         /dev/shm/other
Size:               2048 kB
Rss:                2048 kB
7f0040000000-7f0040021000 rw-p 00000000 00:00 0
Size:                132 kB
Rss:                   8 kB
";

    #[test]
    fn ram_and_pool_are_told_apart() {
        let pool = MappedFile { device: (0, 0x1a), inode: 42 };
        let kib = 1024;
        let expected = VmMemory {
            ram: Usage {
                size: 524_288 * kib,
                rss: 131_072 * kib,
                pss: 131_072 * kib,
                huge: 0,
                page_size: 4 * kib,
            },
            pool: Usage {
                size: 262_144 * kib,
                rss: 262_144 * kib,
                pss: 87_381 * kib,
                huge: 262_144 * kib,
                page_size: 4 * kib,
            },
        };
        assert_eq!(parse(SMAPS, &pool), expected);
        assert_eq!(parse("", &pool), VmMemory::default());
    }

    #[test]
    fn this_process_can_be_read() {
        let program = std::env::current_exe().unwrap();
        let memory = of_process(std::process::id(), &MappedFile::of(&program).unwrap()).unwrap();
        assert!(memory.pool.rss > 0, "the program's own file is mapped: {memory:?}");
        assert!(allocated(&program).unwrap() > 0);
    }
}
