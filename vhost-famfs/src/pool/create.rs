// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Making a pool: all or nothing, and never over an existing file.
//!
//! The file has no name (O_TMPFILE) until it is complete; linking it refuses to replace
//! anything. Whatever ends the program before that, the kernel frees the file.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use famfs::view::{INFO_BLOCK_OFFSET, InfoBlock, View, ViewError};
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;
use zerocopy::IntoBytes;

use super::{Kind, MIN_SIZE, PoolError, Report, inspect, kind_of};
use crate::units::{ALIGNMENT, Bytes};

/// What kind of pool to make.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Name of the new file.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// How guests will see it.
    pub view: View,
    /// Identity of the devdax info block; random if not given. Without meaning in the raw view.
    pub uuid: Option<Uuid>,
}

/// Why no pool was made. Nothing is left behind, except by [`CreateError::Pool`].
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Not a size that a guest can map.
    #[error(
        "pool size {found} is too small or uneven: expected a multiple of 2 MiB of at least 16 MiB, such as {near}"
    )]
    Size {
        /// Size asked for.
        found: Bytes,
        /// A size that would do.
        near: Bytes,
    },
    /// Something has this name.
    #[error("pool {}: exists already and is not replaced; remove it first if nobody needs its data", .0.display())]
    Exists(PathBuf),
    /// The directory is not there.
    #[error("pool {}: no directory {}", .pool.display(), .directory.display())]
    NoDirectory {
        /// The pool.
        pool: PathBuf,
        /// Where it should go.
        directory: PathBuf,
    },
    /// Not allowed to write to the directory.
    #[error("pool {}: no permission to make a file in {}", .pool.display(), .directory.display())]
    Permission {
        /// The pool.
        pool: PathBuf,
        /// Where it should go.
        directory: PathBuf,
    },
    /// The file system cannot make a file without a name.
    #[error(
        "pool {}: the file system of {} has no unnamed files (O_TMPFILE); \
         use a directory in tmpfs, ext4, xfs or btrfs", .pool.display(), .directory.display()
    )]
    NoTmpfile {
        /// The pool.
        pool: PathBuf,
        /// Where it should go.
        directory: PathBuf,
    },
    /// The file system is too full.
    #[error("pool {}: needs {needed}, but {} has only {free} bytes free", .pool.display(), .directory.display())]
    Space {
        /// The pool.
        pool: PathBuf,
        /// Where it should go.
        directory: PathBuf,
        /// Size of the pool.
        needed: Bytes,
        /// Free bytes of the file system.
        free: u64,
    },
    /// The info block cannot be made.
    #[error("pool {}: no devdax view", .pool.display())]
    View {
        /// The pool.
        pool: PathBuf,
        /// Why.
        #[source]
        source: ViewError,
    },
    /// A system call failed.
    #[error("pool {}: cannot {action}", .pool.display())]
    Io {
        /// The pool.
        pool: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The pool was made but does not read back.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Makes a pool.
///
/// On storage its blocks are reserved, so that no store of a guest can meet a full file system
/// (which would end the VM with SIGBUS). In tmpfs memory is taken when it is first touched;
/// that there is enough now is checked, that it stays so is not.
pub fn create(options: &CreateOptions) -> Result<Report, CreateError> {
    let CreateOptions { path, size, view, uuid } = options;
    check_size(*size)?;
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let maker = Maker { path, directory, size: *size };
    let file = maker.open()?;
    maker.reserve(&file)?;
    if *view == View::Devdax {
        let block = InfoBlock::build(*size, uuid.unwrap_or_else(Uuid::new_v4))
            .map_err(|source| CreateError::View { pool: path.clone(), source })?;
        file.write_all_at(block.as_bytes(), INFO_BLOCK_OFFSET)
            .map_err(|source| maker.io("write the devdax info block", source))?;
    }
    file.sync_all().map_err(|source| maker.io("sync it", source))?;
    maker.link(&file)?;
    Ok(inspect(path)?)
}

fn check_size(size: u64) -> Result<(), CreateError> {
    if size >= MIN_SIZE && size.is_multiple_of(ALIGNMENT) {
        return Ok(());
    }
    let near = size.checked_next_multiple_of(ALIGNMENT).unwrap_or(MIN_SIZE).max(MIN_SIZE);
    Err(CreateError::Size { found: Bytes(size), near: Bytes(near) })
}

struct Maker<'a> {
    path: &'a Path,
    directory: &'a Path,
    size: u64,
}

impl Maker<'_> {
    fn open(&self) -> Result<File, CreateError> {
        // The link below is what decides; this only saves work and gives the better message.
        if self.path.symlink_metadata().is_ok() {
            return Err(CreateError::Exists(self.path.to_owned()));
        }
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let (pool, directory) = (self.path.to_owned(), self.directory.to_owned());
        match rustix::fs::open(self.directory, flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => Ok(File::from(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(CreateError::NoDirectory { pool, directory }),
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
                Err(CreateError::Permission { pool, directory })
            }
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => Err(CreateError::NoTmpfile { pool, directory }),
            Err(errno) => Err(self.io("make it", errno.into())),
        }
    }

    fn reserve(&self, file: &File) -> Result<(), CreateError> {
        let stat = rustix::fs::fstatvfs(file)
            .map_err(|errno| self.io("find the free space", errno.into()))?;
        let space = || CreateError::Space {
            pool: self.path.to_owned(),
            directory: self.directory.to_owned(),
            needed: Bytes(self.size),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
        };
        // A tmpfs without a limit reports no blocks at all.
        let unlimited = stat.f_blocks == 0;
        if !unlimited && stat.f_bavail.saturating_mul(stat.f_frsize) < self.size {
            return Err(space());
        }
        if kind_of(file, self.path)? == Kind::File {
            let result = rustix::fs::fallocate(file, FallocateFlags::empty(), 0, self.size);
            return match result {
                Ok(()) => Ok(()),
                Err(Errno::NOSPC | Errno::DQUOT) => Err(space()),
                Err(errno) => Err(self.io("reserve its space", errno.into())),
            };
        }
        file.set_len(self.size).map_err(|source| self.io("set its size", source))
    }

    fn link(&self, file: &File) -> Result<(), CreateError> {
        let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
        match rustix::fs::linkat(CWD, unnamed, CWD, self.path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(CreateError::Exists(self.path.to_owned())),
            Err(errno) => Err(self.io("give it its name", errno.into())),
        }
    }

    fn io(&self, action: &'static str, source: io::Error) -> CreateError {
        CreateError::Io { pool: self.path.to_owned(), action, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(path: PathBuf, view: View) -> CreateOptions {
        CreateOptions { path, size: 16 << 20, view, uuid: None }
    }

    #[test]
    fn makes_both_views() {
        let dir = tempfile::tempdir().unwrap();
        for view in [View::Devdax, View::Raw] {
            let report = create(&options(dir.path().join(view.name()), view)).unwrap();
            assert_eq!(report.view, view.name());
            assert_eq!(report.size, 16 << 20);
        }
    }

    #[test]
    fn never_replaces_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool");
        std::fs::write(&path, "precious").unwrap();
        let err = create(&options(path.clone(), View::Raw)).unwrap_err();
        assert!(matches!(err, CreateError::Exists(_)), "{err}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn leaves_nothing_behind_on_failure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool");
        let result = create(&CreateOptions { size: 1 << 62, ..options(path, View::Raw) });
        assert!(matches!(result, Err(CreateError::Space { .. })), "{result:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn proposes_a_size_that_works() {
        for (size, near) in [(0, 16), (1, 16), (15 << 20, 16), ((17 << 20) + 1, 18)] {
            let Err(CreateError::Size { near: found, .. }) = check_size(size) else {
                panic!("{size} was taken")
            };
            assert_eq!(found, Bytes(near << 20));
        }
    }
}
