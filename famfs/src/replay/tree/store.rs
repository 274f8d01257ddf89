// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file entries that hold the bytes of extended files, and whose each page is.

use std::collections::{BTreeMap, HashMap};

use super::problem::TreeProblem;
use crate::format::extension::{PAGE, SpillTail};
use crate::format::map::{Extent, FileMap};
use crate::format::piece::Piece;
use crate::media::Media;

/// A file entry that holds bytes of others.
#[derive(Debug)]
struct Holder {
    map: FileMap,
    /// Pages that its file has.
    pages: u64,
    /// Pages of it that belong to something.
    used: u64,
}

/// All file entries that hold bytes of others.
#[derive(Debug)]
pub struct Store {
    holders: HashMap<u64, Holder>,
    /// Slot of the holder and first page of each piece; page behind its end, and slot of its owner.
    owners: BTreeMap<(u64, u64), (u64, u64)>,
    /// Bytes of lists and targets in data that may still be read.
    left: u64,
}

impl Store {
    /// Without files; `left` bytes of lists may be read.
    pub fn new(left: u64) -> Self {
        Self { holders: HashMap::new(), owners: BTreeMap::new(), left }
    }

    /// Whether there are no such file entries.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// Adds a file entry of `size` bytes.
    pub fn add(&mut self, slot: u64, size: u64, map: &FileMap) {
        let holder = Holder { map: map.clone(), pages: size.div_ceil(PAGE), used: 0 };
        self.holders.insert(slot, holder);
    }

    /// Removes a file entry, unless it holds something.
    pub fn remove(&mut self, slot: u64) -> Result<(), TreeProblem> {
        match self.holders.get(&slot).map(|holder| holder.used) {
            Some(used) if used > 0 => Err(TreeProblem::InUse(used)),
            _ => {
                self.holders.remove(&slot);
                Ok(())
            }
        }
    }

    /// The ranges of the device that hold a piece, each with its offset in the file.
    pub fn extents(&self, piece: &Piece) -> Vec<(u64, Extent)> {
        let Some(holder) = self.holders.get(&piece.slot) else { return Vec::new() };
        ranges(&holder.map, piece.page * PAGE, piece.pages * PAGE, piece.at * PAGE)
    }

    /// Gives pages to what slot `owner` made: all of them, or none.
    pub fn take(&mut self, pieces: &[Piece], owner: u64) -> Result<(), TreeProblem> {
        for (index, piece) in pieces.iter().enumerate() {
            if let Err(problem) = self.take_one(piece, pieces.len(), owner) {
                self.give_back(&pieces[..index]);
                return Err(problem);
            }
        }
        Ok(())
    }

    fn take_one(&mut self, piece: &Piece, of: usize, owner: u64) -> Result<(), TreeProblem> {
        let Piece { slot, page, at, pages } = *piece;
        let holder = self.holders.get_mut(&slot).ok_or(TreeProblem::NoStore(slot))?;
        let end = page + pages;
        if end > holder.pages {
            return Err(TreeProblem::OutsideStore { slot, page, end, pages: holder.pages });
        }
        let whole = of == 1 && page == 0 && at == 0;
        if matches!(holder.map, FileMap::Interleaved { .. }) && !whole {
            return Err(TreeProblem::Interleaved(slot));
        }
        // Pieces are disjoint, so only the last one before the end can reach into this one.
        let before = self.owners.range((slot, 0)..(slot, end)).next_back();
        if let Some((&(_, first), &(last, owner))) = before
            && last > page
        {
            return Err(TreeProblem::Shared { slot, page: first.max(page), owner });
        }
        holder.used += pages;
        self.owners.insert((slot, page), (end, owner));
        Ok(())
    }

    /// Takes pages back from their owner.
    pub fn give_back<'p>(&mut self, pieces: impl IntoIterator<Item = &'p Piece>) {
        for piece in pieces {
            if self.owners.remove(&(piece.slot, piece.page)).is_some()
                && let Some(holder) = self.holders.get_mut(&piece.slot)
            {
                holder.used -= piece.pages;
            }
        }
    }

    /// Reads `len` bytes that did not fit into an entry, and checks them. Their pages are the
    /// owner's then.
    pub fn read(
        &mut self,
        media: &dyn Media,
        spill: &SpillTail,
        len: u64,
        owner: u64,
    ) -> Result<(Piece, Vec<u8>), TreeProblem> {
        let (slot, page) = (spill.slot.get(), spill.page.get());
        let pages = len.div_ceil(PAGE);
        if page.checked_add(pages).is_none() {
            let pages = self.holders.get(&slot).map_or(0, |holder| holder.pages);
            return Err(TreeProblem::OutsideStore { slot, page, end: u64::MAX, pages });
        }
        let piece = Piece { slot, page, at: 0, pages };
        // It is no file that an interleaved one could hold.
        self.take_one(&piece, 0, owner)?;
        let read = self.read_taken(media, &piece, len, spill.crc.get());
        if read.is_err() {
            self.give_back([&piece]);
        }
        Ok((piece, read?))
    }

    fn read_taken(
        &mut self,
        media: &dyn Media,
        piece: &Piece,
        len: u64,
        expected: u64,
    ) -> Result<Vec<u8>, TreeProblem> {
        let left = self.left;
        self.left = left.checked_sub(len).ok_or(TreeProblem::ListsTooLong { needed: len, left })?;
        let Piece { slot, page, .. } = *piece;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        for (at, extent) in self.extents(piece) {
            let start = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            let part = usize::try_from(extent.len).unwrap_or(usize::MAX);
            let end = start.saturating_add(part).min(bytes.len());
            media.read_at(extent.offset, &mut bytes[start..end]).map_err(|source| {
                TreeProblem::Unreadable { slot, page, len, source: source.into() }
            })?;
        }
        let found = u64::from(crc32fast::hash(&bytes));
        if found != expected {
            return Err(TreeProblem::Checksum { found, expected });
        }
        Ok(bytes)
    }
}

/// The ranges of the device that hold `len` bytes from byte `from` of a map on; the first one is at
/// `at` of the file.
pub fn ranges(map: &FileMap, from: u64, len: u64, at: u64) -> Vec<(u64, Extent)> {
    let (mut done, mut ranges) = (0, Vec::new());
    while done < len
        && let Some(piece) = map.piece(from + done)
    {
        let part = piece.len.min(len - done);
        ranges.push((at + done, Extent { offset: piece.offset, len: part }));
        done += part;
    }
    ranges
}
