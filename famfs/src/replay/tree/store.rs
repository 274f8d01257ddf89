// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file entries that hold the bytes of extended files, and whose each page is.

use std::collections::BTreeMap;

use serde::Serialize;

use super::problem::TreeProblem;
use crate::format::extension::PAGE;
use crate::format::map::{Extent, FileMap};
use crate::format::piece::Piece;

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
#[derive(Debug, Default)]
pub struct Store {
    holders: BTreeMap<u64, Holder>,
    /// Slot of the holder and first page of each piece; page behind its end, and slot of its owner.
    owners: BTreeMap<(u64, u64), (u64, u64)>,
    /// Pages that removed files had, whoever has them now: slot of the holder and first page of
    /// each run, and page behind its end. Runs do not touch.
    retired: BTreeMap<(u64, u64), u64>,
}

/// Pages of a simple file of the store that a new file may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeRun {
    /// Slot of the file entry.
    pub slot: u64,
    /// First page in its file.
    pub page: u64,
    /// Number of pages.
    pub pages: u64,
}

/// What the files of the store are used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoreUse {
    /// Number of files in the store.
    pub files: u64,
    /// Bytes that they have.
    pub bytes: u64,
    /// Bytes of pages that belong to something.
    pub used: u64,
    /// Bytes of pages that a new file may have.
    pub free: u64,
    /// Bytes of pages that only `famfs compact` makes free, because removed files had them.
    pub retired: u64,
}

impl Store {
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

    /// The map of an interleaved file entry, which holds one file as a whole.
    pub fn interleaved(&self, slot: u64) -> Option<&FileMap> {
        let map = self.holders.get(&slot).map(|holder| &holder.map);
        map.filter(|map| matches!(map, FileMap::Interleaved { .. }))
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
        if holder.is_interleaved() && !whole {
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
    fn give_back(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            if self.owners.remove(&(piece.slot, piece.page)).is_some()
                && let Some(holder) = self.holders.get_mut(&piece.slot)
            {
                holder.used -= piece.pages;
            }
        }
    }

    /// Takes pages back from a file that is removed. Others may still have them mapped.
    pub fn retire(&mut self, pieces: &[Piece]) {
        self.give_back(pieces);
        for piece in pieces {
            let (slot, mut page, mut end) = (piece.slot, piece.page, piece.page + piece.pages);
            // What it touches becomes a part of it.
            while let Some((&(_, other), &other_end)) =
                self.retired.range((slot, 0)..=(slot, end)).next_back()
                && other_end >= page
            {
                self.retired.remove(&(slot, other));
                (page, end) = (page.min(other), end.max(other_end));
            }
            self.retired.insert((slot, page), end);
        }
    }

    /// Runs of pages of simple files that belong to nothing and never did.
    pub fn free_runs(&self) -> impl Iterator<Item = FreeRun> {
        let simple = self.holders.iter().filter(|(_, holder)| !holder.is_interleaved());
        simple.flat_map(|(slot, holder)| self.gaps(*slot, holder.pages))
    }

    /// Whether the file entry of a slot holds nothing.
    pub fn is_unused(&self, slot: u64) -> bool {
        self.holders.get(&slot).is_some_and(|holder| holder.used == 0)
    }

    /// Whether the file entry of a slot holds nothing, and no removed file had pages in it whose
    /// entry is not void.
    pub fn is_idle(&self, slot: u64) -> bool {
        let mut retired = self.retired.range((slot, 0)..=(slot, u64::MAX));
        self.is_unused(slot) && retired.next().is_none()
    }

    /// Whether any file entry holds nothing.
    pub fn has_unused(&self) -> bool {
        self.holders.values().any(|holder| holder.used == 0)
    }

    /// Bytes that removed files had in those that hold something else.
    pub fn reusable(&self) -> u64 {
        let used = self.holders.iter().filter(|(_, holder)| holder.used > 0);
        used.map(|(slot, holder)| self.usage_of(*slot, holder).retired).sum()
    }

    /// What all files are used for.
    pub fn usage(&self) -> StoreUse {
        let mut all = StoreUse::default();
        for (slot, holder) in &self.holders {
            let usage = self.usage_of(*slot, holder);
            all.files += usage.files;
            all.bytes += usage.bytes;
            all.used += usage.used;
            all.free += usage.free;
            all.retired += usage.retired;
        }
        all
    }

    fn usage_of(&self, slot: u64, holder: &Holder) -> StoreUse {
        // What is left of an interleaved file is of no use to others.
        let (used, free) = match holder.is_interleaved() {
            true => (if holder.used > 0 { holder.pages } else { 0 }, 0),
            false => (holder.used, self.gaps(slot, holder.pages).map(|run| run.pages).sum()),
        };
        StoreUse {
            files: 1,
            bytes: holder.pages * PAGE,
            used: used * PAGE,
            free: free * PAGE,
            retired: (holder.pages - used - free) * PAGE,
        }
    }

    /// Runs of pages of a file that belong to nothing and never did.
    fn gaps(&self, slot: u64, pages: u64) -> impl Iterator<Item = FreeRun> {
        let all = (slot, 0)..=(slot, u64::MAX);
        let mut used = self.owners.range(all.clone()).map(|((_, page), (end, _))| (*page, *end));
        let mut retired = self.retired.range(all).map(|((_, page), end)| (*page, *end));
        let (mut next_used, mut next_retired) = (used.next(), retired.next());
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < pages {
                let retired_first =
                    next_used.is_none_or(|used| next_retired.is_some_and(|run| run < used));
                let taken = if retired_first {
                    std::mem::replace(&mut next_retired, retired.next())
                } else {
                    std::mem::replace(&mut next_used, used.next())
                };
                let (page, end) = taken.unwrap_or((pages, pages));
                let free = (page > at).then(|| FreeRun { slot, page: at, pages: page - at });
                at = at.max(end);
                if free.is_some() {
                    return free;
                }
            }
            None
        })
    }
}

impl Holder {
    fn is_interleaved(&self) -> bool {
        matches!(self.map, FileMap::Interleaved { .. })
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
