// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Free space: which allocation units are taken, built from the log and never stored.

use crate::format::ALLOC_UNIT;
use crate::map::{DataArea, Extent};

/// Which allocation units of the data area are taken.
#[derive(Clone, Debug)]
pub struct SpaceMap {
    area: DataArea,
    used: Vec<bool>,
    used_units: u64,
    /// No unit below this one is free.
    first_free: usize,
}

impl SpaceMap {
    /// A map of an empty data area.
    pub fn new(area: DataArea) -> Self {
        let units = index(area.end.saturating_sub(area.start) / ALLOC_UNIT);
        Self { area, used: vec![false; units], used_units: 0, first_free: 0 }
    }

    /// Marks an extent of the data area as taken; false if a part of it already was.
    pub fn mark(&mut self, extent: Extent) -> bool {
        let units = self.units(extent);
        let mut fresh = true;
        for used in &mut self.used[units] {
            fresh &= !*used;
            self.used_units += u64::from(!*used);
            *used = true;
        }
        fresh
    }

    /// Whether a part of the extent is taken.
    pub fn is_taken(&self, extent: Extent) -> bool {
        let units = self.units(extent);
        self.used[units].contains(&true)
    }

    /// Takes the first free run of at least `size` bytes, in whole units.
    pub fn allocate(&mut self, size: u64) -> Option<Extent> {
        let wanted = index(size.div_ceil(ALLOC_UNIT));
        let mut run = 0;
        while self.used.get(self.first_free) == Some(&true) {
            self.first_free += 1;
        }
        for unit in self.first_free..self.used.len() {
            run = if self.used[unit] { 0 } else { run + 1 };
            if run == wanted && wanted > 0 {
                let first = (unit + 1 - wanted) as u64;
                let extent = Extent {
                    offset: self.area.start + first * ALLOC_UNIT,
                    len: wanted as u64 * ALLOC_UNIT,
                };
                self.mark(extent);
                return Some(extent);
            }
        }
        None
    }

    /// Gives back an extent that was allocated for a file which did not come to be.
    pub fn release(&mut self, extent: Extent) {
        let units = self.units(extent);
        self.first_free = self.first_free.min(units.start);
        for used in &mut self.used[units] {
            self.used_units -= u64::from(*used);
            *used = false;
        }
    }

    /// Bytes that files take, in whole units.
    pub fn used(&self) -> u64 {
        self.used_units * ALLOC_UNIT
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        self.used.len() as u64 * ALLOC_UNIT - self.used()
    }

    /// Length in bytes of the longest free run: the largest file that still fits.
    pub fn largest_free(&self) -> u64 {
        let runs = self.used.split(|used| *used).map(<[bool]>::len);
        runs.max().unwrap_or(0) as u64 * ALLOC_UNIT
    }

    /// Indexes of an extent's units, cut to the data area.
    fn units(&self, extent: Extent) -> std::ops::Range<usize> {
        let unit = |offset: u64| index(offset / ALLOC_UNIT).min(self.used.len());
        let start = extent.offset.saturating_sub(self.area.start);
        let end = start.saturating_add(extent.len).saturating_add(ALLOC_UNIT - 1);
        unit(start)..unit(end)
    }
}

/// A number of units as an index; a value beyond the address space is beyond every map.
fn index(units: u64) -> usize {
    usize::try_from(units).unwrap_or(usize::MAX)
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
        assert!(space.is_taken(extent(4, 2)) && !space.is_taken(extent(5, 2)));
        assert!(!space.mark(extent(4, 2)));
        assert_eq!(space.used(), 4 * ALLOC_UNIT);
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
