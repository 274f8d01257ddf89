// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much memory is available on the host and in this program's control groups.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Memory that is available now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Available {
    /// Number of bytes.
    pub bytes: u64,
    /// What limits them.
    pub bound: Bound,
}

/// What limits the memory of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// The host's memory and swap space.
    Host,
    /// The limit of a control group, set in this file.
    Group(PathBuf),
}

/// The memory limit of a control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The file that sets it.
    pub file: PathBuf,
    /// Bytes that the group may use.
    pub bytes: u64,
    /// How many of these are unused or reclaimable.
    pub left: u64,
}

impl Available {
    /// Examines this host and this program's control groups.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn look() -> io::Result<Self> {
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let host = of_host(&meminfo).ok_or_else(|| {
            io::Error::other("/proc/meminfo has no MemAvailable, which Linux has since 3.14")
        })?;
        let host = Self { bytes: host, bound: Bound::Host };
        let least = |least: Self, Limit { file, left: bytes, .. }: Limit| {
            if bytes < least.bytes { Self { bytes, bound: Bound::Group(file) } } else { least }
        };
        Ok(limits().into_iter().fold(host, least))
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("this host"),
            Self::Group(file) => write!(f, "the control group limited by {}", file.display()),
        }
    }
}

/// `MemAvailable` and `SwapFree` of proc_meminfo(5), in bytes: memory of guests and of tmpfs can be
/// swapped out.
fn of_host(meminfo: &str) -> Option<u64> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(field("MemAvailable")?.saturating_add(field("SwapFree").unwrap_or(0)))
}

/// The limits of this program's control groups, up to the root.
#[must_use]
pub fn limits() -> Vec<Limit> {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limits_in(&membership, Path::new("/sys/fs/cgroup"))
}

/// Like [`limits`], with the text of `/proc/PID/cgroup` (cgroups(7)) and the directory of the
/// groups.
fn limits_in(membership: &str, root: &Path) -> Vec<Limit> {
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (base, names) = match controllers {
            "" => (root.to_owned(), &VERSION_2),
            "memory" => (root.join("memory"), &VERSION_1),
            _ => return None,
        };
        let own = base.join(path.trim_start_matches('/'));
        let groups = own.ancestors().take_while(|dir| dir.starts_with(&base));
        Some(groups.filter_map(|dir| names.limit_of(dir)).collect::<Vec<_>>())
    };
    membership.lines().filter_map(of_line).flatten().collect()
}

/// File names of a control group, and the lines of `memory.stat` for cached files, which the kernel
/// reclaims when needed. Memory of a tmpfs is not among these.
struct Names {
    limit: &'static str,
    usage: &'static str,
    cached: [&'static str; 2],
}

const VERSION_1: Names = Names {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cached: ["total_inactive_file", "total_active_file"],
};

const VERSION_2: Names = Names {
    limit: "memory.max",
    usage: "memory.current",
    cached: ["inactive_file", "active_file"],
};

impl Names {
    /// `None` for a group without a limit.
    fn limit_of(&self, group: &Path) -> Option<Limit> {
        let number = |name: &str| -> Option<u64> {
            fs::read_to_string(group.join(name)).ok()?.trim().parse().ok()
        };
        // cgroups version 1 writes "no limit" as the largest number of whole pages.
        let bytes = number(self.limit).filter(|bytes| *bytes < i64::MAX.unsigned_abs() / 2)?;
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cached: u64 = stat
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(name, _)| self.cached.contains(name))
            .filter_map(|(_, value)| value.parse::<u64>().ok())
            .sum();
        let taken = number(self.usage).unwrap_or(0).saturating_sub(cached);
        let file = group.join(self.limit);
        Some(Limit { file, bytes, left: bytes.saturating_sub(taken) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_up_to_the_root_count() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("a/b");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(limits_in("0::/a/b\n", dir.path()), []);
        let file = dir.path().join("a/memory.max");
        fs::write(&file, "1073741824\n").unwrap();
        let expected = Limit { file, bytes: 1 << 30, left: 1 << 30 };
        assert_eq!(limits_in("0::/a/b\n", dir.path()), [expected]);
    }

    #[test]
    fn cached_files_are_not_taken_but_tmpfs_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("memory.max"), "1000\n").unwrap();
        fs::write(dir.path().join("memory.current"), "900\n").unwrap();
        let stat = "anon 100\nfile 500\nshmem 200\ninactive_file 250\nactive_file 50\n";
        fs::write(dir.path().join("memory.stat"), stat).unwrap();
        assert_eq!(limits_in("0::/\n", dir.path())[0].left, 400);
        fs::write(dir.path().join("memory.current"), "2000\n").unwrap();
        assert_eq!(limits_in("0::/\n", dir.path())[0].left, 0);
    }

    #[test]
    fn the_first_version_has_files_of_other_names() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("memory/x");
        fs::create_dir_all(&group).unwrap();
        let file = group.join("memory.limit_in_bytes");
        fs::write(&file, "9223372036854771712\n").unwrap();
        let membership = "5:memory:/x\n3:cpuset:/x\n0::/\n";
        assert_eq!(limits_in(membership, dir.path()), []);
        fs::write(&file, "4096\n").unwrap();
        fs::write(group.join("memory.usage_in_bytes"), "3000\n").unwrap();
        fs::write(group.join("memory.stat"), "inactive_file 1\ntotal_inactive_file 1000\n")
            .unwrap();
        assert_eq!(limits_in(membership, dir.path()), [Limit { file, bytes: 4096, left: 2096 }]);
    }

    #[test]
    fn the_host_can_swap() {
        let meminfo = "MemTotal: 9 kB\nMemAvailable:    4 kB\nSwapCached: 9 kB\nSwapFree: 3 kB\n";
        assert_eq!(of_host(meminfo), Some(7 << 10));
        assert_eq!(of_host("MemTotal: 9 kB\n"), None);
        assert!(Available::look().unwrap().bytes > 0);
    }
}
