// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a file system's bytes come from: a pool file on the host, or the superblock and log
//! files of a mounted one.
//!
//! Offsets are device offsets: byte 0 is the first byte of the superblock in either view.

pub mod in_memory;

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{OFlags, SeekFrom};
use rustix::io::Errno;
use zerocopy::transmute;

use crate::format::view::{View, ViewError};
use crate::format::{ENTRY_LEN, LOG_HEADER_LEN, LOG_OFFSET, LogHeader};
use crate::sys::dax::{Access, Mapping};
use crate::system::holders::{self, NamedProcess};
use crate::system::lock::{self, LockError};
use crate::system::neighbours::{self, PoolId};
use crate::system::ownership;
use crate::system::watcher;

/// Bytes of a famfs device.
pub trait Media: Send + Sync {
    /// Size of the device in bytes.
    fn len(&self) -> u64;

    /// Whether the device has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Offset of the device's byte 0 in what the user named, for messages.
    fn origin(&self) -> u64;

    /// Copies bytes from `offset` into `buf`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError>;

    /// Copies `buf` to `offset`. Eight aligned bytes become visible at once.
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), MediaError>;

    /// Makes the range read as zeros; takes no memory where there was none, if it can tell.
    fn zero(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        zero(self, offset..offset.saturating_add(len))
    }

    /// Makes what was written to the range durable, before anything that is written later.
    fn persist(&self, offset: u64, len: u64) -> Result<(), MediaError>;

    /// Makes what was written to the range visible to other systems, durable or not.
    fn show(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        self.persist(offset, len)
    }

    /// Drops cached copies of the range, so that the next read sees what others wrote.
    fn refresh(&self, offset: u64, len: u64) -> Result<(), MediaError>;

    /// Tells those who follow the log, or may lend the lease, to look. Whom this does not reach
    /// looks by himself, later.
    fn announce(&self) {}

    /// Another handle of the same bytes, which lives as long as it is needed.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] if this kind of media has only one, or what the system says.
    fn another(&self) -> io::Result<Box<dyn Media>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Bytes that are zeroed by one write.
const MIB: usize = 1 << 20;

/// Writes zeros to a range.
fn zero(media: &(impl Media + ?Sized), range: Range<u64>) -> Result<(), MediaError> {
    let zeros = vec![0; usize::try_from(range.end - range.start).map_or(MIB, |len| len.min(MIB))];
    let mut at = range.start;
    while at < range.end {
        let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        let piece = &zeros[..left.min(zeros.len())];
        media.write_at(at, piece)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// Writes zeros to what may have data of a range of a file; the rest are holes, which read as
/// zeros. `media` has the file from `origin` on.
pub fn zero_data(media: &impl Media, file: &File, offset: u64, len: u64) -> Result<(), MediaError> {
    let (origin, end) = (media.origin(), offset.saturating_add(len));
    let mut at = offset;
    while at < end {
        let from = match rustix::fs::seek(file, SeekFrom::Data(at + origin)) {
            Ok(from) => from - origin,
            Err(Errno::NXIO) => break,
            // A block device cannot tell.
            Err(_) => at,
        };
        if from >= end {
            break;
        }
        let hole = rustix::fs::seek(file, SeekFrom::Hole(from + origin)).map(|hole| hole - origin);
        at = hole.ok().filter(|hole| (from + 1..end).contains(hole)).unwrap_or(end);
        zero(media, from..at)?;
    }
    Ok(())
}

/// Why bytes of the media cannot be accessed.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// A file could not be opened or measured.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The path leads to something without bytes that could be mapped.
    #[error("{} is not a pool: expected a regular file or a block device", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// Other users could change the pool, or have put it there.
    #[error(
        "pool {} {fault}: others can read and change what is put there; use a pool of your own, or \
         --foreign-pool", path.display()
    )]
    Foreign {
        /// The pool.
        path: PathBuf,
        /// Why it is not this user's alone.
        fault: ownership::Fault,
    },
    /// Another process holds the pool's lock.
    #[error(
        "pool {} is in use by another process; it is locked{}: wait, or stop the virtual machines \
         that have it open (`fuser -v {}` names them){}",
        path.display(), holders::by(.holders), path.display(), lock::others(.holders)
    )]
    Busy {
        /// The pool.
        path: PathBuf,
        /// Who holds the lock, as far as known.
        holders: Vec<NamedProcess>,
    },
    /// The kernel has claimed the block device.
    #[error(
        "{} is mounted or part of another device: unmount it, or use its mount point",
        path.display()
    )]
    Claimed {
        /// The block device.
        path: PathBuf,
    },
    /// The pool's info block is damaged.
    #[error("pool {}", path.display())]
    View {
        /// The pool.
        path: PathBuf,
        /// What is wrong with it.
        source: ViewError,
    },
    /// Reading or writing failed.
    #[error("cannot {action} {len} bytes at offset {offset:#x} of {}", path.display())]
    Io {
        /// "read", "write" or "sync".
        action: &'static str,
        /// Offset in the named file.
        offset: u64,
        /// Number of bytes.
        len: u64,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// Whether pools of other users are written to.
static FOREIGN: AtomicBool = AtomicBool::new(false);

/// Sets whether this process may write to pools that other users can change, which
/// [`PoolFile::open`] refuses by default.
pub fn allow_foreign_pools(allowed: bool) {
    FOREIGN.store(allowed, Ordering::Relaxed);
}

/// A pool file, accessed without a guest: famfs starts where the pool's view says.
#[derive(Debug)]
pub struct PoolFile {
    file: File,
    path: PathBuf,
    view: View,
    pool_len: u64,
    /// Writes go through it where the file system has no write(2): hugetlbfs.
    mapping: Option<Arc<Mapping>>,
    /// A sync failed, so it is unknown what is durable.
    sync_failed: Arc<AtomicBool>,
}

#[cfg(test)]
impl PoolFile {
    /// A new pool of so many bytes, open for writing, without a name.
    pub(crate) fn for_tests(bytes: u64) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(bytes).unwrap();
        Self::open(file.path(), Access::Write).unwrap()
    }
}

impl PoolFile {
    /// Opens a pool file or block device. A writer takes the pool's lock and keeps it. A writer is
    /// refused a mounted block device, and a file that users other than itself and root can change
    /// ([`allow_foreign_pools`]).
    pub fn open(path: &Path, access: Access) -> Result<Self, MediaError> {
        Self::from_file(open_file(path, access)?, path, access)
    }

    /// Opens a pool file or block device to add to its log, as [`Self::open`] does. Virtual
    /// machines may have it meanwhile. Other writers of this host wait; `tell` gets whom this one
    /// waits for.
    pub fn open_beside_others(path: &Path, tell: impl FnOnce(&str)) -> Result<Self, MediaError> {
        Self::beside_others(open_file(path, Access::Write)?, path, tell)
    }

    /// Uses a pool that is already open for reading and writing, as [`Self::open_beside_others`]
    /// does; `path` is its name in messages.
    ///
    /// # Errors
    /// It stays locked, or cannot be measured.
    pub fn beside_others(
        file: File,
        path: &Path,
        tell: impl FnOnce(&str),
    ) -> Result<Self, MediaError> {
        let (name, mut tell) = (path.display().to_string(), Some(tell));
        let mut tell = |text: &str| {
            if let Some(tell) = tell.take() {
                tell(text);
            }
        };
        let error = |error| lock_error(path, error);
        lock::writers(&file, &name, lock::PATIENCE, &mut tell).map_err(error)?;
        // Who has it alone is at work on the whole pool, and ends.
        lock::shared(&file, &name, lock::PATIENCE, &mut tell).map_err(error)?;
        Self::new(file, path, Access::Write)
    }

    /// Opens a pool file to keep a place among the members: what is written there is not others',
    /// so this takes no lock.
    pub fn open_for_place(path: &Path) -> Result<Self, MediaError> {
        Self::new(open_file(path, Access::Write)?, path, Access::Write)
    }

    /// Which pool it is.
    pub fn id(&self) -> Result<PoolId, MediaError> {
        let open_error = |source| MediaError::Open { path: self.path.clone(), source };
        Ok(PoolId::of(&self.file.metadata().map_err(open_error)?))
    }

    /// Opens a pool file or block device for a command that nobody else may be beside. Other
    /// commands of this host are waited for, as by [`Self::open_beside_others`]; virtual machines
    /// are not.
    pub fn open_alone(path: &Path, tell: impl FnOnce(&str)) -> Result<Self, MediaError> {
        let file = open_file(path, Access::Write)?;
        lock::writers(&file, &path.display().to_string(), lock::PATIENCE, tell)
            .map_err(|error| lock_error(path, error))?;
        Self::from_file(file, path, Access::Write)
    }

    /// Uses a pool that is already open, as [`Self::open`] does; `path` is its name in messages.
    ///
    /// # Errors
    /// It is locked, or cannot be measured.
    pub fn from_file(file: File, path: &Path, access: Access) -> Result<Self, MediaError> {
        if access == Access::Write {
            lock::exclusive(&file, "pool", lock::BRIEF, |_| {})
                .map_err(|error| lock_error(path, error))?;
        }
        Self::new(file, path, access)
    }

    fn new(file: File, path: &Path, access: Access) -> Result<Self, MediaError> {
        let open_error = |source| MediaError::Open { path: path.to_owned(), source };
        // Metadata has no size for a block device; seeking to the end works for both.
        let pool_len =
            rustix::fs::seek(&file, SeekFrom::End(0)).map_err(|err| open_error(err.into()))?;
        let view = View::detect(&file, pool_len)
            .map_err(|source| MediaError::View { path: path.to_owned(), source })?;
        let mapping = match access == Access::Write && is_on_hugetlbfs(&file).map_err(open_error)? {
            true => Some(map(&file, pool_len).map_err(open_error)?),
            false => None,
        };
        let (path, sync_failed) = (path.to_owned(), Arc::default());
        Ok(Self { file, path, view, pool_len, mapping, sync_failed })
    }

    /// A second handle of the open pool, with the same lock.
    pub fn try_clone(&self) -> Result<Self, MediaError> {
        let path = self.path.clone();
        let file = self
            .file
            .try_clone()
            .map_err(|source| MediaError::Open { path: path.clone(), source })?;
        let (view, pool_len, mapping) = (self.view, self.pool_len, self.mapping.clone());
        let sync_failed = Arc::clone(&self.sync_failed);
        Ok(Self { file, path, view, pool_len, mapping, sync_failed })
    }

    /// The view that guests have of this pool.
    pub fn view(&self) -> View {
        self.view
    }

    fn check(&self, action: &'static str, offset: u64, len: u64) -> Result<u64, MediaError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => Ok(offset + self.origin()),
            _ => Err(self.io_error(action, offset, len, io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn io_error(
        &self,
        action: &'static str,
        offset: u64,
        len: u64,
        source: io::Error,
    ) -> MediaError {
        let offset = offset.saturating_add(self.origin());
        MediaError::Io { action, offset, len, path: self.path.clone(), source }
    }
}

fn lock_error(path: &Path, error: LockError) -> MediaError {
    let path = path.to_owned();
    match error {
        LockError::Busy { holders, .. } => MediaError::Busy { path, holders },
        LockError::System { source, .. } => MediaError::Open { path, source },
    }
}

/// Opens what a [`PoolFile`] is made of, without a lock.
fn open_file(path: &Path, access: Access) -> Result<File, MediaError> {
    let open_error = |source| MediaError::Open { path: path.to_owned(), source };
    let own = access == Access::Write && !FOREIGN.load(Ordering::Relaxed);
    // This is only a hint; the open file is what counts.
    let found = path.metadata().map_err(open_error)?;
    check_kind(path, &found)?;
    let exclusive = match access == Access::Write && found.file_type().is_block_device() {
        true => OFlags::EXCL,
        false => OFlags::empty(),
    };
    // If the path has become a pipe meanwhile, this does not wait for its other end.
    let flags = exclusive | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(access == Access::Write)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(|err| match err.kind() {
            io::ErrorKind::ResourceBusy => MediaError::Claimed { path: path.to_owned() },
            _ => open_error(err),
        })?;
    let opened = file.metadata().map_err(open_error)?;
    check_kind(path, &opened)?;
    if own && opened.is_file() {
        ownership::trusted_file(&opened)
            .map_err(|fault| MediaError::Foreign { path: path.to_owned(), fault })?;
    }
    Ok(file)
}

fn check_kind(path: &Path, metadata: &Metadata) -> Result<(), MediaError> {
    let kind = metadata.file_type();
    if kind.is_file() || kind.is_block_device() {
        return Ok(());
    }
    Err(MediaError::Kind { path: path.to_owned() })
}

/// Whether a file has no write(2) because it is made of huge pages.
fn is_on_hugetlbfs(file: &File) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(file)?.f_type == libc::HUGETLBFS_MAGIC)
}

/// Maps a whole file of huge pages. This reserves the pages that it still lacks, so that no later
/// store ends the process; it fails if there are too few.
fn map(file: &File, len: u64) -> io::Result<Arc<Mapping>> {
    let len = usize::try_from(len).map_err(io::Error::other)?;
    Mapping::new(file, len, Access::Write).map(Arc::new)
}

impl Media for PoolFile {
    fn len(&self) -> u64 {
        self.pool_len.saturating_sub(self.view.data_offset())
    }

    fn origin(&self) -> u64 {
        self.view.data_offset()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
        let len = buf.len() as u64;
        let at = self.check("read", offset, len)?;
        self.file.read_exact_at(buf, at).map_err(|err| self.io_error("read", offset, len, err))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), MediaError> {
        let len = buf.len() as u64;
        let at = self.check("write", offset, len)?;
        let written = match &self.mapping {
            Some(mapping) => {
                usize::try_from(at).map_err(io::Error::other).and_then(|at| mapping.write(at, buf))
            }
            None => self.file.write_all_at(buf, at),
        };
        written.map_err(|err| self.io_error("write", offset, len, err))
    }

    fn zero(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        zero_data(self, &self.file, offset, len)
    }

    fn persist(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        // The system reports a lost page once; the next sync would report success.
        if self.sync_failed.load(Ordering::Relaxed) {
            let lost = io::Error::other("an earlier sync failed, so what was written may be lost");
            return Err(self.io_error("sync", offset, len, lost));
        }
        self.file.sync_data().map_err(|err| {
            self.sync_failed.store(true, Ordering::Relaxed);
            self.io_error("sync", offset, len, err)
        })
    }

    fn show(&self, _offset: u64, _len: u64) -> Result<(), MediaError> {
        // As below.
        Ok(())
    }

    fn refresh(&self, _offset: u64, _len: u64) -> Result<(), MediaError> {
        // The page cache is the memory that guests map.
        Ok(())
    }

    fn announce(&self) {
        if let Ok(metadata) = self.file.metadata() {
            neighbours::wake_all(PoolId::of(&metadata));
        }
    }

    fn another(&self) -> io::Result<Box<dyn Media>> {
        Ok(Box::new(self.try_clone().map_err(io::Error::other)?))
    }
}

/// The superblock and log of a mounted file system, through its `.meta` files.
#[derive(Debug)]
pub struct MetaFiles {
    superblock: Mapping,
    log: Option<Mapping>,
    device: PathBuf,
    device_len: u64,
    /// Device number of the mounted file system, whose watch is told of what is published.
    watched: Option<u64>,
}

impl MetaFiles {
    /// Joins the two mappings; without a log only the superblock can be reached.
    pub fn new(
        superblock: Mapping,
        log: Option<Mapping>,
        device: PathBuf,
        device_len: u64,
    ) -> Result<Self, MediaError> {
        let media = Self { superblock, log, device, device_len, watched: None };
        media.refresh(0, media.superblock.len() as u64)?;
        if let Some(log) = &media.log {
            let mut bytes = [0; size_of::<LogHeader>()];
            media.refresh(LOG_OFFSET, bytes.len() as u64)?;
            media.read_at(LOG_OFFSET, &mut bytes)?;
            let header: LogHeader = transmute!(bytes);
            // The slots behind these are not read, and may be millions.
            let used = header.next_index.get().max(header.next_seqnum.get());
            let used = used.saturating_mul(ENTRY_LEN).saturating_add(LOG_HEADER_LEN);
            media.refresh(LOG_OFFSET, used.min(log.len() as u64))?;
        }
        Ok(media)
    }

    /// The same, of the mounted file system with that device number: its watch is told of what is
    /// published.
    #[must_use]
    pub fn watched_as(self, device: u64) -> Self {
        Self { watched: Some(device), ..self }
    }

    /// Runs `op` on the mapping that holds the range, at the offset inside it.
    fn locate(
        &self,
        action: &'static str,
        offset: u64,
        len: u64,
        op: impl FnOnce(&Mapping, usize) -> io::Result<()>,
    ) -> Result<(), MediaError> {
        let (mapping, start) = match offset.checked_sub(LOG_OFFSET) {
            None => (Some(&self.superblock), offset),
            Some(start) => (self.log.as_ref(), start),
        };
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let result = match mapping {
            Some(mapping) => op(mapping, start),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let path = || self.device.clone();
        result.map_err(|source| MediaError::Io { action, offset, len, path: path(), source })
    }
}

/// Length of a range for the mapping, which refuses one that does not fit.
fn as_len(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

impl Media for MetaFiles {
    fn len(&self) -> u64 {
        self.device_len
    }

    fn origin(&self) -> u64 {
        0
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
        self.locate("read", offset, buf.len() as u64, |map, start| map.read(start, buf))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), MediaError> {
        self.locate("write", offset, buf.len() as u64, |map, start| map.write(start, buf))
    }

    fn persist(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        self.locate("sync", offset, len, |map, start| map.write_back(start, as_len(len)))
    }

    fn refresh(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        self.locate("read", offset, len, |map, start| map.invalidate(start, as_len(len)))
    }

    fn announce(&self) {
        if let Some(device) = self.watched {
            watcher::wake(device);
        }
    }
}
