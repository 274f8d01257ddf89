// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory: where pools go, huge pages, and the limits that end a VM in the middle of its work.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use super::{Finding, Status};
use crate::units::Bytes;

const PAGE: u64 = 2 << 20;

/// All checks.
pub(super) fn examine() -> Vec<Finding> {
    vec![
        tmpfs(Path::new("/dev/shm")),
        transparent(Path::new("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
        reserved(Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB")),
        locked(),
        cgroup(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")),
    ]
}

/// Room for pools in memory.
fn tmpfs(dir: &Path) -> Finding {
    const CHECK: &str = "tmpfs";
    match rustix::fs::statvfs(dir) {
        Ok(stat) => {
            let free = Bytes(stat.f_bavail.saturating_mul(stat.f_frsize) / PAGE * PAGE);
            let found = format!("{}: {free} free for pools", dir.display());
            if free.0 >= 1 << 30 {
                return Finding::ok(CHECK, found);
            }
            let mend = format!("mount -o remount,size=8G {}", dir.display());
            Finding::with(CHECK, Status::Warning, found, mend)
        }
        Err(errno) => {
            let mend = format!("mount -t tmpfs tmpfs {}", dir.display());
            Finding::with(CHECK, Status::Warning, format!("{}: {errno}", dir.display()), mend)
        }
    }
}

/// Huge pages that tmpfs takes by itself.
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
            format!("shmem_enabled is {word}: pools in tmpfs take pages of 4 KiB"),
            format!("echo within_size > {}; or use hugetlbfs", setting.display()),
        ),
        None => Finding::with(
            CHECK,
            Status::Absent,
            "the kernel has none: pools in tmpfs take pages of 4 KiB",
            "use a pool in hugetlbfs",
        ),
    }
}

/// Huge pages that are set aside, for pools in hugetlbfs.
fn reserved(dir: &Path) -> Finding {
    const CHECK: &str = "hugetlbfs";
    let number = |name: &str| -> Option<u64> {
        fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok()
    };
    let mend = format!(
        "only needed for pools in hugetlbfs: echo 512 > {}/nr_hugepages, and mount -t hugetlbfs none /dev/hugepages",
        dir.display()
    );
    let (Some(total), Some(free)) = (number("nr_hugepages"), number("free_hugepages")) else {
        return Finding::with(CHECK, Status::Absent, "the kernel has no pages of 2 MiB", mend);
    };
    let mounts = famfs::mounts::read().unwrap_or_default();
    let mount = mounts.iter().find(|mount| mount.fs_type == "hugetlbfs");
    let place =
        mount.map_or_else(|| "not mounted".to_owned(), |m| m.mount_point.display().to_string());
    let found = format!("{free} of {total} pages of 2 MiB are free; {place}");
    if free > 0 && mount.is_some() {
        Finding::ok(CHECK, found)
    } else {
        Finding::with(CHECK, Status::Absent, found, mend)
    }
}

/// Memory that a process may lock; VFIO and `mem-lock` need as much as the VM has.
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
            "only for VFIO or -overcommit mem-lock=on: ulimit -l unlimited, LimitMEMLOCK=infinity",
        ),
    }
}

/// What the control group allows. Pages of a pool count in the group that touches them first.
fn cgroup(membership: &Path, root: &Path) -> Finding {
    const CHECK: &str = "cgroup memory";
    let text = fs::read_to_string(membership).unwrap_or_default();
    match smallest_limit(&text, root) {
        None => Finding::ok(CHECK, "no limit on the memory of this session"),
        Some((limit, file)) => Finding::with(
            CHECK,
            Status::Warning,
            format!(
                "{} holds this session to {}: a larger cluster is killed",
                file.display(),
                Bytes(limit)
            ),
            format!(
                "echo max > {}, or start in another slice (systemd-run --user --scope)",
                file.display()
            ),
        ),
    }
}

/// The least limit on the way from a process's control group to the root.
fn smallest_limit(membership: &str, root: &Path) -> Option<(u64, PathBuf)> {
    let limits = membership.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (base, name) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            "memory" => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let own = base.join(path.trim_start_matches('/'));
        let groups = own.ancestors().take_while(|dir| dir.starts_with(&base)).map(Path::to_owned);
        let limit = groups.filter_map(|dir| {
            let file = dir.join(name);
            let bytes: u64 = fs::read_to_string(&file).ok()?.trim().parse().ok()?;
            // The first version says "no limit" with the largest number of whole pages.
            (bytes < i64::MAX.unsigned_abs() / 2).then_some((bytes, file))
        });
        limit.min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_up_to_the_root_counts() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("a/b");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(smallest_limit("0::/a/b\n", dir.path()), None);
        fs::write(dir.path().join("a/memory.max"), "1073741824\n").unwrap();
        let (limit, file) = smallest_limit("0::/a/b\n", dir.path()).unwrap();
        assert_eq!((limit, file), (1 << 30, dir.path().join("a/memory.max")));
    }

    #[test]
    fn the_first_version_has_a_file_of_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("memory/x");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        let membership = "5:memory:/x\n3:cpuset:/x\n0::/\n";
        assert_eq!(smallest_limit(membership, dir.path()), None);
        fs::write(group.join("memory.limit_in_bytes"), "4096\n").unwrap();
        assert_eq!(smallest_limit(membership, dir.path()).unwrap().0, 4096);
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
