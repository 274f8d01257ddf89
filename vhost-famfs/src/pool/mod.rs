// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pools: host memory or a file that several guests map.

mod create;
mod inspect;

pub use create::{CreateOptions, create};
pub use inspect::{Report, inspect};

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, SealFlags};
use rustix::io::Errno;
use serde::Serialize;

use crate::units::{ALIGNMENT, Bytes};

/// Smallest pool in bytes: libnvdimm aligns regions to 16 MiB.
pub const MIN_SIZE: u64 = 16 << 20;

/// `f_type` of tmpfs, and of the kernel's internal mount that memfds live on.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// `f_type` of hugetlbfs.
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

/// What a pool is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// An anonymous memory file, inherited as a descriptor.
    Memfd,
    /// A file in tmpfs, such as /dev/shm.
    Tmpfs,
    /// A regular file on a file system with storage below.
    File,
}

impl Kind {
    /// The kind's name as it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memfd => "memfd",
            Self::Tmpfs => "tmpfs",
            Self::File => "file",
        }
    }

    /// Whether a flush has anything to write to storage.
    pub fn has_storage(self) -> bool {
        match self {
            Self::Memfd | Self::Tmpfs => false,
            Self::File => true,
        }
    }
}

/// Which file a pool is, wherever its name moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

impl Identity {
    /// The identity of an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self { dev: meta.dev(), ino: meta.ino() })
    }
}

/// Why a file cannot be used as a pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Nothing by this name.
    #[error("pool {path}: no such file; `vhost-famfs pool create {path} --size 1G` makes one", path = .0.display())]
    Missing(PathBuf),
    /// Not allowed to open it.
    #[error("pool {}: no permission to {access} it", .pool.display())]
    Permission {
        /// The pool.
        pool: PathBuf,
        /// `read`, or `read and write`.
        access: &'static str,
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
    /// Not a file that can be mapped by several programs.
    #[error("pool {}: is {found}, expected a memfd, a file in tmpfs or a regular file", .pool.display())]
    Type {
        /// The pool.
        pool: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A descriptor that was opened without write access.
    #[error("pool {}: descriptor is not open for reading and writing", .0.display())]
    Access(PathBuf),
    /// Not a size that a guest can map.
    #[error("pool {}: its size, {found}, is not a multiple of 2 MiB of at least 16 MiB", .pool.display())]
    Size {
        /// The pool.
        pool: PathBuf,
        /// Its size.
        found: Bytes,
    },
    /// Another program holds the pool for itself.
    #[error(
        "pool {path}: busy, another program changes it (it holds an exclusive lock); \
         `lsof {path}` names the program, wait for it or stop it", path = .0.display()
    )]
    Busy(PathBuf),
}

/// What a file that can be a pool is.
#[derive(Clone, Copy, Debug)]
struct Facts {
    identity: Identity,
    size: u64,
    kind: Kind,
}

impl Facts {
    /// Refuses files that cannot be pools.
    fn of(file: &File, path: &Path) -> Result<Self, PoolError> {
        let meta = file.metadata().map_err(|source| PoolError::Io {
            pool: path.to_owned(),
            action: "read its size",
            source,
        })?;
        if let Some(found) = not_a_file(&meta) {
            return Err(PoolError::Type { pool: path.to_owned(), found });
        }
        let (kind, size) = (kind_of(file, path)?, meta.len());
        if size < MIN_SIZE || !size.is_multiple_of(ALIGNMENT) {
            return Err(PoolError::Size { pool: path.to_owned(), found: Bytes(size) });
        }
        Ok(Self { identity: Identity { dev: meta.dev(), ino: meta.ino() }, size, kind })
    }
}

/// An open pool that nobody can shrink while it is open.
///
/// A memfd is sealed. Files take a shared lock (flock), which programs that resize or rewrite
/// a pool must find free; a program that ignores locks can still truncate the file, and then
/// every VM that touches the missing part dies with SIGBUS.
#[derive(Debug)]
pub struct Pool {
    file: File,
    path: PathBuf,
    facts: Facts,
}

impl Pool {
    /// Opens the pool `path` for reading and writing.
    pub fn open(path: &Path) -> Result<Self, PoolError> {
        let file = open(path, OpenOptions::new().read(true).write(true), "read and write")?;
        Self::from_file(file, path.to_owned())
    }

    /// Takes a pool that is open already, such as a memfd from a parent process.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, PoolError> {
        let path = name_of(&fd);
        let flags = rustix::fs::fcntl_getfl(&fd).map_err(|errno| PoolError::Io {
            pool: path.clone(),
            action: "read the descriptor's flags",
            source: errno.into(),
        })?;
        if flags & OFlags::RWMODE != OFlags::RDWR {
            return Err(PoolError::Access(path));
        }
        Self::from_file(File::from(fd), path)
    }

    fn from_file(file: File, path: PathBuf) -> Result<Self, PoolError> {
        let facts = Facts::of(&file, &path)?;
        let pool = Self { file, path, facts };
        pool.hold_size()?;
        Ok(pool)
    }

    fn hold_size(&self) -> Result<(), PoolError> {
        if self.facts.kind == Kind::Memfd && self.seal()? {
            return Ok(());
        }
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(()),
            Err(Errno::WOULDBLOCK) => Err(PoolError::Busy(self.path.clone())),
            Err(errno) => Err(self.io("lock it", errno.into())),
        }
    }

    /// Seals the size; `false` if the memfd was made without `MFD_ALLOW_SEALING`.
    fn seal(&self) -> Result<bool, PoolError> {
        match rustix::fs::fcntl_add_seals(&self.file, SealFlags::SHRINK) {
            Ok(()) => Ok(true),
            Err(Errno::PERM) => rustix::fs::fcntl_get_seals(&self.file)
                .map(|seals| seals.contains(SealFlags::SHRINK))
                .map_err(|errno| self.io("read its seals", errno.into())),
            Err(errno) => Err(self.io("seal its size", errno.into())),
        }
    }

    fn io(&self, action: &'static str, source: io::Error) -> PoolError {
        PoolError::Io { pool: self.path.clone(), action, source }
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The name it was opened by, or what the kernel calls an inherited descriptor.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which file it is.
    pub fn identity(&self) -> Identity {
        self.facts.identity
    }

    /// Its size in bytes, a multiple of 2 MiB.
    pub fn size(&self) -> u64 {
        self.facts.size
    }

    /// What it is made of.
    pub fn kind(&self) -> Kind {
        self.facts.kind
    }

    /// Makes everything stored so far as durable as the pool's kind allows.
    pub fn sync(&self) -> io::Result<()> {
        if self.facts.kind.has_storage() { self.file.sync_data() } else { Ok(()) }
    }
}

fn open(path: &Path, options: &OpenOptions, access: &'static str) -> Result<File, PoolError> {
    options.open(path).map_err(|source| {
        let pool = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => PoolError::Missing(pool),
            io::ErrorKind::PermissionDenied => PoolError::Permission { pool, access },
            io::ErrorKind::IsADirectory => PoolError::Type { pool, found: "a directory" },
            _ => PoolError::Io { pool, action: "open it", source },
        }
    })
}

fn name_of(fd: impl AsFd) -> PathBuf {
    let number = fd.as_fd().as_raw_fd();
    std::fs::read_link(format!("/proc/self/fd/{number}"))
        .unwrap_or_else(|_| PathBuf::from(format!("descriptor {number}")))
}

fn not_a_file(meta: &std::fs::Metadata) -> Option<&'static str> {
    let kind = meta.file_type();
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_char_device() {
        Some("a character device")
    } else if kind.is_block_device() {
        Some("a block device")
    } else if kind.is_fifo() {
        Some("a pipe")
    } else {
        Some("a socket or another special file")
    }
}

fn kind_of(file: &File, path: &Path) -> Result<Kind, PoolError> {
    let stat = rustix::fs::fstatfs(file).map_err(|errno| PoolError::Io {
        pool: path.to_owned(),
        action: "find its file system",
        source: errno.into(),
    })?;
    match stat.f_type {
        TMPFS_MAGIC if is_memfd(file) => Ok(Kind::Memfd),
        TMPFS_MAGIC => Ok(Kind::Tmpfs),
        HUGETLBFS_MAGIC => {
            Err(PoolError::Type { pool: path.to_owned(), found: "a file in hugetlbfs" })
        }
        _ => Ok(Kind::File),
    }
}

/// The kernel names a memfd `/memfd:NAME (deleted)`.
fn is_memfd(fd: impl AsFd) -> bool {
    name_of(fd).as_os_str().as_encoded_bytes().starts_with(b"/memfd:")
}
