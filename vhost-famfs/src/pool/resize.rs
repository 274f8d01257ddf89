// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Changes the size of a pool that is not in use.
//!
//! A pool's size is stored in three places: the file's length, the info block and the superblock.
//! They are changed in an order in which the file is never shorter than the other two say. A crash
//! in between leaves an info block with another size than the file's; the same command then
//! finishes the work.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use famfs::format::view::{INFO_BLOCK_LEN, INFO_BLOCK_OFFSET, InfoBlock, View, ViewError};
use famfs::media::Media;
use famfs::replay::size::{self, DataEnd};
use famfs::replay::{Contents, ContentsError};
use famfs::store::superblock::{Superblock, SuperblockError};
use famfs::system::lock::{self, LockError};
use famfs::text::units::Bytes;
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::allocation::{self, MemoryError, Progress};
use super::bytes::{PoolBytes, PoolMedia};
use super::holders::{self, Holder};
use super::kind::Facts;
use super::open::{Owners, Purpose, open};
use super::remove::names;
use super::{Kind, MIN_SIZE, PoolError, PoolReport, inspect};

/// Which pool, and its new size.
#[derive(Clone, Debug)]
pub struct ResizeOptions {
    /// The pool.
    pub path: PathBuf,
    /// New size in bytes.
    pub size: u64,
    /// Which owners to accept.
    pub owners: Owners,
}

/// Why a pool was not resized; it is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// It is not a pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The size is not one that a guest can map.
    #[error("{found}: a pool needs at least 16 MiB, in steps of {unit}")]
    Size {
        /// The requested size.
        found: Bytes,
        /// What it must be a multiple of.
        unit: Bytes,
    },
    /// It is in use.
    #[error("pool {}: in use by {}: running VMs would not see the new size; stop them first", .pool.display(), names(.holders))]
    Held {
        /// The pool.
        pool: PathBuf,
        /// The processes that use it.
        holders: Vec<Holder>,
    },
    /// The end of the pool holds data.
    #[error("pool {}: holds data up to {end}, which would be lost at {size}; the smallest possible \
             size is {least}", .pool.display())]
    Data {
        /// The pool.
        pool: PathBuf,
        /// First byte after the data.
        end: Bytes,
        /// The requested size.
        size: Bytes,
        /// The smallest size that keeps all data.
        least: Bytes,
    },
    /// The end of the pool holds deleted files, which count until the log is compacted.
    #[error(
        "pool {}: deleted files use memory up to {end}, which {size} would cut off; free it with \
         `famfs --pool {} compact`: then the smallest possible size is {least}", .pool.display(), .pool.display()
    )]
    Deleted {
        /// The pool.
        pool: PathBuf,
        /// First byte after the deleted files.
        end: Bytes,
        /// The requested size.
        size: Bytes,
        /// The smallest size once the log is compacted.
        least: Bytes,
    },
    /// Its contents are not known.
    #[error("pool {}: its file system is damaged, so it is not known what a smaller size would cut \
             off", .pool.display())]
    Damaged {
        /// The pool.
        pool: PathBuf,
        /// The damage.
        #[source]
        source: ContentsError,
    },
    /// A part of its log cannot be read.
    #[error("pool {}: its log cannot be read completely, so it is not known what a smaller size \
             would cut off; see `famfs --pool {} fsck`", .0.display(), .0.display())]
    Unread(PathBuf),
    /// The info block does not fit the pool.
    #[error("pool {}: cannot be resized", .pool.display())]
    View {
        /// The pool.
        pool: PathBuf,
        /// The cause.
        #[source]
        source: ViewError,
    },
    /// The memory cannot be allocated.
    #[error("pool {}", .pool.display())]
    Memory {
        /// The pool.
        pool: PathBuf,
        /// The cause.
        #[source]
        source: MemoryError,
    },
    /// The superblock cannot be written.
    #[error("pool {}: cannot record its size in its file system", .pool.display())]
    Record {
        /// The pool.
        pool: PathBuf,
        /// The cause.
        #[source]
        source: SuperblockError,
    },
    /// The size of a device cannot be changed.
    #[error("pool {}: is a device, so its size cannot be changed", .0.display())]
    Device(PathBuf),
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

/// Makes a pool larger, or removes space without data from its end.
pub fn resize(options: &ResizeOptions, progress: Progress<'_>) -> Result<PoolReport, ResizeError> {
    change(options, progress, usize::MAX)?;
    Ok(inspect(&options.path)?)
}

/// Changes the size in at most that many places, as if the host had crashed then.
fn change(
    options: &ResizeOptions,
    progress: Progress<'_>,
    places: usize,
) -> Result<(), ResizeError> {
    let ResizeOptions { path, size, owners } = options;
    let file = open(path, Purpose::ReadAndWrite, *owners)?;
    let facts = Facts::of(&file, path)?;
    if facts.kind == Kind::Devdax {
        return Err(ResizeError::Device(path.clone()));
    }
    if *size < MIN_SIZE || !size.is_multiple_of(facts.unit()) {
        return Err(ResizeError::Size { found: Bytes(*size), unit: Bytes(facts.unit()) });
    }
    let new = Facts { size: *size, ..facts };
    let mut work = Work { file: &file, path, old: facts, new, limited: false };
    work.claim()?;
    let view = work.view()?;
    if let Ok(superblock) = Superblock::read(&PoolMedia::new(&file, facts, path, view)) {
        work.limited = work.is_limited(&superblock, view)?;
    }
    let steps = if *size < facts.size {
        work.check_cut(view)?;
        SHRINK
    } else {
        work.grow(progress)?;
        GROW
    };
    for step in steps.iter().take(places) {
        work.take(*step, view)?;
    }
    file.sync_all().map_err(work.cannot("sync it"))
}

/// A place where a pool's size is stored.
#[derive(Clone, Copy, Debug)]
enum Step {
    Superblock,
    Block,
    Length,
}

/// The orders in which the file is never shorter than the other two say. For a larger file, memory
/// or storage is allocated first. An info block with another size than the file's marks an
/// interrupted resize, so it is written first and last.
const SHRINK: &[Step] = &[Step::Block, Step::Superblock, Step::Length];
const GROW: &[Step] = &[Step::Superblock, Step::Block];

struct Work<'w> {
    file: &'w File,
    path: &'w Path,
    old: Facts,
    new: Facts,
    /// Whether the file system leaves a part of the pool to others.
    limited: bool,
}

impl Work<'_> {
    fn cannot(&self, action: &'static str) -> impl Fn(io::Error) -> ResizeError {
        let pool = self.path.to_owned();
        move |source| ResizeError::Io { pool: pool.clone(), action, source }
    }

    /// Makes sure that no process uses the pool, and that no program of this project starts to.
    fn claim(&self) -> Result<(), ResizeError> {
        let lock = lock::exclusive(self.file, "pool", lock::BRIEF, |_| {});
        let holders = holders::find(self.path, self.old.identity);
        if !holders.is_empty() {
            return Err(ResizeError::Held { pool: self.path.to_owned(), holders });
        }
        match lock {
            Ok(()) => Ok(()),
            Err(LockError::Busy { holders: by, .. }) => {
                Err(PoolError::Busy { pool: self.path.to_owned(), by }.into())
            }
            Err(LockError::System { source, .. }) => Err(self.cannot("lock it")(source)),
        }
    }

    /// The pool's view.
    fn view(&self) -> Result<View, ResizeError> {
        Ok(match self.info_block()? {
            Some(_) => View::Devdax,
            None => View::Raw,
        })
    }

    /// The pool's info block, if it has one. After an interrupted resize, its size may be smaller
    /// than the file's or the requested one.
    fn info_block(&self) -> Result<Option<InfoBlock>, ResizeError> {
        let block = self.block_bytes()?;
        let (old, new) = (self.old.size, self.new.size);
        let left = InfoBlock::claimed_len(&block)
            .filter(|len| (MIN_SIZE..=old).contains(len) || *len == new);
        InfoBlock::parse(&block, left.unwrap_or(old))
            .map_err(|source| ResizeError::View { pool: self.path.to_owned(), source })
    }

    fn block_bytes(&self) -> Result<[u8; INFO_BLOCK_LEN], ResizeError> {
        let mut block = [0; INFO_BLOCK_LEN];
        PoolBytes { file: self.file, facts: self.old }
            .read(INFO_BLOCK_OFFSET, &mut block)
            .map_err(self.cannot("read its info block"))?;
        Ok(block)
    }

    /// Refuses to cut off data, or deleted files that may still be replayed.
    fn check_cut(&self, view: View) -> Result<(), ResizeError> {
        let DataEnd { now, compacted } = match self.data_end(view)? {
            Some(end) => end,
            None => {
                let end = self.bytes_end(self.new.size)?;
                DataEnd { now: end, compacted: end }
            }
        };
        let new = self.new.size;
        if now <= new {
            return Ok(());
        }
        let pool = self.path.to_owned();
        let least = |end: u64| Bytes(end.next_multiple_of(self.new.unit()).max(MIN_SIZE));
        Err(match compacted < now {
            true => ResizeError::Deleted {
                pool,
                end: Bytes(now),
                size: Bytes(new),
                least: least(compacted),
            },
            false => {
                ResizeError::Data { pool, end: Bytes(now), size: Bytes(new), least: least(now) }
            }
        })
    }

    /// Where the data of a pool with a famfs ends, as offsets in the pool.
    fn data_end(&self, view: View) -> Result<Option<DataEnd>, ResizeError> {
        let media = PoolMedia::new(self.file, self.old, self.path, view);
        let contents = match Contents::read(&media) {
            Ok(contents) => contents,
            Err(ContentsError::Superblock(SuperblockError::Magic { .. })) => return Ok(None),
            Err(source) => {
                return Err(ResizeError::Damaged { pool: self.path.to_owned(), source });
            }
        };
        let DataEnd { now, compacted } = size::data_end(&contents, media.len())
            .ok_or_else(|| ResizeError::Unread(self.path.to_owned()))?;
        let origin = media.origin();
        let (mut now, mut compacted) = (now + origin, compacted + origin);
        // Slices are after a file system that does not have the whole pool.
        if self.limited {
            let behind = origin + contents.superblock.capacity(media.len());
            let start = behind.max(self.new.size);
            let end = self.bytes_end(start)?;
            if end > start {
                (now, compacted) = (now.max(end), compacted.max(end));
            }
        }
        Ok(Some(DataEnd { now, compacted }))
    }

    /// Whether the file system leaves a part of the pool to others. After an interrupted resize,
    /// its size is compared with the info block's.
    fn is_limited(&self, superblock: &Superblock, view: View) -> Result<bool, ResizeError> {
        let pool_len = match self.block_bytes().map(|block| InfoBlock::claimed_len(&block))? {
            Some(len) if view == View::Devdax => len,
            _ => self.old.size,
        };
        Ok(superblock.dev_size < pool_len.saturating_sub(view.data_offset()))
    }

    /// The offset after the last non-zero byte from `start` on; `start` if there is none.
    fn bytes_end(&self, start: u64) -> Result<u64, ResizeError> {
        let bytes = PoolBytes { file: self.file, facts: self.old };
        bytes.end_of_data(start, self.old.size).map_err(self.cannot("read it"))
    }

    fn grow(&self, progress: Progress<'_>) -> Result<(), ResizeError> {
        let (old, new) = (self.old.size, self.new.size);
        let memory = |source| ResizeError::Memory { pool: self.path.to_owned(), source };
        if self.old.kind == Kind::Hugetlbfs {
            allocation::check_free(self.old.kind, self.old.page_size, new - old, None)
                .map_err(memory)?;
        }
        let taken = match self.old.kind {
            Kind::File | Kind::Hugetlbfs => {
                allocation::take(self.file, self.old.page_size, old, new, progress)
            }
            _ => self
                .file
                .set_len(new)
                .map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO)),
        };
        taken.map_err(|errno| {
            // Restore the old size: nothing has been written after the old end.
            let _ = self.file.set_len(old);
            self.cannot("allocate the memory or storage for its new size")(errno.into())
        })
    }

    /// Changes the size in one place.
    fn take(&self, step: Step, view: View) -> Result<(), ResizeError> {
        match step {
            Step::Superblock => self.record(view),
            Step::Block if view == View::Devdax => self.record_block(),
            Step::Block => Ok(()),
            Step::Length => self.file.set_len(self.new.size).map_err(self.cannot("set its size")),
        }
    }

    /// Writes the new size into the superblock, if there is one.
    fn record(&self, view: View) -> Result<(), ResizeError> {
        let failed = |source| ResizeError::Record { pool: self.path.to_owned(), source };
        let media = PoolMedia::new(self.file, self.new, self.path, view);
        match Superblock::read(&media) {
            Ok(superblock) => {
                // A part that did not belong to the file system must not become part of it.
                let len = match self.limited {
                    true => superblock.dev_size.min(media.len()),
                    false => media.len(),
                };
                size::record(&media, len).map_err(failed)
            }
            Err(source @ SuperblockError::Media(_)) => Err(failed(source)),
            // There is none, or it is damaged and the pool grows.
            Err(_) => Ok(()),
        }
    }

    fn record_block(&self) -> Result<(), ResizeError> {
        let Some(old) = self.info_block()? else { return Ok(()) };
        let block = InfoBlock::build(self.new.size, old.uuid())
            .map_err(|source| ResizeError::View { pool: self.path.to_owned(), source })?;
        PoolBytes { file: self.file, facts: self.new }
            .write(INFO_BLOCK_OFFSET, block.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(self.cannot("write its info block"))
    }
}

#[cfg(test)]
#[path = "resize_model_tests.rs"]
mod model_tests;
#[cfg(test)]
#[path = "resize_tests.rs"]
mod tests;
