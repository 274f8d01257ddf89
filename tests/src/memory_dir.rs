// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A directory in memory (tmpfs) for a pool.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{StatFs, statfs};
use tempfile::TempDir;

/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Creates a private directory in a tmpfs with at least `bytes` free: in `XDG_RUNTIME_DIR` if there
/// is enough space, else in /dev/shm. It is removed when the result is dropped.
pub fn memory_dir(bytes: u64) -> Result<TempDir> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places: Vec<PathBuf> = runtime.into_iter().chain(["/dev/shm".into()]).collect();
    let mut found = Vec::new();
    for place in &places {
        let free = free_memory(place);
        if free.is_some_and(|free| free >= bytes) {
            return tempfile::Builder::new()
                .prefix("vhost-famfs-")
                .tempdir_in(place)
                .with_context(|| format!("cannot make a directory in {}", place.display()));
        }
        found.push(match free {
            Some(free) => format!("{} has {} MiB free", place.display(), free >> 20),
            None => format!("{} is no tmpfs", place.display()),
        });
    }
    bail!(
        "no space for {} MiB of pool in memory: {}; free some, enlarge the tmpfs ('mount -o \
         remount,size=...'), or share less",
        bytes.div_ceil(1 << 20),
        found.join(", ")
    )
}

/// The free bytes of the tmpfs at `place`; `None` if it is not a tmpfs.
fn free_memory(place: &Path) -> Option<u64> {
    let StatFs { f_type, f_bavail, f_bsize, .. } = statfs(place).ok()?;
    let on_tmpfs = u64::try_from(f_type).is_ok_and(|t| t == TMPFS_MAGIC);
    on_tmpfs.then_some(f_bavail.saturating_mul(u64::try_from(f_bsize).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn refuses_more_than_there_is() {
        let error = super::memory_dir(u64::MAX).unwrap_err().to_string();
        assert!(error.contains("no space for"), "{error}");
    }

    #[test]
    fn directory_goes_when_dropped() {
        let dir = super::memory_dir(4096).unwrap();
        let path = dir.path().to_path_buf();
        assert!(path.is_dir());
        drop(dir);
        assert!(!path.exists());
    }
}
