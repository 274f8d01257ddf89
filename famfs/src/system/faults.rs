// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Counts the kernel's DAX page faults: how many took a 2 MiB mapping, how many a 4 KiB one.
//!
//! A private tracing instance gets a histogram of the results of each of the two events
//! `fs_dax:dax_pmd_fault_done` and `fs_dax:dax_pte_fault_done`, for this thread and one file system
//! only: if the root is a DAX file system too, the program's own pages fault there. Histograms
//! count in the kernel, so no event can be lost.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use serde::Serialize;

/// Where the kernel expects the tracing file system.
const TRACEFS: &str = "/sys/kernel/tracing";

/// `VM_FAULT_RESULT_TRACE` of the kernel's include/linux/mm_types.h.
const RESULTS: [(u32, &str); 13] = [
    (0x1, "OOM"),
    (0x2, "SIGBUS"),
    (0x4, "MAJOR"),
    (0x10, "HWPOISON"),
    (0x20, "HWPOISON_LARGE"),
    (0x40, "SIGSEGV"),
    (0x100, "NOPAGE"),
    (0x200, "LOCKED"),
    (0x400, "RETRY"),
    (0x800, "FALLBACK"),
    (0x1000, "DONE_COW"),
    (0x2000, "NEEDDSYNC"),
    (0x4000, "COMPLETED"),
];

/// Numbers of faults by their result, such as `NOPAGE` for a mapping made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// 2 MiB faults.
    pub pmd: BTreeMap<String, u64>,
    /// 4 KiB faults.
    pub pte: BTreeMap<String, u64>,
}

/// Why faults cannot be counted.
#[derive(Debug, thiserror::Error)]
#[error("cannot count page faults: {action} {}", path.display())]
pub struct FaultsError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Counts from its creation until it is dropped.
#[derive(Debug)]
pub struct FaultCounter {
    instance: PathBuf,
}

impl FaultCounter {
    /// Starts counting this thread's faults in the file system of a path.
    pub fn start(path: &Path) -> Result<Self, FaultsError> {
        let device = fs::metadata(path).map_err(|err| error("examine", path, err))?.dev();
        let device = kernel_device(device);
        let instances = Path::new(TRACEFS).join("instances");
        if !instances.exists() {
            mount("tracefs", TRACEFS, "tracefs", MountFlags::empty(), None)
                .or_else(|err| if err == Errno::BUSY { Ok(()) } else { Err(err) })
                .map_err(|err| error("mount", Path::new(TRACEFS), err.into()))?;
        }
        let thread = rustix::thread::gettid().as_raw_nonzero();
        let instance = instances.join(format!("famfs-{thread}"));
        fs::create_dir(&instance).map_err(|err| error("make", &instance, err))?;
        let counter = Self { instance };
        for size in ["pmd", "pte"] {
            let path = counter.event(size).join("trigger");
            let ours = format!("common_pid == {thread} && dev == {device}");
            fs::write(&path, format!("hist:keys=result if {ours}\n"))
                .map_err(|err| error("write", &path, err))?;
        }
        Ok(counter)
    }

    /// The faults so far.
    pub fn faults(&self) -> Result<Faults, FaultsError> {
        let read = |size| {
            let path = self.event(size).join("hist");
            let text = fs::read_to_string(&path).map_err(|err| error("read", &path, err))?;
            Ok(parse_histogram(&text))
        };
        Ok(Faults { pmd: read("pmd")?, pte: read("pte")? })
    }

    fn event(&self, size: &str) -> PathBuf {
        self.instance.join(format!("events/fs_dax/dax_{size}_fault_done"))
    }
}

impl Drop for FaultCounter {
    fn drop(&mut self) {
        // The counts are read; an instance that stays is gone after the next boot.
        let _ = fs::remove_dir(&self.instance);
    }
}

fn error(action: &'static str, path: &Path, source: io::Error) -> FaultsError {
    FaultsError { action, path: path.to_owned(), source }
}

/// A device number as the kernel's events have it (MINORBITS of linux/kdev_t.h).
fn kernel_device(device: u64) -> u64 {
    const MINOR_BITS: u32 = 20;
    u64::from(rustix::fs::major(device)) << MINOR_BITS | u64::from(rustix::fs::minor(device))
}

/// Parses lines such as `{ result:        256 } hitcount:          8`.
fn parse_histogram(text: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("{ result:") else { continue };
        let Some((result, rest)) = rest.split_once('}') else { continue };
        let count = rest.trim().strip_prefix("hitcount:").map(str::trim);
        if let (Ok(result), Some(Ok(count))) = (result.trim().parse(), count.map(str::parse)) {
            counts.insert(name(result), count);
        }
    }
    counts
}

/// A result's flags as the kernel's tracing prints them.
fn name(result: u32) -> String {
    let names: Vec<&str> =
        RESULTS.iter().filter(|(bit, _)| result & bit != 0).map(|(_, name)| *name).collect();
    if names.is_empty() { "NONE".to_owned() } else { names.join("|") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_the_kernels() {
        assert_eq!(kernel_device(rustix::fs::makedev(0, 48)), 48);
        assert_eq!(kernel_device(rustix::fs::makedev(259, 300)), 259 << 20 | 300);
    }

    #[test]
    fn reads_the_kernels_histogram() {
        let text = "\
# event histogram
#
# trigger info: hist:keys=result:vals=hitcount:sort=hitcount:size=2048 [active]
#

{ result:       2048 } hitcount:          1
{ result:        256 } hitcount:         12
{ result:       4608 } hitcount:          3

Totals:
    Hits: 16
    Entries: 3
    Dropped: 0
";
        let counts = parse_histogram(text);
        let expected = [("FALLBACK", 1), ("NOPAGE", 12), ("LOCKED|DONE_COW", 3)];
        assert_eq!(counts, expected.map(|(name, n)| (name.to_owned(), n)).into());
    }
}
