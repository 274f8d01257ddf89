// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The private changes to a base image: a sparse file with the changed sectors and two maps of
//! them.
//!
//! Why it is safe:
//!
//! * A sector counts as permanently changed only once its bit in the *durable map* is set. That bit
//!   is written only once the sector itself is on disk ([`Overlay::commit`]). Whatever part of
//!   later writes survives a power failure, each sector in the file is as it was last flushed, or
//!   as written after that.
//! * The bit in the *pending map* is written together with the sector, before the write is
//!   answered. It is then in the page cache, which outlives the process, so a killed server loses
//!   nothing that was answered. After a boot, the pending map is ignored.
//! * Bits are never cleared, and each stands for the smallest unit of a write: no write has to read
//!   and rewrite a larger block.

mod format;
mod map;
mod storage;

#[cfg(test)]
mod crash_tests;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use famfs::text::units::Bytes;
use uuid::Uuid;
use zerocopy::IntoBytes;

pub use format::{BaseIdentity, Hasher, Header, HeaderError, MAX_SIZE, SECTOR, short_digest};
use format::{Layout, PAGE, Session};
use map::Map;
pub use storage::Storage;

/// Maps are read in chunks of this size.
const PIECE: usize = 1 << 20;

/// How long changes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Until the file is removed.
    Forever,
    /// As long as the process runs: only the data is written, and not necessarily to disk.
    WithProcess,
}

/// Why a file cannot be used as an overlay.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// Not an overlay, or a damaged one.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It belongs to a base of another size.
    #[error(
        "belongs to another base: to one of {}, the image has {}; use the image for which it was \
         created",
        Bytes(*.expected), Bytes(*.found)
    )]
    BaseSize {
        /// Size of the overlay's base.
        expected: u64,
        /// Size of the image.
        found: u64,
    },
    /// It belongs to a base with other contents.
    #[error(
        "belongs to another base: to one with SHA-256 {}..., the image's begins with {}; use the \
         image for which it was created, unchanged",
        short_digest(.expected), short_digest(.found)
    )]
    BaseDigest {
        /// Size of the overlay's base.
        expected: [u8; 32],
        /// Size of the image.
        found: [u8; 32],
    },
    /// It is too short.
    #[error("is {found} bytes long, expected {expected}: it has been truncated")]
    Truncated {
        /// The length found.
        found: u64,
        /// The correct length.
        expected: u64,
    },
    /// A system call failed.
    #[error("cannot {0} it")]
    Io(&'static str, #[source] io::Error),
}

fn io(action: &'static str) -> impl Fn(io::Error) -> OverlayError {
    move |source| OverlayError::Io(action, source)
}

/// Pages of the map with bits that are not yet durable.
type Dirty = BTreeSet<u64>;

/// An open overlay.
#[derive(Debug)]
pub struct Overlay<S> {
    storage: S,
    layout: Layout,
    keep: Keep,
    present: RwLock<Map>,
    /// Also held while bits are set, so that an older word cannot overwrite a newer one.
    dirty: Mutex<Dirty>,
    /// Held by the commit that is running; there is only one at a time.
    committing: Mutex<()>,
    /// Whether a sync failed: the kernel forgets which pages it could not write.
    failed: AtomicBool,
}

/// Where a range of the device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// In the base, at the same offset.
    Base,
    /// In the overlay file, from this offset on.
    Overlay(u64),
}

/// The length of an overlay file for a base of `size` bytes.
pub fn file_len(size: u64) -> u64 {
    Layout::new(size).file_len()
}

/// Reads and checks the header of an overlay file of `len` bytes.
pub fn read_header(storage: &impl Storage, len: u64) -> Result<Header, OverlayError> {
    let mut page = [0; PAGE];
    if len < PAGE as u64 {
        return Err(OverlayError::Truncated { found: len, expected: PAGE as u64 });
    }
    storage.read_at(0, &mut page).map_err(io("read"))?;
    let header = Header::parse(page)?;
    let expected = file_len(header.base().size);
    if len < expected {
        return Err(OverlayError::Truncated { found: len, expected });
    }
    Ok(header)
}

/// Refuses a base other than the header's.
pub fn check_base(header: &Header, base: BaseIdentity) -> Result<(), OverlayError> {
    let own = header.base();
    if own.size != base.size {
        return Err(OverlayError::BaseSize { expected: own.size, found: base.size });
    }
    if own.digest != base.digest {
        return Err(OverlayError::BaseDigest { expected: own.digest, found: base.digest });
    }
    Ok(())
}

/// Turns a file of [`file_len`] zeros into an overlay. The header is written last, so a file
/// without one is known to be incomplete.
pub fn format(storage: &impl Storage, base: BaseIdentity, id: Uuid) -> Result<(), OverlayError> {
    storage.sync().map_err(io("sync"))?;
    storage.write_at(0, Header::new(base, id).as_bytes()).map_err(io("write"))?;
    storage.sync().map_err(io("sync"))
}

impl<S: Storage> Overlay<S> {
    /// Opens an overlay whose header has been checked. `boot` identifies the current boot;
    /// `writable` allows changes.
    pub fn open(storage: S, size: u64, boot: Uuid, writable: bool) -> Result<Self, OverlayError> {
        let layout = Layout::new(size);
        let durable = read_map(&storage, layout, layout.durable())?;
        let mut session = [0; PAGE];
        storage.read_at(layout.session(), &mut session).map_err(io("read"))?;
        let mut present = durable.clone();
        if Session::is_of(&session, boot) {
            let pending = read_map(&storage, layout, layout.pending())?;
            for number in pending.differing_pages(&durable) {
                present.add(number * PAGE as u64, &pending.page(number));
            }
        } else if writable {
            // In this order: bits of an earlier boot must never be mistaken for this one's.
            storage.punch(layout.pending(), layout.map_len).map_err(io("clear"))?;
            storage.sync().map_err(io("sync"))?;
            storage
                .write_at(layout.session(), Session::new(boot).as_bytes())
                .map_err(io("write"))?;
        }
        if !writable {
            return Ok(Self::new(storage, layout, Keep::WithProcess, present, Dirty::new()));
        }
        let dirty = present.differing_pages(&durable).into_iter().collect();
        Ok(Self::new(storage, layout, Keep::Forever, present, dirty))
    }

    /// An overlay in a file of [`file_len`] zeros that will not be opened again.
    pub fn ephemeral(storage: S, size: u64) -> Self {
        let layout = Layout::new(size);
        Self::new(storage, layout, Keep::WithProcess, Map::new(layout.map_len), Dirty::new())
    }

    fn new(storage: S, layout: Layout, keep: Keep, present: Map, dirty: Dirty) -> Self {
        Self {
            storage,
            layout,
            keep,
            present: RwLock::new(present),
            dirty: Mutex::new(dirty),
            committing: Mutex::new(()),
            failed: AtomicBool::new(false),
        }
    }

    fn map<T>(&self, look: impl FnOnce(&Map) -> T) -> T {
        look(&self.present.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn dirty(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sectors of a range of bytes of the device; both ends must be multiples of [`SECTOR`].
    fn sectors(&self, offset: u64, len: u64) -> io::Result<Range<u64>> {
        let end = offset.checked_add(len).filter(|end| *end <= self.layout.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if !offset.is_multiple_of(SECTOR) || !len.is_multiple_of(SECTOR) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(offset / SECTOR..end / SECTOR)
    }

    /// Where a range of the device is, if it is all in one place.
    pub fn side(&self, offset: u64, len: u64) -> Option<Side> {
        let sectors = self.sectors(offset, len).ok()?;
        let run = self.map(|map| map.run(sectors.start, sectors.end));
        let side =
            if run.present { Side::Overlay(self.layout.data() + offset) } else { Side::Base };
        (run.end == sectors.end).then_some(side)
    }

    /// The file that stores it.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Fills `buf` with the data at `offset` of the device. Data that was never written is read by
    /// calling `base` with an offset and a part of `buf`.
    pub fn read(
        &self,
        offset: u64,
        buf: &mut [u8],
        base: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let sectors = self.sectors(offset, buf.len() as u64)?;
        let mut rest = buf;
        for run in self.map(|map| map.runs(sectors)) {
            let (at, len) = (run.start * SECTOR, (run.end - run.start) * SECTOR);
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            let (part, behind) =
                rest.split_at_mut_checked(len).ok_or(io::ErrorKind::UnexpectedEof)?;
            if run.present {
                self.storage.read_at(self.layout.data() + at, part)?;
            } else {
                base(at, part)?;
            }
            rest = behind;
        }
        Ok(())
    }

    /// Writes `buf` to `offset` of the device. After it returns, the death of the process loses
    /// nothing of it.
    pub fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let sectors = self.sectors(offset, buf.len() as u64)?;
        self.check()?;
        self.storage.write_at(self.layout.data() + offset, buf)?;
        self.mark(&sectors)
    }

    /// Makes a range read as zeros, like [`Self::write`] with zeros. With `keep_space`, later
    /// writes to it must not lack space.
    pub fn write_zeros(&self, offset: u64, len: u64, keep_space: bool) -> io::Result<()> {
        let sectors = self.sectors(offset, len)?;
        self.check()?;
        let at = self.layout.data() + offset;
        if keep_space {
            self.storage.zero(at, len)?
        } else {
            self.storage.punch(at, len)?
        }
        self.mark(&sectors)
    }

    /// Frees the space of a range. Data in the overlay then reads as zeros; data in the base is
    /// unchanged.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let sectors = self.sectors(offset, len)?;
        self.check()?;
        for run in self.map(|map| map.runs(sectors)).into_iter().filter(|run| run.present) {
            let len = (run.end - run.start) * SECTOR;
            self.storage.punch(self.layout.data() + run.start * SECTOR, len)?;
        }
        Ok(())
    }

    /// Returns once all previous writes survive a power failure.
    pub fn commit(&self) -> io::Result<()> {
        if self.keep == Keep::WithProcess {
            return Ok(());
        }
        let _one = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        // Use copies: bits that are set from here on belong to data that the next sync may not
        // cover.
        let pages: Vec<_> = {
            let mut dirty = self.dirty();
            let numbers = std::mem::take(&mut *dirty);
            self.map(|map| numbers.into_iter().map(|n| (n, map.page(n))).collect())
        };
        self.sync()?;
        if pages.is_empty() {
            return Ok(());
        }
        for (number, page) in &pages {
            let at = self.layout.durable() + number * PAGE as u64;
            if let Err(err) = self.storage.write_at(at, page) {
                // Most likely the disk is full: the next commit tries again.
                self.dirty().extend(pages.iter().map(|(number, _)| number));
                return Err(err);
            }
        }
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        self.storage.sync().inspect_err(|_| self.failed.store(true, Ordering::Relaxed))
    }

    /// Once a sync has failed, refuses everything but reads: the next sync would succeed although
    /// the data is lost.
    fn check(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(io::Error::other("an earlier write to the overlay's disk failed"));
        }
        Ok(())
    }

    /// Marks sectors as being in the overlay. Their data is already in the file.
    fn mark(&self, sectors: &Range<u64>) -> io::Result<()> {
        if self.map(|map| map.has_all(sectors)) {
            return Ok(());
        }
        let mut dirty = self.dirty();
        if self.keep == Keep::Forever {
            let (offset, words) = self.map(|map| map.with(sectors));
            self.storage.write_at(self.layout.pending() + offset, &words)?;
            dirty.extend(Map::pages_of(sectors));
        }
        self.present.write().unwrap_or_else(PoisonError::into_inner).set(sectors);
        Ok(())
    }
}

fn read_map(storage: &impl Storage, layout: Layout, at: u64) -> Result<Map, OverlayError> {
    let mut map = Map::new(layout.map_len);
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    while offset < layout.map_len {
        let rest = usize::try_from(layout.map_len - offset).unwrap_or(usize::MAX);
        let part = &mut piece[..rest.min(PIECE)];
        storage.read_at(at + offset, part).map_err(io("read"))?;
        map.add(offset, part);
        offset += part.len() as u64;
    }
    Ok(map)
}
