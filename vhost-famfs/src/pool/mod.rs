// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pools: host memory or a file that several guests map.

mod allocation;
mod bytes;
mod create;
mod famfs_report;
mod grow;
mod holders;
mod hugepages;
mod inspect;
mod kind;
mod list;
mod open;
mod own;
mod part;
mod prune;
mod remove;
mod resize;
mod window;

pub use allocation::MemoryError;
pub use bytes::PoolMedia;
pub use create::{CreateError, CreateOptions, check_room, create};
pub use famfs_report::FamfsReport;
pub use grow::{GrowError, GrowOptions, grow};
pub use holders::Holder;
pub use inspect::{Form, PoolReport, form, inspect};
pub use kind::{Identity, Kind, kind_for};
pub use list::{ListError, list, table};
pub use open::Owners;
pub use own::{
    check_own_directory, is_in_own_directory, is_own_directory, make_own_directory, own_directory,
    tidy_own_directory,
};
pub use prune::{PruneError, Unused, remove_unused, unused};
pub use remove::{RemoveError, remove, unlink};
pub use resize::{ResizeError, ResizeOptions, resize};
pub use window::{Window, WindowError};

use famfs::text::units::Bytes;
use kind::{Facts, is_memfd, name_of};
use open::{Purpose, open};

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use famfs::store::superblock::SuperblockError;
use famfs::system::holders::{self as famfs_holders, NamedProcess};
use famfs::system::lock::{self, LockError};
use famfs::system::ownership::Fault;
use rustix::fs::{OFlags, SealFlags};
use rustix::io::Errno;

/// The unit of pools and windows: 2 MiB, the size of a PMD mapping and of the guest's
/// pmem alignment on x86-64.
pub const ALIGNMENT: u64 = 2 << 20;

/// Smallest pool in bytes: libnvdimm aligns regions to 16 MiB.
pub const MIN_SIZE: u64 = 16 << 20;

/// Why a file cannot be used as a pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The file does not exist.
    #[error("pool {path}: no such file; create one with `vhost-famfs pool create {path} --size 1G`", path = .0.display())]
    Missing(PathBuf),
    /// The user may not open it.
    #[error("pool {}: no permission to {access} it", .pool.display())]
    Permission {
        /// The pool.
        pool: PathBuf,
        /// `read`, or `read and write`.
        access: &'static str,
    },
    /// Other users could change it, or have put it there.
    #[error(
        "pool {} {fault}: others could read and change what VMs store there; use a pool of your \
         own, or accept it with --foreign-pool (in a cluster file: foreign = true)", .pool.display()
    )]
    Foreign {
        /// The pool.
        pool: PathBuf,
        /// Why other users could change it.
        fault: Fault,
    },
    /// Other users could change the directory for this user's pools.
    #[error(
        "directory {} {fault}: pools for clusters would not be safe there; remove it, or name a \
         pool in a directory of your own (--pool, or path in the cluster file)", .directory.display()
    )]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What is wrong with it.
        fault: Fault,
    },
    /// Another file has taken its name.
    #[error("pool {}: another file has taken its name since this command began", .0.display())]
    Replaced(PathBuf),
    /// Its name is a symbolic link.
    #[error(
        "pool {}: is a symbolic link to {target}, and its owner can make it point elsewhere; name \
         {target} itself, or accept the link with --foreign-pool", .pool.display(), target = .target.display()
    )]
    Link {
        /// The link.
        pool: PathBuf,
        /// Its target.
        target: PathBuf,
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
    /// It is not a file that several programs can map.
    #[error("pool {}: is {found}, expected a memfd, a file in tmpfs or hugetlbfs, a regular file or /dev/daxX.Y", .pool.display())]
    Type {
        /// The pool.
        pool: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// The descriptor was opened without write access.
    #[error("pool {}: the descriptor is not open for reading and writing", .0.display())]
    Access(PathBuf),
    /// The size is not one that a guest can map.
    #[error("pool {}: its size is {found}: a pool needs at least 16 MiB, in steps of 2 MiB", .pool.display())]
    Size {
        /// The pool.
        pool: PathBuf,
        /// Its size.
        found: Bytes,
    },
    /// A part of it that overlaps the files of other VMs.
    #[error(
        "pool {}: its file system takes everything up to {end}, and {len} from {offset} overlap \
         it, so the guest would overwrite files of other VMs; use a part from {end} on, the whole \
         pool, or another pool (`famfs mkfs --size` creates a file system that leaves room)", .pool.display()
    )]
    OverFiles {
        /// The pool.
        pool: PathBuf,
        /// Where the part begins.
        offset: Bytes,
        /// Its length.
        len: Bytes,
        /// Where the file system ends.
        end: Bytes,
    },
    /// The extent of its file system is not known.
    #[error(
        "pool {}: its file system is damaged, so it is not known which part of the pool is free; \
         see `famfs --pool {} fsck`", .pool.display(), .pool.display()
    )]
    Files {
        /// The pool.
        pool: PathBuf,
        /// The damage.
        #[source]
        source: SuperblockError,
    },
    /// Another program has locked the pool exclusively.
    #[error(
        "pool {}: busy: another program is changing it and has locked it{}; wait for that program, \
         or stop it{}",
        pool.display(), famfs_holders::by(.by), lock::others(.by)
    )]
    Busy {
        /// The pool.
        pool: PathBuf,
        /// Who holds the lock, if known.
        by: Vec<NamedProcess>,
    },
}

/// Takes the lock that users of a pool share, which keeps its size and layout unchanged.
pub(crate) fn lock_shared(file: &File, pool: &Path) -> Result<(), PoolError> {
    lock::shared(file, "pool", lock::BRIEF, |_| {}).map_err(|error| match error {
        LockError::Busy { holders: by, .. } => PoolError::Busy { pool: pool.to_owned(), by },
        LockError::System { source, .. } => {
            PoolError::Io { pool: pool.to_owned(), action: "lock it", source }
        }
    })
}

/// Opens the pool `path` to pass it on as a descriptor, which does not depend on the name. With
/// `expected`, it must be that file.
///
/// # Errors
/// It cannot be opened, belongs to another user, or is another file.
pub fn open_for(
    path: &Path,
    write: bool,
    owners: Owners,
    expected: Option<Identity>,
) -> Result<File, PoolError> {
    let purpose = if write { Purpose::ReadAndWrite } else { Purpose::Read };
    let file = open(path, purpose, owners)?;
    let found = Identity::of(&file).map_err(|source| PoolError::Io {
        pool: path.to_owned(),
        action: "look at it",
        source,
    })?;
    match expected {
        Some(expected) if expected != found => Err(PoolError::Replaced(path.to_owned())),
        _ => Ok(file),
    }
}

/// An open pool that nobody can shrink while it is open.
///
/// A memfd is sealed. Files get a shared lock (flock), which keeps programs that resize or rewrite
/// a pool from doing so. A program that ignores locks can still truncate the file; then every VM
/// that touches the missing part dies with SIGBUS.
#[derive(Debug)]
pub struct Pool {
    file: File,
    path: PathBuf,
    facts: Facts,
}

impl Pool {
    /// Opens the pool `path` for reading and writing.
    pub fn open(path: &Path, owners: Owners) -> Result<Self, PoolError> {
        let file = open(path, Purpose::ReadAndWrite, owners)?;
        Self::from_file(file, path.to_owned())
    }

    /// Uses a pool that is already open, such as a memfd from a parent process.
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
        if is_memfd(&self.file) && self.seal()? {
            return Ok(());
        }
        lock_shared(&self.file, &self.path)
    }

    /// Seals the size; `false` if the memfd was created without `MFD_ALLOW_SEALING`.
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

    /// The open file, with its lock.
    pub fn into_file(self) -> File {
        self.file
    }

    /// The path by which it was opened, or the kernel's name for an inherited descriptor.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity of the file.
    pub fn identity(&self) -> Identity {
        self.facts.identity
    }

    /// Its size in bytes, a multiple of 2 MiB.
    pub fn size(&self) -> u64 {
        self.facts.size
    }

    /// The unit of a window's offset and length in bytes: its page size, but at least 2 MiB.
    pub fn unit(&self) -> u64 {
        self.facts.unit()
    }

    /// What it is made of.
    pub fn kind(&self) -> Kind {
        self.facts.kind
    }

    /// Refuses a part of the pool that overlaps its file system, unless it is the whole pool: the
    /// guest would overwrite files of other VMs.
    pub fn check_part(&self, offset: u64, len: u64) -> Result<(), PoolError> {
        if offset == 0 && len == self.size() {
            return Ok(());
        }
        match part::famfs_end(&self.file, self.facts, &self.path)? {
            Some(end) if offset < end && (offset > 0 || len < end) => {
                let (offset, len, end) = (Bytes(offset), Bytes(len), Bytes(end));
                Err(PoolError::OverFiles { pool: self.path.clone(), offset, len, end })
            }
            _ => Ok(()),
        }
    }

    /// Makes all previous stores as durable as the pool's kind allows: a file is written back,
    /// including pages that guests changed through a mapping; memory needs nothing.
    pub fn sync(&self) -> io::Result<()> {
        if self.facts.kind.has_storage() { self.file.sync_data() } else { Ok(()) }
    }
}

/// Checks whether the pool `path` is readable and valid.
pub fn check_readable(path: &Path, owners: Owners) -> Result<(), PoolError> {
    inspect::open_to_read(path, owners).map(drop)
}

/// Checks whether the pool `path` belongs to an accepted owner. A pool in the directory for this
/// user's pools is refused if the directory is not safe.
pub fn check_owners(path: &Path, owners: Owners) -> Result<(), PoolError> {
    match path.parent().filter(|directory| is_own_directory(directory)) {
        Some(directory) if owners == Owners::Trusted => _ = check_own_directory(directory)?,
        _ => {}
    }
    check_readable(path, owners)
}

/// Checks whether the host has enough free huge pages of `page_size` for that many bytes.
pub fn check_huge_pages(page_size: u64, bytes: u64) -> Result<(), MemoryError> {
    allocation::check_free(Kind::Hugetlbfs, page_size, bytes, None)
}
