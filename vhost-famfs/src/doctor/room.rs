// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory: the places for pools, huge pages, and limits that could kill a running VM.

use std::fs;
use std::path::Path;

use famfs::text::units::Bytes;
use rustix::process::{Resource, getrlimit};

use super::{Finding, Status};
use crate::host::memory::{self, Available, Limit};

const PAGE: u64 = 2 << 20;

/// RAM and pool of the smallest cluster that `up` starts by default.
const ONE_VM: u64 = (1 << 30) + (256 << 20);

/// All checks.
pub(super) fn examine() -> Vec<Finding> {
    vec![
        available(),
        tmpfs(Path::new("/dev/shm")),
        transparent(Path::new("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
        reserved(Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB")),
        locked(),
        cgroup(&memory::limits()),
    ]
}

/// Free memory for pools in tmpfs.
fn tmpfs(dir: &Path) -> Finding {
    const CHECK: &str = "tmpfs";
    match rustix::fs::statvfs(dir) {
        Ok(stat) => {
            let free = Bytes(stat.f_bavail.saturating_mul(stat.f_frsize) / PAGE * PAGE);
            let found = format!("{}: {free} free for pools", dir.display());
            if free.0 >= 1 << 30 {
                return Finding::ok(CHECK, found);
            }
            let fix = format!("mount -o remount,size=8G {}", dir.display());
            Finding::with(CHECK, Status::Warning, found, fix)
        }
        Err(errno) => {
            let fix = format!("mount -t tmpfs tmpfs {}", dir.display());
            Finding::with(CHECK, Status::Warning, format!("{}: {errno}", dir.display()), fix)
        }
    }
}

/// Huge pages that tmpfs allocates by itself.
fn transparent(setting: &Path) -> Finding {
    const CHECK: &str = "huge tmpfs pages";
    let text = fs::read_to_string(setting).unwrap_or_default();
    let chosen =
        text.split_ascii_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    match chosen {
        Some(word @ ("always" | "within_size" | "force")) => {
            Finding::ok(CHECK, format!("shmem_enabled is {word}"))
        }
        Some(word) => Finding::with(
            CHECK,
            Status::Absent,
            format!("shmem_enabled is {word}: pools in tmpfs use 4 KiB pages"),
            format!("echo within_size > {}; or use hugetlbfs", setting.display()),
        ),
        None => Finding::with(
            CHECK,
            Status::Absent,
            "the kernel does not support them: pools in tmpfs use 4 KiB pages",
            "create pools in hugetlbfs",
        ),
    }
}

/// Huge pages that are reserved for pools in hugetlbfs.
fn reserved(dir: &Path) -> Finding {
    const CHECK: &str = "hugetlbfs";
    let number = |name: &str| -> Option<u64> {
        fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok()
    };
    let fix = format!(
        "only needed for pools in hugetlbfs: echo 512 > {}/nr_hugepages, and mount -t hugetlbfs none /dev/hugepages",
        dir.display()
    );
    let (Some(total), Some(free)) = (number("nr_hugepages"), number("free_hugepages")) else {
        return Finding::with(CHECK, Status::Absent, "the kernel has no 2 MiB pages", fix);
    };
    let mounts = famfs::system::mounts::read().unwrap_or_default();
    let mount = mounts.iter().find(|mount| mount.fs_type == "hugetlbfs");
    let place =
        mount.map_or_else(|| "not mounted".to_owned(), |m| m.mount_point.display().to_string());
    let found = format!("{free} of {total} pages of 2 MiB are free; {place}");
    if free > 0 && mount.is_some() {
        Finding::ok(CHECK, found)
    } else {
        Finding::with(CHECK, Status::Absent, found, fix)
    }
}

/// Memory that a process may lock; VFIO and `mem-lock` lock all of a VM's memory.
fn locked() -> Finding {
    const CHECK: &str = "locked memory";
    match getrlimit(Resource::Memlock).current {
        None => Finding::ok(CHECK, "no limit (RLIMIT_MEMLOCK)"),
        Some(limit) => Finding::with(
            CHECK,
            Status::Absent,
            format!(
                "at most {} (RLIMIT_MEMLOCK): enough unless VMs lock their memory",
                Bytes(limit)
            ),
            "only needed for VFIO or -overcommit mem-lock=on: ulimit -l unlimited, \
             LimitMEMLOCK=infinity",
        ),
    }
}

/// Memory that is available for VMs and pools now.
fn available() -> Finding {
    const CHECK: &str = "memory";
    match Available::look() {
        Ok(Available { bytes, bound }) => {
            let found = format!("{} available for VMs and pools: {bound}", whole(bytes));
            if bytes >= ONE_VM {
                return Finding::ok(CHECK, found);
            }
            let fix = "stop programs that use memory, or add swap space: each VM takes 1 GiB \
                        unless its cluster file says less";
            Finding::with(CHECK, Status::Warning, found, fix)
        }
        Err(error) => {
            let fix = "mount -t proc proc /proc";
            Finding::with(CHECK, Status::Warning, error.to_string(), fix)
        }
    }
}

/// The control group's limit. A page of a pool counts in the group that touches it first.
fn cgroup(limits: &[Limit]) -> Finding {
    const CHECK: &str = "cgroup memory";
    match limits.iter().min_by_key(|limit| limit.left) {
        None => Finding::ok(CHECK, "no limit on the memory of this session"),
        Some(Limit { file, bytes, left }) => Finding::with(
            CHECK,
            Status::Warning,
            format!(
                "{} limits this session to {}, with {} left: `up` refuses a larger cluster",
                file.display(),
                Bytes(*bytes),
                whole(*left)
            ),
            format!(
                "echo max > {}, or start clusters in another slice (systemd-run --user --scope)",
                file.display()
            ),
        ),
    }
}

/// Rounded to whole MiB.
fn whole(bytes: u64) -> Bytes {
    Bytes(bytes & !((1 << 20) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_with_the_least_left_is_told() {
        assert_eq!(cgroup(&[]).status, Status::Ok);
        let limit =
            |file: &str, left: u64| Limit { file: file.into(), bytes: 8 << 30, left: left + 4096 };
        let finding = cgroup(&[limit("/a/memory.max", 2 << 30), limit("/memory.max", 1 << 30)]);
        let expected = "/memory.max limits this session to 8 GiB, with 1 GiB left: `up` refuses a \
                        larger cluster";
        assert_eq!((finding.status, finding.found.as_str()), (Status::Warning, expected));
    }

    #[test]
    fn the_chosen_word_is_in_brackets() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "always within_size advise [never] deny force\n").unwrap();
        let finding = transparent(file.path());
        assert!(finding.found.starts_with("shmem_enabled is never"), "{finding:?}");
        fs::write(file.path(), "always [within_size] advise never deny force\n").unwrap();
        assert_eq!(transparent(file.path()).status, Status::Ok);
    }
}
