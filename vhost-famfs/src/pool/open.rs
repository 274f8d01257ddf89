// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Opens a pool by name, and refuses one that somebody else may have put there.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use famfs::system::ownership;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::PoolError;

/// Which owners of a pool to accept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// Pools of this user or root that no other user can change.
    #[default]
    Trusted,
    /// Pools of any user.
    Any,
}

impl Owners {
    /// The meaning of the option `--foreign-pool`.
    #[must_use]
    pub fn foreign(allowed: bool) -> Self {
        if allowed { Self::Any } else { Self::Trusted }
    }
}

/// What a pool is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Read,
    ReadAndWrite,
}

/// Opens the file `path`, or fails and says who owns it. From then on, only the open file matters,
/// not its name.
pub(super) fn open(path: &Path, purpose: Purpose, owners: Owners) -> Result<File, PoolError> {
    let pool = || path.to_owned();
    let write = purpose == Purpose::ReadAndWrite;
    // Without NONBLOCK, opening a pipe would wait for a writer.
    let mut flags = OFlags::NONBLOCK;
    if owners == Owners::Trusted {
        flags |= OFlags::NOFOLLOW;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(write).custom_flags(flags.bits().cast_signed());
    let file = options.open(path).map_err(|source| match source.kind() {
        _ if is_link(&source) => {
            PoolError::Link { pool: pool(), target: path.read_link().unwrap_or_default() }
        }
        io::ErrorKind::NotFound => PoolError::Missing(pool()),
        io::ErrorKind::PermissionDenied => {
            let access = if write { "read and write" } else { "read" };
            PoolError::Permission { pool: pool(), access }
        }
        io::ErrorKind::IsADirectory => PoolError::Type { pool: pool(), found: "a directory" },
        _ => PoolError::Io { pool: pool(), action: "open it", source },
    })?;
    if owners == Owners::Trusted {
        check(&file, path)?;
    }
    Ok(file)
}

fn is_link(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::LOOP)
}

/// Refuses a regular file that another user can change. Only root can create device nodes; all
/// other types of files are refused elsewhere.
fn check(file: &File, path: &Path) -> Result<(), PoolError> {
    let metadata = file.metadata().map_err(|source| PoolError::Io {
        pool: path.to_owned(),
        action: "look at it",
        source,
    })?;
    if !metadata.is_file() {
        return Ok(());
    }
    ownership::trusted_file(&metadata)
        .map_err(|fault| PoolError::Foreign { pool: path.to_owned(), fault })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{Pool, RemoveError, ResizeError, ResizeOptions, remove, resize};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_pool_that_others_can_change_is_taken_only_if_the_user_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool");
        File::create(&path).unwrap().set_len(16 << 20).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let told = Pool::open(&path, Owners::Trusted).unwrap_err().to_string();
        assert!(told.contains("belongs to user") && told.contains("mode 0666"), "{told}");
        assert!(told.contains("--foreign-pool"), "{told}");
        let size = ResizeOptions { path: path.clone(), size: 32 << 20, owners: Owners::Trusted };
        let resized = resize(&size, &mut |_, _| ());
        assert!(matches!(resized, Err(ResizeError::Pool(PoolError::Foreign { .. }))));
        let removed = remove(&path, true, Owners::Trusted);
        assert!(matches!(removed, Err(RemoveError::Pool(PoolError::Foreign { .. }))));
        assert_eq!(fs::metadata(&path).unwrap().len(), 16 << 20);
        Pool::open(&path, Owners::Any).unwrap();
        remove(&path, true, Owners::Any).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_link_is_taken_only_if_the_user_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("pool"), dir.path().join("link"));
        File::create(&path).unwrap().set_len(16 << 20).unwrap();
        symlink(&path, &link).unwrap();
        let told = Pool::open(&link, Owners::Trusted).unwrap_err().to_string();
        assert!(told.contains(&format!("a symbolic link to {}", path.display())), "{told}");
        Pool::open(&link, Owners::Any).unwrap();
        // The target's contents do not matter.
        let removed = remove(&link, true, Owners::Any).unwrap_err().to_string();
        assert!(removed.contains("symbolic link"), "{removed}");
        assert!(path.exists() && link.exists());
        fs::hard_link(&path, dir.path().join("second")).unwrap();
        let told = Pool::open(&path, Owners::Trusted).unwrap_err().to_string();
        assert!(told.contains("has 2 names, expected one"), "{told}");
    }
}
