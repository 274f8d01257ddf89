// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Free space: which allocation units are taken, built from the log and never stored.

use std::collections::BTreeMap;

use crate::format::ALLOC_UNIT;
use crate::map::{DataArea, Extent};

/// Which allocation units of the data area are taken, kept as the runs that are free: their
/// number follows the number of files, whatever a log claims about the files' sizes.
#[derive(Clone, Debug)]
pub struct SpaceMap {
    area: DataArea,
    /// First unit and length of each free run; runs neither overlap nor touch.
    free: BTreeMap<u64, u64>,
    free_units: u64,
    units: u64,
}

impl SpaceMap {
    /// A map of an empty data area.
    pub fn new(area: DataArea) -> Self {
        let units = area.end.saturating_sub(area.start) / ALLOC_UNIT;
        let free = (units > 0).then_some((0, units)).into_iter().collect();
        Self { area, free, free_units: units, units }
    }

    /// Marks an extent of the data area as taken; false if a part of it already was.
    pub fn mark(&mut self, extent: Extent) -> bool {
        let (start, end) = self.range(extent);
        let mut taken = 0;
        while let Some((run, len)) =
            self.last_run_before(end).filter(|(run, len)| run + len > start)
        {
            let (cut, cut_end) = (run.max(start), (run + len).min(end));
            self.free.remove(&run);
            if run < cut {
                self.free.insert(run, cut - run);
            }
            if cut_end < run + len {
                self.free.insert(cut_end, run + len - cut_end);
            }
            taken += cut_end - cut;
        }
        self.free_units -= taken;
        taken == end - start
    }

    /// Takes the first free run of at least `size` bytes, in whole units.
    pub fn allocate(&mut self, size: u64) -> Option<Extent> {
        let wanted = size.div_ceil(ALLOC_UNIT);
        if wanted == 0 {
            return None;
        }
        let first = self.free.iter().find(|(_, len)| **len >= wanted).map(|(first, _)| *first)?;
        let extent =
            Extent { offset: self.area.start + first * ALLOC_UNIT, len: wanted * ALLOC_UNIT };
        self.mark(extent);
        Some(extent)
    }

    /// Gives back an extent that was allocated for a file which did not come to be.
    pub fn release(&mut self, extent: Extent) {
        // What is free already must not count twice; what touches grows together.
        self.mark(extent);
        let (mut start, mut end) = self.range(extent);
        if start == end {
            return;
        }
        self.free_units += end - start;
        if let Some((run, len)) =
            self.last_run_before(start).filter(|(run, len)| run + len == start)
        {
            self.free.remove(&run);
            start -= len;
        }
        if let Some(len) = self.free.remove(&end) {
            end += len;
        }
        self.free.insert(start, end - start);
    }

    /// Bytes that files take, in whole units.
    pub fn used(&self) -> u64 {
        (self.units - self.free_units) * ALLOC_UNIT
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        self.free_units * ALLOC_UNIT
    }

    /// Length in bytes of the longest free run: the largest file that still fits.
    pub fn largest_free(&self) -> u64 {
        self.free.values().max().unwrap_or(&0) * ALLOC_UNIT
    }

    /// The last free run that starts before a unit.
    fn last_run_before(&self, unit: u64) -> Option<(u64, u64)> {
        self.free.range(..unit).next_back().map(|(run, len)| (*run, *len))
    }

    /// First unit of an extent and the one behind its last, cut to the data area.
    fn range(&self, extent: Extent) -> (u64, u64) {
        let start = extent.offset.saturating_sub(self.area.start);
        let end = start.saturating_add(extent.len).div_ceil(ALLOC_UNIT).min(self.units);
        ((start / ALLOC_UNIT).min(end), end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: u64 = 10 << 20;

    fn space(units: u64) -> SpaceMap {
        SpaceMap::new(DataArea { start: START, end: START + units * ALLOC_UNIT })
    }

    #[test]
    fn first_fit_in_whole_units() {
        let mut space = space(8);
        let at = |extent: Option<Extent>| extent.map(|e| (e.offset - START) / ALLOC_UNIT);
        assert_eq!(at(space.allocate(1)), Some(0));
        let hole = space.allocate(ALLOC_UNIT + 1).unwrap();
        assert_eq!(hole.len, 2 * ALLOC_UNIT);
        assert_eq!(at(space.allocate(1)), Some(3));
        space.release(hole);
        assert_eq!(at(space.allocate(3 * ALLOC_UNIT)), Some(4), "the hole is too small");
        assert_eq!(at(space.allocate(2 * ALLOC_UNIT)), Some(1));
        assert_eq!(at(space.allocate(2 * ALLOC_UNIT)), None, "one unit left");
        assert_eq!((space.free(), space.largest_free()), (ALLOC_UNIT, ALLOC_UNIT));
        assert_eq!(at(space.allocate(0)), None);
        assert_eq!(at(space.allocate(u64::MAX)), None);
    }

    #[test]
    fn marks_tell_collisions() {
        let mut space = space(8);
        let extent =
            |unit, units| Extent { offset: START + unit * ALLOC_UNIT, len: units * ALLOC_UNIT };
        assert!(space.mark(extent(2, 3)));
        assert!(!space.mark(extent(4, 2)), "one of two units is taken");
        assert_eq!(space.used(), 4 * ALLOC_UNIT);
        assert!(!space.mark(extent(0, 8)) && !space.mark(extent(7, 9)));
        assert_eq!((space.free(), space.largest_free()), (0, 0));
        space.release(extent(6, 2));
        space.release(extent(2, 2));
        space.release(extent(4, 2));
        assert_eq!((space.free(), space.largest_free()), (6 * ALLOC_UNIT, 6 * ALLOC_UNIT));
    }

    proptest! {
        /// Extents never overlap, never leave the area, and free + used is the whole.
        #[test]
        fn allocations_are_disjoint(sizes in prop::collection::vec(1..9 * ALLOC_UNIT, 1..40)) {
            let mut space = space(64);
            let mut taken: Vec<Extent> = Vec::new();
            for (n, size) in sizes.into_iter().enumerate() {
                if n % 3 == 2 && let Some(extent) = taken.pop() {
                    space.release(extent);
                }
                if let Some(new) = space.allocate(size) {
                    prop_assert!(new.len >= size && new.offset >= START);
                    prop_assert!(new.offset + new.len <= START + 64 * ALLOC_UNIT);
                    let apart = |old: &Extent| {
                        new.offset >= old.offset + old.len || old.offset >= new.offset + new.len
                    };
                    prop_assert!(taken.iter().all(apart));
                    taken.push(new);
                } else {
                    prop_assert!(space.largest_free() < size);
                }
                prop_assert_eq!(space.free() + space.used(), 64 * ALLOC_UNIT);
            }
        }
    }
}
