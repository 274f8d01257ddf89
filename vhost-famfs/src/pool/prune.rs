// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pools that nobody uses.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use famfs::system::lock::{self, Mode};
use famfs::text::units::{Bytes, count};

use super::inspect::{PoolReport, open_to_read};
use super::kind::Identity;
use super::open::Owners;
use super::remove::{data_in, names, unlink};
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
    let contents = match &report.famfs {
        Some(famfs) if famfs.problem.is_some() => "a famfs that cannot be read".to_owned(),
        // Links are in entries of the log, and directories too.
        Some(FamfsReport { files: 0, log_entries: 0, .. }) => String::new(),
        Some(famfs) => match famfs.files {
            0 => "a famfs with entries, without files".to_owned(),
            files => count(files, "file", "files"),
        },
        None => {
            let (file, facts) =
                open_to_read(&report.path, Owners::Trusted).map_err(|error| error.to_string())?;
            data_in(&file, facts, report).unwrap_or_default()
        }
    };
    Ok(Unused { path: report.path.clone(), allocated: report.allocated, contents })
}

/// Removes such a pool, if still nobody uses it.
///
/// # Errors
/// Somebody does, or it cannot be removed.
pub fn remove_unused(report: &PoolReport) -> Result<(), PruneError> {
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
    Ok(unlink(&report.path, &file)?)
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} used, ", self.path.display(), Bytes(self.allocated))?;
        f.write_str(if self.contents.is_empty() { "empty" } else { &self.contents })?;
        f.write_str(")")
    }
}
