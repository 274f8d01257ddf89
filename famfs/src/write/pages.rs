// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory for extended files: pages of file entries in the store, which are called holders here.
//!
//! Parts of a file that fill allocation units get holders of the file's own; all other pages come
//! from holders that files share. A new holder gets into the log with the first file that uses it.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::extension::{MAX_PIECES, PAGE};
use crate::format::map::{Extent, FileMap, Memory};
use crate::format::piece::Piece;
use crate::format::{ALLOC_UNIT, MAX_EXTENTS};
use crate::replay::tree::{FreeRun, Tree, ranges};
use crate::store::alloc::SpaceMap;
use crate::write::layout::{Layout, UNIT_PAGES};
use crate::write::room::{Holder, How, Room, Run};

/// A new shared holder has this part of the pages of all shared holders, so that few entries are
/// needed and little memory lies idle.
const GROWTH: u64 = 16;

/// A holder that is not in the log yet.
#[derive(Debug)]
pub(super) struct NewHolder {
    /// Its memory; none if it is not needed after all.
    pub map: Option<FileMap>,
    /// Bytes that it holds.
    pub size: u64,
    /// Its slot, once it is in the batch.
    pub slot: Option<u64>,
}

/// Free pages of the store.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Length of each free run by its holder and first page.
    free: BTreeMap<(Holder, u64), u64>,
    /// The same by length.
    by_len: BTreeSet<(u64, Holder, u64)>,
    new: Vec<NewHolder>,
    /// Pages of shared holders, free ones included.
    shared: u64,
    free_pages: u64,
}

impl Pages {
    /// What the holders of a log have left.
    pub fn new(tree: &Tree) -> Self {
        let mut shared = Self { shared: tree.store_use().bytes / PAGE, ..Self::default() };
        for FreeRun { slot, page, pages } in tree.free_runs() {
            shared.give(Run { holder: Holder::Slot(slot), page, pages });
        }
        shared
    }

    /// Bytes that are free in holders.
    pub fn free(&self) -> u64 {
        self.free_pages * PAGE
    }

    /// Holders that are to be added with the pieces of a file, and need a slot each.
    pub fn unpublished(&self) -> u64 {
        let open = |holder: &&NewHolder| holder.slot.is_none() && holder.map.is_some();
        self.new.iter().filter(open).count() as u64
    }

    /// A holder that is to be added.
    pub fn new_holder(&mut self, number: usize) -> &mut NewHolder {
        &mut self.new[number]
    }

    /// Takes memory for a file; `None` if there is not enough.
    pub fn allocate(&mut self, layout: &Layout, tree: &Tree, space: &mut SpaceMap) -> Option<Room> {
        let (units, mut rest) = layout.split();
        let mut pieces = Vec::new();
        let count: u64 = units.iter().map(|range| range.end - range.start).sum();
        match take_units(count / UNIT_PAGES, space) {
            Some(maps) => {
                let runs = maps.into_iter().map(|extents| self.add(extents)).collect();
                deal(&units, runs, &mut pieces);
            }
            // Pages that lie somewhere hold the bytes as well.
            None => rest.extend(units),
        }
        let count = rest.iter().map(|range| range.end - range.start).sum();
        match self.take(count, space) {
            Some(runs) => deal(&rest, runs, &mut pieces),
            None => {
                self.give_back(&pieces, space);
                return None;
            }
        }
        pieces.sort_unstable_by_key(|(at, _)| *at);
        let pieces = joined(pieces);
        if pieces.len() > MAX_PIECES as usize {
            self.give_back(&pieces, space);
            return None;
        }
        let memory = self.memory(&pieces, tree);
        Some(Room { size: layout.size(), how: How::Pieces(pieces), memory, replaces: false })
    }

    /// Uses a map of its own for a file without holes.
    pub fn whole(&mut self, layout: &Layout, map: FileMap) -> Room {
        let holder = Holder::New(self.new.len());
        self.new.push(NewHolder { map: Some(map.clone()), size: layout.size(), slot: None });
        let run = Run { holder, page: 0, pages: layout.pages() };
        let (size, how) = (layout.size(), How::Pieces(vec![(0, run)]));
        Room { size, how, memory: Memory::Map(map), replaces: false }
    }

    /// Frees the memory of a file that was not made in the end.
    pub fn give_back(&mut self, pieces: &[(u64, Run)], space: &mut SpaceMap) {
        for (_, run) in pieces {
            if let Holder::New(number) = run.holder
                && let holder = &mut self.new[number]
                && holder.slot.is_none()
                && run.pages == holder.size.div_ceil(PAGE)
                && let Some(map) = holder.map.take()
            {
                // It was this file's alone, and nobody knows of it.
                for extent in map.extents() {
                    space.release(*extent);
                }
                continue;
            }
            self.give(*run);
        }
    }

    /// Where runs of pages are on the device, each with its offset in the file.
    fn memory(&self, pieces: &[(u64, Run)], tree: &Tree) -> Memory {
        let mut memory: Vec<(u64, Extent)> = Vec::new();
        for (at, run) in pieces {
            let Run { page, pages, .. } = *run;
            let extents = match run.holder {
                Holder::Slot(slot) => tree.piece_extents(&Piece { slot, page, at: *at, pages }),
                Holder::New(number) => match &self.new[number].map {
                    Some(map) => ranges(map, page * PAGE, pages * PAGE, at * PAGE),
                    None => Vec::new(),
                },
            };
            // Piece by piece, as whoever reads the log finds it.
            memory.extend(extents);
        }
        Memory::Pieces(memory)
    }

    /// Takes pages from shared holders: one run if possible.
    fn take(&mut self, count: u64, space: &mut SpaceMap) -> Option<Vec<Run>> {
        if count == 0 {
            return Some(Vec::new());
        }
        if let Some(run) = self.take_run(count) {
            return Some(vec![run]);
        }
        let needed = count.div_ceil(UNIT_PAGES);
        let grown = (self.shared / UNIT_PAGES / GROWTH).max(needed);
        if self.grow(grown, space) || self.grow(needed, space) {
            return self.take_run(count).map(|run| vec![run]);
        }
        // What is left of all holders, the longest runs first.
        while self.free_pages < count && self.grow(1, space) {}
        if self.free_pages < count {
            return None;
        }
        let (mut left, mut runs) = (count, Vec::new());
        while left > 0 {
            let (len, ..) = *self.by_len.last()?;
            let run = self.take_run_of(len, len.min(left))?;
            left -= run.pages;
            runs.push(run);
        }
        Some(runs)
    }

    /// The shortest free run that is long enough.
    fn take_run(&mut self, count: u64) -> Option<Run> {
        self.take_run_of(count, count)
    }

    /// The first pages of a free run of at least `least` pages.
    fn take_run_of(&mut self, least: u64, count: u64) -> Option<Run> {
        let found = (least, Holder::Slot(0), 0);
        let (len, holder, page) = *self.by_len.range(found..).next()?;
        self.by_len.remove(&(len, holder, page));
        self.free.remove(&(holder, page));
        self.free_pages -= len;
        if len > count {
            self.give(Run { holder, page: page + count, pages: len - count });
        }
        Some(Run { holder, page, pages: count })
    }

    /// Adds a shared holder of so many units; false if there is no room.
    fn grow(&mut self, units: u64, space: &mut SpaceMap) -> bool {
        let Some(extent) = units.checked_mul(ALLOC_UNIT).and_then(|len| space.allocate(len)) else {
            return false;
        };
        let run = self.add(vec![extent]);
        self.shared += run.pages;
        self.give(run);
        true
    }

    /// Adds a holder; its pages as a run.
    fn add(&mut self, extents: Vec<Extent>) -> Run {
        let size = extents.iter().map(|extent| extent.len).sum::<u64>();
        let holder = Holder::New(self.new.len());
        let map = Some(FileMap::Simple(extents.into()));
        self.new.push(NewHolder { map, size, slot: None });
        Run { holder, page: 0, pages: size / PAGE }
    }

    /// Makes a run free, joined with its neighbours.
    fn give(&mut self, run: Run) {
        let Run { holder, mut page, mut pages } = run;
        self.free_pages += pages;
        if let Some(len) = self.free.remove(&(holder, page + pages)) {
            self.by_len.remove(&(len, holder, page + pages));
            pages += len;
        }
        let before = self.free.range((holder, 0)..(holder, page)).next_back();
        if let Some((&(_, first), &len)) = before
            && first + len == page
        {
            self.free.remove(&(holder, first));
            self.by_len.remove(&(len, holder, first));
            (page, pages) = (first, pages + len);
        }
        self.free.insert((holder, page), pages);
        self.by_len.insert((pages, holder, page));
    }
}

/// Takes units from the free memory of the device, as extents of as few file entries as possible.
fn take_units(units: u64, space: &mut SpaceMap) -> Option<Vec<Vec<Extent>>> {
    if units == 0 {
        return Some(Vec::new());
    }
    if units.checked_mul(ALLOC_UNIT)? > space.free() {
        return None;
    }
    let (mut left, mut extents) = (units * ALLOC_UNIT, Vec::new());
    while left > 0 {
        let len = left.min(space.largest_free());
        let extent = space.allocate(len)?;
        left -= extent.len;
        extents.push(extent);
    }
    Some(extents.chunks(MAX_EXTENTS).map(<[Extent]>::to_vec).collect())
}

/// Gives runs of pages to ranges of a file, in order.
fn deal(ranges: &[std::ops::Range<u64>], runs: Vec<Run>, pieces: &mut Vec<(u64, Run)>) {
    let mut runs = runs.into_iter();
    let mut left: Option<Run> = None;
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let Some(run) = left.take().or_else(|| runs.next()) else { return };
            let pages = run.pages.min(range.end - at);
            pieces.push((at, Run { pages, ..run }));
            at += pages;
            if pages < run.pages {
                left = Some(Run { page: run.page + pages, pages: run.pages - pages, ..run });
            }
        }
    }
}

/// Joins pieces that go on in the same holder.
fn joined(pieces: Vec<(u64, Run)>) -> Vec<(u64, Run)> {
    let mut joined: Vec<(u64, Run)> = Vec::with_capacity(pieces.len());
    for (at, run) in pieces {
        match joined.last_mut() {
            Some((before, last))
                if last.holder == run.holder
                    && *before + last.pages == at
                    && last.page + last.pages == run.page =>
            {
                last.pages += run.pages;
            }
            _ => joined.push((at, run)),
        }
    }
    joined
}
