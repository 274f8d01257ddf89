// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Gives a file system more of its pool, while VMs use it.
//!
//! The VMs map the whole file from the beginning, so it has the room already, as holes. Only the
//! size of the device in the superblock changes, by one store. Readers look at it after the number
//! of published entries, so they know of the room before they see what is put there.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use famfs::media::{Media, MediaError, PoolFile};
use famfs::replay::size;
use famfs::store::identity::{Identity, RunningSystem};
use famfs::store::lease::{Keeper, LeaseError, Timing};
use famfs::store::superblock::{Superblock, SuperblockError};
use famfs::system::holders::{self as famfs_holders, NamedProcess};
use famfs::text::units::{About, Bytes};
use rustix::fs::FallocateFlags;
use uuid::Uuid;

use super::allocation::{self, Progress};
use super::bytes::PoolBytes;
use super::holders;
use super::kind::Facts;
use super::open::{Owners, Purpose, open};
use super::{Kind, PoolError, PoolReport, inspect};

/// Which pool, and what its file system gets.
#[derive(Clone, Debug)]
pub struct GrowOptions {
    /// The pool.
    pub path: PathBuf,
    /// Where the file system is to end: bytes from the start of the pool.
    pub size: u64,
    /// Which owners to accept.
    pub owners: Owners,
}

/// Why a file system was not made larger; it is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum GrowError {
    /// It is not a pool, or not one of this user's.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// It cannot be accessed, or is locked.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// It has no file system, or a damaged one.
    #[error("pool {}: cannot grow", .pool.display())]
    Superblock {
        /// The pool.
        pool: PathBuf,
        /// The cause.
        #[source]
        source: SuperblockError,
    },
    /// The size is not one of whole units.
    #[error("{found}: expected a multiple of {unit}")]
    Size {
        /// The requested size.
        found: Bytes,
        /// What it must be a multiple of.
        unit: Bytes,
    },
    /// There is no such room.
    #[error(
        "pool {}: {wanted} are more than its file has, {file}: stop the VMs and make that larger \
         with `vhost-famfs pool resize`, or make a pool with room (`pool create --max`)",
        .pool.display()
    )]
    Room {
        /// The pool.
        pool: PathBuf,
        /// The requested size.
        wanted: Bytes,
        /// The size of the file.
        file: Bytes,
    },
    /// The file system has as much already.
    #[error("pool {}: its file system has {has} already, expected a larger size than that", .pool.display())]
    Less {
        /// The pool.
        pool: PathBuf,
        /// Where the file system ends.
        has: Bytes,
    },
    /// The room has data of others.
    #[error(
        "pool {}: there is data before {end}, behind the file system, perhaps of a VM with a slice: \
         what is there does not become part of a file system", .pool.display()
    )]
    Data {
        /// The pool.
        pool: PathBuf,
        /// First byte after the data.
        end: Bytes,
    },
    /// A VM has a part of the room.
    #[error(
        "pool {}: a part of it that lies behind the file system is in use{}: end it, or ask for less",
        .pool.display(), famfs_holders::by(.by)
    )]
    Part {
        /// The pool.
        pool: PathBuf,
        /// Who maps it.
        by: Vec<NamedProcess>,
    },
    /// There is too little memory or storage.
    #[error("pool {}: needs {needed} more, but its file system has only {} free", .pool.display(), About(*.free))]
    Space {
        /// The pool.
        pool: PathBuf,
        /// How many bytes.
        needed: Bytes,
        /// Free bytes.
        free: u64,
    },
    /// The master of the file system writes, or has just ended.
    #[error("pool {}", .pool.display())]
    Lease {
        /// The pool.
        pool: PathBuf,
        /// The cause.
        #[source]
        source: LeaseError,
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
}

/// Makes the file system of a pool larger, within the pool's file. `progress` gets how far storage
/// is reserved; `tell` gets whom this waits for.
///
/// # Errors
/// There is no room or no file system, the room has data or users, or another writer does not
/// end.
pub fn grow(
    options: &GrowOptions,
    progress: Progress<'_>,
    tell: impl Fn(&str),
) -> Result<PoolReport, GrowError> {
    let GrowOptions { path, size, owners } = options;
    let file = open(path, Purpose::ReadAndWrite, *owners)?;
    let facts = Facts::of(&file, path)?;
    let io = |action| move |source| GrowError::Io { pool: path.clone(), action, source };
    if !size.is_multiple_of(facts.unit()) {
        return Err(GrowError::Size { found: Bytes(*size), unit: Bytes(facts.unit()) });
    }
    if *size > facts.size {
        let (wanted, file) = (Bytes(*size), Bytes(facts.size));
        return Err(GrowError::Room { pool: path.clone(), wanted, file });
    }
    let handle = file.try_clone().map_err(io("use it"))?;
    let media = PoolFile::beside_others(handle, path, &tell)?;
    let failed = |source| GrowError::Superblock { pool: path.clone(), source };
    let superblock = Superblock::read(&media).map_err(failed)?;
    let lease = lease(&media, &superblock, path, &tell)?;
    let end = media.origin() + superblock.capacity(media.len());
    if *size <= end {
        return Err(GrowError::Less { pool: path.clone(), has: Bytes(end) });
    }
    let room = end..*size;
    check_free(&file, facts, path, &room)?;
    reserve(&file, facts, path, &room, progress)?;
    lease.check().map_err(|source| GrowError::Lease { pool: path.clone(), source })?;
    // That took a while.
    check_free(&file, facts, path, &room)?;
    size::record(&media, size - media.origin()).map_err(failed)?;
    // Who comes from now on sees the new size; nobody has put anything there yet.
    if let Err(error) = check_free(&file, facts, path, &room) {
        size::record(&media, end - media.origin()).map_err(failed)?;
        return Err(error);
    }
    media.announce();
    drop(lease);
    Ok(inspect(path)?)
}

/// The host's turn to write.
fn lease(
    media: &PoolFile,
    superblock: &Superblock,
    path: &Path,
    tell: &impl Fn(&str),
) -> Result<Keeper, GrowError> {
    let failed = |source| GrowError::Lease { pool: path.to_owned(), source };
    let another = media.another().map_err(|source| GrowError::Io {
        pool: path.to_owned(),
        action: "open it again",
        source,
    })?;
    let host = Identity::this(Uuid::nil()).map_err(LeaseError::from).map_err(failed)?;
    let timing = Timing::default();
    let waiting = |holder: &RunningSystem| {
        let patience = timing.patience.as_secs();
        tell(&format!(
            "waiting up to {patience} s for {holder}, which is writing, or has just ended"
        ));
    };
    Keeper::acquire(another, superblock.fs_uuid, host, false, timing, waiting).map_err(failed)
}

/// Makes sure that nobody has a range of the pool, and nothing is in it.
fn check_free(file: &File, facts: Facts, path: &Path, room: &Range<u64>) -> Result<(), GrowError> {
    let pool = || path.to_owned();
    let by = holders::of_part(facts.identity, room);
    if !by.is_empty() {
        return Err(GrowError::Part { pool: pool(), by });
    }
    if facts.kind == Kind::Devdax {
        return Ok(());
    }
    let end = PoolBytes { file, facts }.end_of_data(room.start, room.end);
    match end.map_err(|source| GrowError::Io { pool: pool(), action: "read it", source })? {
        end if end > room.start => Err(GrowError::Data { pool: pool(), end: Bytes(end) }),
        _ => Ok(()),
    }
}

/// Makes sure that there is memory or storage for a range of the pool.
fn reserve(
    file: &File,
    facts: Facts,
    path: &Path,
    room: &Range<u64>,
    progress: Progress<'_>,
) -> Result<(), GrowError> {
    let pool = || path.to_owned();
    let io = |action| move |source| GrowError::Io { pool: path.to_owned(), action, source };
    let needed = room.end - room.start;
    match facts.kind {
        Kind::Tmpfs => {
            let free = allocation::free_space(file)
                .map_err(|errno| io("determine the free space")(errno.into()))?;
            match free.filter(|free| *free < needed) {
                Some(free) => Err(GrowError::Space { pool: pool(), needed: Bytes(needed), free }),
                None => Ok(()),
            }
        }
        Kind::File => allocation::take(file, facts.page_size, room.start, room.end, progress)
            .map_err(|errno| {
                // It reads as zero, so nothing is lost.
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let _ = rustix::fs::fallocate(file, hole, room.start, needed);
                io("reserve storage for it")(errno.into())
            }),
        // A device and huge pages are there; a memfd has no limit of its own.
        Kind::Devdax | Kind::Hugetlbfs | Kind::Memfd => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use famfs::format::view::View;
    use famfs::sys::dax::{Access, Mapping};

    use super::*;
    use crate::pool::{CreateError, CreateOptions, create};

    const MIB: u64 = 1 << 20;

    fn options(path: PathBuf, view: View) -> CreateOptions {
        let options = CreateOptions::new(path, 32 * MIB, view);
        CreateOptions { max: Some(64 << 30), mkfs: true, ..options }
    }

    fn to(path: &Path, size: u64) -> Result<PoolReport, GrowError> {
        let options = GrowOptions { path: path.to_owned(), size, owners: Owners::Trusted };
        grow(&options, &mut |_, _| (), |_| ())
    }

    fn capacity(path: &Path) -> u64 {
        inspect(path).unwrap().famfs.unwrap().capacity
    }

    #[test]
    fn a_pool_with_room_grows_into_it() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        for view in [View::Devdax, View::Raw] {
            let path = dir.path().join(view.name());
            let made = create(&options(path.clone(), view), &mut |_, _| ()).unwrap();
            assert_eq!((made.size, made.view), (64 << 30, view.name()));
            assert!(made.allocated < 16 * MIB, "{made:?}");
            let before = capacity(&path);
            // Users that map it from the start do not matter.
            let file = File::open(&path).unwrap();
            let _mapping = Mapping::new(&file, 32 << 20, Access::Read).unwrap();
            to(&path, 48 * MIB).unwrap();
            assert_eq!(capacity(&path), before + 16 * MIB);
            assert!(matches!(to(&path, 48 * MIB), Err(GrowError::Less { .. })));
            assert!(matches!(to(&path, 40 * MIB), Err(GrowError::Less { .. })));
            assert!(matches!(to(&path, 49 * MIB), Err(GrowError::Size { .. })));
            assert!(matches!(to(&path, 65 << 30), Err(GrowError::Room { .. })));
            assert_eq!(capacity(&path), before + 16 * MIB);
        }
    }

    #[test]
    fn what_others_have_behind_it_stays_theirs() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("pool");
        create(&options(path.clone(), View::Devdax), &mut |_, _| ()).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        file.write_all_at(b"x", 40 * MIB).unwrap();
        match to(&path, 64 * MIB) {
            Err(GrowError::Data { end, .. }) => assert_eq!(end.0, 40 * MIB + 1),
            other => panic!("{other:?}"),
        }
        to(&path, 40 * MIB).unwrap();
    }

    #[test]
    fn storage_is_reserved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool");
        let options = CreateOptions { max: Some(1 << 30), ..options(path.clone(), View::Devdax) };
        let made = create(&options, &mut |_, _| ()).unwrap();
        let stored = || path.metadata().unwrap().blocks() * 512;
        let (at_first, later) = match made.kind {
            Kind::File => (32 * MIB..40 * MIB, 64 * MIB..72 * MIB),
            // Memory is taken when it is touched.
            _ => (MIB..16 * MIB, MIB..16 * MIB),
        };
        assert!(at_first.contains(&stored()), "{}", stored());
        to(&path, 64 * MIB).unwrap();
        assert!(later.contains(&stored()), "{}", stored());
    }

    #[test]
    fn room_is_more_than_the_size() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("pool");
        for max in [16 * MIB, 32 * MIB] {
            let options = CreateOptions { max: Some(max), ..options(path.clone(), View::Raw) };
            let error = create(&options, &mut |_, _| ()).unwrap_err();
            assert!(matches!(error, CreateError::Max { .. }), "{error}");
        }
        let options = CreateOptions { max: Some(33 * MIB), ..options(path.clone(), View::Raw) };
        let error = create(&options, &mut |_, _| ()).unwrap_err();
        assert!(matches!(error, CreateError::Size { .. }), "{error}");
        assert!(!path.exists());
    }
}
