// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Removes a pool.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use famfs::format::view::{INFO_BLOCK_LEN, INFO_BLOCK_OFFSET, View};
use famfs::store::mkfs::{MkfsError, check_unformatted};
use famfs::system::parent;
use famfs::text::units::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags};

use super::bytes::{PoolBytes, PoolMedia};
use super::holders::{self, Holder};
use super::inspect::{PoolReport, open_to_read, without_holders};
use super::kind::{Facts, Identity};
use super::open::Owners;
use super::own::tidy_own_directory;
use super::{Kind, PoolError};

/// Why a pool was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// It is not a pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// It is in use.
    #[error("pool {}: in use by {}; with --force its name is removed now, and its memory when they \
             end", .pool.display(), names(.holders))]
    Held {
        /// The pool.
        pool: PathBuf,
        /// The processes that use it.
        holders: Vec<Holder>,
    },
    /// It holds data.
    #[error("pool {}: {found}; to remove it anyway, use --force", .pool.display())]
    Data {
        /// The pool.
        pool: PathBuf,
        /// What it holds.
        found: String,
    },
    /// A device cannot be removed.
    #[error("pool {}: is a device; use `famfs --pool` or `ndctl` to change its contents", .0.display())]
    Device(PathBuf),
}

/// The processes on one line.
pub(super) fn names(holders: &[Holder]) -> String {
    let names: Vec<_> = holders.iter().map(|h| format!("{} ({})", h.command, h.pid)).collect();
    names.join(", ")
}

/// Removes the pool `path`; with `force`, even if it is in use or holds data.
///
/// # Errors
/// It is not a pool (`force` does not remove other files), is in use, or holds data.
pub fn remove(path: &Path, force: bool, owners: Owners) -> Result<(), RemoveError> {
    let (file, facts) = open_to_read(path, owners)?;
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
        if let Some(found) = data_in(&file, facts, &report)? {
            return Err(RemoveError::Data { pool: pool(), found });
        }
    }
    Ok(unlink(path, &file)?)
}

/// What a pool holds; `None` if it is empty.
pub(super) fn data_in(
    file: &File,
    facts: Facts,
    report: &PoolReport,
) -> Result<Option<String>, PoolError> {
    if let Some(damage) = &report.damage {
        return Ok(Some(damage.clone()));
    }
    let view = if report.view == View::Devdax.name() { View::Devdax } else { View::Raw };
    Ok(match check_unformatted(&PoolMedia::new(file, facts, &report.path, view)) {
        // Slices are anywhere in a pool without a famfs.
        Ok(()) => match view {
            View::Devdax => {
                data_from(file, facts, &report.path, INFO_BLOCK_OFFSET + INFO_BLOCK_LEN as u64)?
            }
            View::Raw => data_from(file, facts, &report.path, 0)?,
        },
        Err(MkfsError::Formatted { fs_uuid: Some(uuid) }) => {
            Some(format!("holds the famfs {uuid}"))
        }
        Err(MkfsError::Formatted { fs_uuid: None }) => Some("holds a damaged famfs".to_owned()),
        Err(_) => Some("holds other data".to_owned()),
    })
}

/// What a pool holds from `start` to its end, where no file system is; `None` if only zeros.
pub(super) fn data_from(
    file: &File,
    facts: Facts,
    path: &Path,
    start: u64,
) -> Result<Option<String>, PoolError> {
    let io = |source| PoolError::Io { pool: path.to_owned(), action: "read it", source };
    let end = PoolBytes { file, facts }.end_of_data(start, facts.size).map_err(io)?;
    Ok((end > start).then(|| format!("holds other data up to {}", Bytes(end))))
}

/// Removes the name `path` of an open file, but not if another file has it. If it was the last of
/// this user's pools, also removes their directory.
///
/// # Errors
/// Another file has the name, or it cannot be removed.
pub fn unlink(path: &Path, file: &File) -> Result<(), PoolError> {
    let io = |action| move |source| PoolError::Io { pool: path.to_owned(), action, source };
    let directory = parent::of(path);
    let name =
        path.file_name().ok_or_else(|| io("remove it")(io::ErrorKind::InvalidInput.into()))?;
    // Kept open, so that the file that is checked is the one that is removed, even if the directory
    // is renamed.
    let held = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        .map_err(|errno| io("open its directory")(errno.into()))?;
    let found = rustix::fs::statat(&held, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| io("look at it")(errno.into()))?;
    let expected = Identity::of(file).map_err(io("look at it"))?;
    if (found.st_dev, found.st_ino) != (expected.dev, expected.ino) {
        return Err(match path.read_link() {
            Ok(target) => PoolError::Link { pool: path.to_owned(), target },
            Err(_) => PoolError::Replaced(path.to_owned()),
        });
    }
    rustix::fs::unlinkat(&held, name, AtFlags::empty())
        .map_err(|errno| io("remove it")(errno.into()))?;
    tidy_own_directory(directory);
    Ok(())
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
            remove(&path, false, Owners::Trusted).unwrap();
            create(&CreateOptions { mkfs: true, ..options }, &mut |_, _| ()).unwrap();
            let err = remove(&path, false, Owners::Trusted).unwrap_err();
            assert!(matches!(err, RemoveError::Data { .. }), "{err}");
            remove(&path, true, Owners::Trusted).unwrap();
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_slice_is_data() {
        use std::os::unix::fs::FileExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool");
        for view in [View::Raw, View::Devdax] {
            create(&CreateOptions::new(path.clone(), 16 << 20, view), &mut |_, _| ()).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.write_all_at(b"x", (9 << 20) + 7).unwrap();
            let err = remove(&path, false, Owners::Trusted).unwrap_err();
            assert!(err.to_string().contains("holds other data up to"), "{err}");
            remove(&path, true, Owners::Trusted).unwrap();
        }
    }

    #[test]
    fn other_files_are_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("letter");
        std::fs::write(&path, "dear").unwrap();
        assert!(matches!(remove(&path, true, Owners::Trusted), Err(RemoveError::Pool(_))));
        assert!(path.exists());
        let path = dir.path().join("image");
        let mut disk = vec![0xeb; 512];
        disk.resize(16 << 20, 0);
        std::fs::write(&path, disk).unwrap();
        assert!(matches!(remove(&path, false, Owners::Trusted), Err(RemoveError::Data { .. })));
        assert!(path.exists());
    }
}
