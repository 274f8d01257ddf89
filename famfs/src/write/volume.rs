// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A file system to work on, whether it is mounted or a pool file on the host.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use crate::format::ALLOC_UNIT;
use crate::format::map::Memory;
use crate::format::path::RelPath;
use crate::media::{Media, PoolFile};
use crate::replay::Attributes;
use crate::replay::tree::Tree;
use crate::replay::tree::change::Change;
use crate::sys::dax::Access;

/// A file system whose files can be made and accessed. Nothing here touches the log.
///
/// Files and directories are made before their entries are published, because a file's bytes have
/// to be complete then; all else is carried out afterwards, as the log tells it.
pub trait Volume {
    /// Superblock and log.
    fn media(&self) -> &dyn Media;

    /// Another handle of the superblock's 2 MiB, for the master's lease.
    fn lease_media(&self) -> io::Result<Box<dyn Media>>;

    /// Makes a directory.
    fn make_dir(&self, path: &RelPath, attributes: &Attributes) -> io::Result<()>;

    /// Makes a file with its memory; its contents are what the memory holds. Its time is set when
    /// the change that makes it is carried out.
    fn make_file(
        &self,
        path: &RelPath,
        attributes: &Attributes,
        size: u64,
        memory: &Memory,
    ) -> io::Result<Box<dyn FileBytes + '_>>;

    /// Makes a file that takes the place of what is at its path when the change that makes it is
    /// carried out. Until then nobody sees it.
    fn make_replacement(
        &self,
        path: &RelPath,
        attributes: &Attributes,
        size: u64,
        memory: &Memory,
    ) -> io::Result<Box<dyn FileBytes + '_>> {
        self.make_file(path, attributes, size, memory)
    }

    /// Opens a file of the log.
    fn open_file(
        &self,
        path: &RelPath,
        size: u64,
        memory: &Memory,
        access: Access,
    ) -> io::Result<Box<dyn FileBytes + '_>>;

    /// Removes a file that was to take the place of another one, and did not make it into the log.
    fn remove_replacement(&self, _path: &RelPath) -> io::Result<()> {
        Ok(())
    }

    /// Removes a file or directory that did not make it into the log.
    fn remove(&self, path: &RelPath, is_dir: bool) -> io::Result<()>;

    /// Keeps others from carrying out what is published next, until the result is dropped.
    fn lock_play(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }

    /// Carries out a published change. What is there already is no error.
    fn carry_out(&self, tree: &Tree, change: &Change) -> io::Result<()>;

    /// Notes that everything below slot `next` was carried out, unless `complete` is false; the
    /// entry before it has this checksum.
    fn note_played(&self, tree: &Tree, next: u64, checksum: u64, complete: bool) -> io::Result<()>;

    /// The device, if the memory of files may be written through it; else each file is to be
    /// opened.
    fn device(&self) -> Option<&dyn Media> {
        None
    }

    /// Makes durable what was written to files that are in the log already. For new files, the
    /// append that publishes them does it.
    fn sync(&self) -> io::Result<()>;
}

/// The bytes of one file. Several threads may work on different ranges.
pub trait FileBytes: Send + Sync {
    /// Copies bytes out of the file.
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Copies bytes into the file. There is no memory for bytes that its [`Memory`] leaves out.
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()>;

    /// Copies `len` bytes from `offset` of a source file to the same offset. `buf` may be used as a
    /// buffer. [`io::ErrorKind::UnexpectedEof`] means that the source is shorter.
    fn write_from(
        &self,
        source: &File,
        offset: u64,
        len: usize,
        buf: &mut [u8],
    ) -> Result<(), TransferError> {
        for (at, len) in pieces(offset, len, buf.len()) {
            let buf = &mut buf[..len];
            source.read_exact_at(buf, at).map_err(TransferError::Source)?;
            self.write(at, buf).map_err(TransferError::Target)?;
        }
        Ok(())
    }

    /// Makes what was written to a range visible to other hosts.
    fn write_back(&self, offset: u64, len: usize) -> io::Result<()>;

    /// Drops cached copies of a range, so that the next read sees what the memory holds.
    fn refresh(&self, offset: u64, len: usize) -> io::Result<()>;

    /// Clears what is behind the end of the file in its last page, if the file is in pieces, and
    /// makes that visible to other hosts.
    fn clear_tail(&self) -> io::Result<()>;

    /// Clears what is behind the end of the file in its last page, if the file is in pieces, and
    /// makes all that was written visible to other hosts.
    fn finish(&self) -> io::Result<()>;
}

/// Which side of a copy failed.
#[derive(Debug)]
pub enum TransferError {
    /// Reading the source.
    Source(io::Error),
    /// Writing the file.
    Target(io::Error),
}

/// A pool file: files exist as soon as the log has them, their bytes are ranges of the pool.
pub struct OfflineVolume<M = PoolFile> {
    pool: M,
}

impl<M: Media> OfflineVolume<M> {
    /// Works on an open pool file, or on media that are like one.
    pub fn new(pool: M) -> Self {
        Self { pool }
    }
}

impl<M: Media> Volume for OfflineVolume<M> {
    fn media(&self) -> &dyn Media {
        &self.pool
    }

    fn lease_media(&self) -> io::Result<Box<dyn Media>> {
        self.pool.another()
    }

    fn make_dir(&self, _path: &RelPath, _attributes: &Attributes) -> io::Result<()> {
        Ok(())
    }

    fn make_file(
        &self,
        path: &RelPath,
        _attributes: &Attributes,
        size: u64,
        memory: &Memory,
    ) -> io::Result<Box<dyn FileBytes + '_>> {
        self.open_file(path, size, memory, Access::Write)
    }

    fn open_file(
        &self,
        _path: &RelPath,
        size: u64,
        memory: &Memory,
        _access: Access,
    ) -> io::Result<Box<dyn FileBytes + '_>> {
        Ok(Box::new(PoolRanges { pool: &self.pool, size, memory: memory.clone() }))
    }

    fn remove(&self, _path: &RelPath, _is_dir: bool) -> io::Result<()> {
        Ok(())
    }

    fn carry_out(&self, _tree: &Tree, _change: &Change) -> io::Result<()> {
        Ok(())
    }

    fn note_played(&self, _: &Tree, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn device(&self) -> Option<&dyn Media> {
        Some(&self.pool)
    }

    fn sync(&self) -> io::Result<()> {
        self.pool.persist(0, self.pool.len()).map_err(io::Error::other)
    }
}

struct PoolRanges<'p> {
    pool: &'p dyn Media,
    size: u64,
    memory: Memory,
}

impl PoolRanges<'_> {
    /// Calls `op` for each part of a range: device offset, or `None` in a hole, and bounds in the
    /// buffer.
    fn parts(
        &self,
        offset: u64,
        len: usize,
        mut op: impl FnMut(Option<u64>, Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < len {
            let Some((at, part)) = self.memory.part(offset + done as u64) else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let part = usize::try_from(part).unwrap_or(usize::MAX).min(len - done);
            op(at, done..done + part)?;
            done += part;
        }
        Ok(())
    }
}

impl FileBytes for PoolRanges<'_> {
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.parts(offset, buf.len(), |at, range| match at {
            Some(at) => self.pool.read_at(at, &mut buf[range]).map_err(io::Error::other),
            None => {
                buf[range].fill(0);
                Ok(())
            }
        })
    }

    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.parts(offset, buf.len(), |at, range| match at {
            Some(at) => self.pool.write_at(at, &buf[range]).map_err(io::Error::other),
            None => Err(io::ErrorKind::StorageFull.into()),
        })
    }

    fn write_back(&self, _offset: u64, _len: usize) -> io::Result<()> {
        Ok(())
    }

    fn refresh(&self, _offset: u64, _len: usize) -> io::Result<()> {
        // The page cache is the memory that guests map.
        Ok(())
    }

    fn clear_tail(&self) -> io::Result<()> {
        let Memory::Pieces(pieces) = &self.memory else { return Ok(()) };
        let Some((at, extent)) = pieces.last().filter(|(at, extent)| at + extent.len > self.size)
        else {
            return Ok(());
        };
        let start = self.size - at;
        // Less than a page.
        let zeros = vec![0; usize::try_from(extent.len - start).unwrap_or(0)];
        self.pool.write_at(extent.offset + start, &zeros).map_err(io::Error::other)
    }

    /// The append that publishes the file syncs the pool before it moves the index; a file that
    /// exists already waits for [`Volume::sync`].
    fn finish(&self) -> io::Result<()> {
        self.clear_tail()
    }
}

/// Splits a range into pieces of at most `most` bytes: offset and length of each.
fn pieces(offset: u64, len: usize, most: usize) -> impl Iterator<Item = (u64, usize)> {
    (0..len).step_by(most.max(1)).map(move |at| (offset + at as u64, most.min(len - at)))
}

/// Bytes that one copy step moves: an allocation unit, so that a step touches few huge pages.
// 2 MiB fits every usize.
#[allow(clippy::cast_possible_truncation)]
pub const COPY_STEP: usize = ALLOC_UNIT as usize;

/// Splits `size` bytes into steps of [`COPY_STEP`]: offset and length of each.
pub fn steps(size: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..size).step_by(COPY_STEP).map(move |offset| {
        let left = usize::try_from(size - offset).unwrap_or(usize::MAX);
        (offset, left.min(COPY_STEP))
    })
}

/// The same for a range of bytes.
pub fn steps_of(range: &Range<u64>) -> impl Iterator<Item = (u64, usize)> + use<> {
    let start = range.start;
    steps(range.end - start).map(move |(offset, len)| (start + offset, len))
}
