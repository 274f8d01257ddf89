// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Removing a pool.

use std::io;
use std::path::{Path, PathBuf};

use famfs::mkfs::{MkfsError, check_unformatted};
use famfs::view::View;

use super::holders::{self, Holder};
use super::inspect::{open_to_read, without_holders};
use super::media::PoolMedia;
use super::{Kind, PoolError};

/// Why a pool was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// It is no pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Somebody uses it.
    #[error("pool {}: in use by {}; --force removes its name, and its memory when they end", .pool.display(), names(.holders))]
    Held {
        /// The pool.
        pool: PathBuf,
        /// Who.
        holders: Vec<Holder>,
    },
    /// It holds something.
    #[error("pool {}: {found}; --force removes it", .pool.display())]
    Data {
        /// The pool.
        pool: PathBuf,
        /// What it holds.
        found: String,
    },
    /// A device is not a file that can be removed.
    #[error("pool {}: is a device; `famfs --pool` and `ndctl` change what is on it", .0.display())]
    Device(PathBuf),
    /// The kernel refused.
    #[error("pool {}: cannot remove it", .pool.display())]
    Io {
        /// The pool.
        pool: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Processes as one line names them.
pub(super) fn names(holders: &[Holder]) -> String {
    let names: Vec<_> = holders.iter().map(|h| format!("{} ({})", h.command, h.pid)).collect();
    names.join(", ")
}

/// Removes the pool `path`; with `force` even one that is used or holds data.
///
/// # Errors
/// It is no pool (not even `force` removes that), it is used, or it holds data.
pub fn remove(path: &Path, force: bool) -> Result<(), RemoveError> {
    let (file, facts) = open_to_read(path)?;
    let pool = || path.to_owned();
    if facts.kind == Kind::Devdax {
        return Err(RemoveError::Device(pool()));
    }
    if !force {
        let holders = holders::find(path, facts.identity);
        if !holders.is_empty() {
            return Err(RemoveError::Held { pool: pool(), holders });
        }
        let report = without_holders(&file, facts, path)?;
        let view = if report.view == View::Devdax.name() { View::Devdax } else { View::Raw };
        let found = match report.damage {
            Some(damage) => Some(damage),
            None => match check_unformatted(&PoolMedia::new(&file, facts, path, view)) {
                Ok(()) => None,
                Err(MkfsError::Formatted { fs_uuid: Some(uuid) }) => {
                    Some(format!("holds the famfs {uuid}"))
                }
                Err(MkfsError::Formatted { fs_uuid: None }) => {
                    Some("holds a damaged famfs".to_owned())
                }
                Err(_) => Some("holds other data".to_owned()),
            },
        };
        if let Some(found) = found {
            return Err(RemoveError::Data { pool: pool(), found });
        }
    }
    std::fs::remove_file(path).map_err(|source| RemoveError::Io { pool: pool(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{CreateOptions, create};

    #[test]
    fn removes_what_is_empty_and_keeps_what_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool");
        for view in [View::Raw, View::Devdax] {
            let options = CreateOptions::new(path.clone(), 16 << 20, view);
            create(&options, &mut |_, _| ()).unwrap();
            remove(&path, false).unwrap();
            create(&CreateOptions { mkfs: true, ..options }, &mut |_, _| ()).unwrap();
            let err = remove(&path, false).unwrap_err();
            assert!(matches!(err, RemoveError::Data { .. }), "{err}");
            remove(&path, true).unwrap();
            assert!(!path.exists());
        }
    }

    #[test]
    fn other_files_are_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("letter");
        std::fs::write(&path, "dear").unwrap();
        assert!(matches!(remove(&path, true), Err(RemoveError::Pool(_))));
        assert!(path.exists());
        let path = dir.path().join("image");
        let mut disk = vec![0xeb; 512];
        disk.resize(16 << 20, 0);
        std::fs::write(&path, disk).unwrap();
        assert!(matches!(remove(&path, false), Err(RemoveError::Data { .. })));
        assert!(path.exists());
    }
}
