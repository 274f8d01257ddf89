// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pools that nobody uses.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use famfs::system::lock::{self, Mode};
use famfs::text::units::{Bytes, count};

use super::inspect::{PoolReport, open_to_read, without_holders};
use super::kind::{Facts, Identity};
use super::open::Owners;
use super::remove::{data_from, data_in, names, unlink};
use super::{FamfsReport, Kind, PoolError, holders};

/// A pool of this user that nobody uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// Its path.
    pub path: PathBuf,
    /// Bytes of memory or storage that it occupies.
    pub allocated: u64,
    /// What it holds; empty if nothing.
    pub contents: String,
}

/// Why a pool was not removed.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// It cannot be opened or removed.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// It is used meanwhile.
    #[error("pool {}: somebody uses it now; not removed", .0.display())]
    Used(PathBuf),
    /// It was written to meanwhile.
    #[error("pool {}: its contents have changed meanwhile; not removed", .0.display())]
    Changed(PathBuf),
}

/// The pool, if it is one of this user's that nobody uses.
///
/// # Errors
/// Why it is not.
pub fn unused(report: &PoolReport) -> Result<Unused, String> {
    if report.kind == Kind::Devdax {
        return Err("it is a device".to_owned());
    }
    if report.uid != rustix::process::geteuid().as_raw() {
        return Err(format!("it belongs to user {}", report.uid));
    }
    if !report.clusters.is_empty() {
        return Err(format!("it belongs to cluster {}", report.clusters.join(", ")));
    }
    if !report.holders.is_empty() {
        return Err(format!("it is in use by {}", names(&report.holders)));
    }
    let look = || {
        let (file, facts) = open_to_read(&report.path, Owners::Trusted)?;
        contents(&file, facts, report)
    };
    let contents = look().map_err(|error| error.to_string())?;
    Ok(Unused { path: report.path.clone(), allocated: report.allocated, contents })
}

/// What a pool holds; empty if nothing.
fn contents(file: &File, facts: Facts, report: &PoolReport) -> Result<String, PoolError> {
    let found = match &report.famfs {
        Some(famfs) if famfs.problem.is_some() => Some("a famfs that cannot be read".to_owned()),
        // Links are in entries of the log, and directories too. Slices are behind the file system.
        Some(FamfsReport { files: 0, log_entries: 0, end, .. }) => {
            data_from(file, facts, &report.path, *end)?
        }
        Some(famfs) => Some(match famfs.files {
            0 => "a famfs with entries, without files".to_owned(),
            files => count(files, "file", "files"),
        }),
        None => data_in(file, facts, report)?,
    };
    Ok(found.unwrap_or_default())
}

/// Removes such a pool, if still nobody uses it, and it holds what it did.
///
/// # Errors
/// Somebody does, it holds something else, or it cannot be removed.
pub fn remove_unused(report: &PoolReport, unused: &Unused) -> Result<(), PruneError> {
    let used = || PruneError::Used(report.path.clone());
    let (file, facts) = open_to_read(&report.path, Owners::Trusted)?;
    if facts.identity != (Identity { dev: report.dev, ino: report.ino }) {
        return Err(used());
    }
    // Whoever uses a pool holds a shared lock.
    let io = |source| PoolError::Io { pool: report.path.clone(), action: "lock it", source };
    if !lock::within(&file, Mode::Exclusive, Duration::ZERO).map_err(io)? {
        return Err(used());
    }
    if !holders::find(&report.path, facts.identity).is_empty() {
        return Err(used());
    }
    let now = contents(&file, facts, &without_holders(&file, facts, &report.path)?)?;
    if now != unused.contents {
        return Err(PruneError::Changed(report.path.clone()));
    }
    Ok(unlink(&report.path, &file)?)
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} used, ", self.path.display(), Bytes(self.allocated))?;
        f.write_str(if self.contents.is_empty() { "empty" } else { &self.contents })?;
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use famfs::format::view::View;

    use super::*;
    use crate::pool::{CreateOptions, create, inspect};

    #[test]
    fn a_pool_with_a_slice_is_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool");
        for (mkfs, view) in
            [(true, View::Devdax), (true, View::Raw), (false, View::Devdax), (false, View::Raw)]
        {
            let max = mkfs.then_some(64 << 20);
            let options = CreateOptions::new(path.clone(), 32 << 20, view);
            create(&CreateOptions { mkfs, max, ..options }, &mut |_, _| ()).unwrap();
            let before = inspect(&path).unwrap();
            let empty = unused(&before).unwrap();
            assert_eq!(empty.contents, "");
            let file = File::options().write(true).open(&path).unwrap();
            file.write_all_at(b"x", before.size - 100).unwrap();
            let full = unused(&inspect(&path).unwrap()).unwrap();
            assert!(full.contents.contains("other data"), "{full}");
            let changed = remove_unused(&before, &empty);
            assert!(matches!(changed, Err(PruneError::Changed(_))), "{changed:?}");
            remove_unused(&before, &full).unwrap();
            assert!(!path.exists());
        }
    }
}
