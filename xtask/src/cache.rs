// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The cache directory: one builder at a time, and no build without enough space.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vm_tests::interrupt;

/// Pause between two attempts to lock.
const PAUSE: Duration = Duration::from_millis(100);

/// Keeps two builds of the same thing from running at once; held until dropped.
pub fn lock(cache: &Path, name: &str) -> Result<File> {
    let path = cache.join(name);
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    wait(&path, || file.try_lock())?;
    Ok(file)
}

/// Tries to lock until it works, so that Ctrl-C ends the wait.
fn wait(path: &Path, try_lock: impl Fn() -> Result<(), TryLockError>) -> Result<()> {
    let mut reported = false;
    loop {
        match try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        interrupt::check()?;
        if !reported {
            eprintln!("Waiting for another run, which uses {} ...", path.display());
            reported = true;
        }
        thread::sleep(PAUSE);
    }
}

/// A directory of the cache that other runs must not remove.
pub type Held = Arc<File>;

/// Holds a directory of the cache until the last copy of the result is dropped. `None` if the
/// directory does not exist.
pub fn hold(dir: &Path) -> Result<Option<Held>> {
    let held = match File::open(dir) {
        Ok(held) => held,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", dir.display())),
    };
    wait(dir, || held.try_lock_shared())?;
    // Another run may have removed it before it was locked.
    Ok(dir.is_dir().then(|| held.into()))
}

/// Refuses to begin `what` if it needs more space than is free.
pub fn check_space(cache: &Path, what: &str, bytes: u64) -> Result<()> {
    let free = rustix::fs::statvfs(cache)
        .with_context(|| format!("cannot examine {}", cache.display()))?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    ensure!(
        free >= bytes,
        "no space for {what}: {} has {} MiB free, but {} MiB are needed; free some, or set \
         XDG_CACHE_HOME to another place",
        cache.display(),
        free >> 20,
        bytes >> 20
    );
    Ok(())
}

/// Removes the directories of the cache that begin with `prefix`, except `keep` and those that
/// another run holds; those are removed next time.
pub fn remove_others(cache: &Path, prefix: &str, keep: &[&Path]) -> Result<()> {
    for entry in fs::read_dir(cache).with_context(|| format!("cannot list {}", cache.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", cache.display()))?.path();
        let ours = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix));
        if ours && path.is_dir() && !keep.contains(&path.as_path()) {
            // Files that belong to a directory have its name and an extension.
            let whole = path.with_extension("");
            let whole = if whole.is_dir() { whole } else { path.clone() };
            let dir =
                File::open(&whole).with_context(|| format!("cannot open {}", whole.display()))?;
            match dir.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove the old {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    #[test]
    fn more_than_there_is_gets_refused_with_a_way_out() {
        let error = super::check_space(&std::env::temp_dir(), "a moon", u64::MAX).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no space for a moon") && text.contains("XDG_CACHE_HOME"), "{text}");
    }

    #[test]
    fn a_build_waits_for_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let first = super::lock(dir.path(), "tools.lock").unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| super::lock(dir.path(), "tools.lock").unwrap());
            std::thread::sleep(3 * super::PAUSE);
            assert!(!second.is_finished());
            drop(first);
        });
    }

    #[test]
    fn what_another_run_holds_stays_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tools-1");
        assert!(super::hold(&tree).unwrap().is_none());
        fs::create_dir(&tree).unwrap();
        let programs = tree.with_extension("bin");
        fs::create_dir(&programs).unwrap();
        let held = super::hold(&tree).unwrap();
        super::remove_others(dir.path(), "tools-", &[]).unwrap();
        assert!(held.is_some() && tree.exists() && programs.exists());
        drop(held);
        super::remove_others(dir.path(), "tools-", &[]).unwrap();
        assert!(!tree.exists() && !programs.exists());
    }

    #[test]
    fn only_other_directories_of_the_same_kind_go() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["kernel-1", "kernel-2", "kernel-2.part", "tools-1"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("kernel-list"), "").unwrap();
        super::remove_others(dir.path(), "kernel-", &[&dir.path().join("kernel-2")]).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["kernel-2", "kernel-list", "tools-1"]);
    }
}
