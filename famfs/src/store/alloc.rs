// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Free space: which allocation units are taken, built from the log and never stored.

use std::collections::BTreeMap;

use crate::format::map::{DataArea, Extent, FileMap};
use crate::format::{ALLOC_UNIT, MAX_EXTENTS};
use crate::text::units::human;

/// Highest number of buckets of a device, as with the reference.
pub const MAX_BUCKETS: u64 = 64;

/// How to spread the bytes of new files: one chunk after the other goes to the next of several
/// strips. Each strip lies in another bucket, an equal part of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Striping {
    /// Number of equal parts of the device.
    pub buckets: u64,
    /// Strips of a file.
    pub strips: usize,
    /// Bytes that go to one strip before the next strip; a shorter file is not spread.
    pub chunk_size: u64,
}

/// Why files cannot be spread as requested.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StripingError {
    /// The chunks are not made of allocation units.
    #[error("chunk size is {0}, expected a power of two from 2 MiB")]
    ChunkSize(u64),
    /// The number of buckets is out of range.
    #[error("{0} buckets, expected 1 to {MAX_BUCKETS}")]
    Buckets(u64),
    /// The number of strips is out of range.
    #[error(
        "{strips} strips in {buckets} buckets, expected 1 to {MAX_EXTENTS}, and no more than there \
         are buckets"
    )]
    Strips {
        /// Strips of a file.
        strips: usize,
        /// Number of equal parts of the device.
        buckets: u64,
    },
    /// A bucket has no room for a chunk.
    #[error(
        "{buckets} buckets on a device of {} have {} each, expected room for a chunk of {}",
        human(*.device_len), human(*.bucket_len), human(*.chunk_size)
    )]
    BucketLength {
        /// Number of equal parts of the device.
        buckets: u64,
        /// Bytes of the device that files may use.
        device_len: u64,
        /// Bytes of a bucket.
        bucket_len: u64,
        /// Bytes of a chunk.
        chunk_size: u64,
    },
}

impl Striping {
    /// Checks the numbers against each other and the device.
    pub fn check(&self, area: DataArea) -> Result<(), StripingError> {
        let Self { buckets, strips, chunk_size } = *self;
        if !chunk_size.is_power_of_two() || chunk_size < ALLOC_UNIT {
            return Err(StripingError::ChunkSize(chunk_size));
        }
        if !(1..=MAX_BUCKETS).contains(&buckets) {
            return Err(StripingError::Buckets(buckets));
        }
        if !(1..=MAX_EXTENTS).contains(&strips) || strips as u64 > buckets {
            return Err(StripingError::Strips { strips, buckets });
        }
        let bucket_len = self.bucket_units(area) * ALLOC_UNIT;
        if bucket_len < chunk_size {
            let device_len = area.end;
            return Err(StripingError::BucketLength {
                buckets,
                device_len,
                bucket_len,
                chunk_size,
            });
        }
        Ok(())
    }

    /// Bytes of each strip of a file; `None` if they need more than 64 bits.
    pub fn strip_len(&self, size: u64) -> Option<u64> {
        let stripe = self.chunk_size.checked_mul(self.strips as u64)?;
        size.div_ceil(stripe).checked_mul(self.chunk_size)
    }

    /// Units of a bucket; the first one begins with the superblock.
    fn bucket_units(&self, area: DataArea) -> u64 {
        area.end / ALLOC_UNIT / self.buckets
    }
}

/// Which allocation units of the data area are taken, kept as free runs: their number depends on
/// the number of files, whatever a log claims about the files' sizes.
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

    /// Takes memory for a spread file: strips of one length, each the first fit in its own bucket.
    /// `turn` says which bucket comes first, so that files take turns.
    pub fn allocate_striped(&mut self, size: u64, how: &Striping, turn: u64) -> Option<FileMap> {
        if size < how.chunk_size {
            return self.allocate(size).map(|extent| FileMap::Simple(extent.into()));
        }
        let strip_len = how.strip_len(size)?;
        let bucket_len = how.bucket_units(self.area) * ALLOC_UNIT;
        let strips: Vec<Extent> = (0..how.buckets)
            .map(|n| (turn % how.buckets + n) % how.buckets * bucket_len)
            .filter_map(|start| self.find_within(start, start + bucket_len, strip_len))
            .take(how.strips)
            .collect();
        if strips.len() < how.strips {
            return None;
        }
        for strip in &strips {
            self.mark(*strip);
        }
        Some(FileMap::Interleaved { chunk_size: how.chunk_size, strips: strips.into() })
    }

    /// The first free extent of `len` bytes within a part of the device.
    fn find_within(&self, start: u64, end: u64, len: u64) -> Option<Extent> {
        let unit = |offset: u64| offset.saturating_sub(self.area.start) / ALLOC_UNIT;
        let (first, last, wanted) = (unit(start), unit(end), len / ALLOC_UNIT);
        let before = self.last_run_before(first);
        let inside = self.free.range(first..last).map(|(run, len)| (*run, *len));
        let found = before.into_iter().chain(inside).find_map(|(run, len)| {
            let (from, to) = (run.max(first), (run + len).min(last));
            (to.saturating_sub(from) >= wanted).then_some(from)
        })?;
        Some(Extent { offset: self.area.start + found * ALLOC_UNIT, len })
    }

    /// Gives back an extent that was allocated for a file that was not made in the end.
    pub fn release(&mut self, extent: Extent) {
        // What is already free must not count twice; adjacent runs merge.
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

    /// Device offset after the last taken unit.
    pub fn end(&self) -> u64 {
        let last = self.free.last_key_value();
        let free = last.filter(|(run, len)| **run + **len == self.units);
        self.area.start + free.map_or(self.units, |(run, _)| *run) * ALLOC_UNIT
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        self.free_units * ALLOC_UNIT
    }

    /// Length in bytes of the longest free run: the largest file that still fits.
    pub fn largest_free(&self) -> u64 {
        self.free.values().max().unwrap_or(&0) * ALLOC_UNIT
    }

    /// The runs that are free, in order.
    pub fn free_runs(&self) -> impl Iterator<Item = Extent> {
        self.free.iter().map(|(first, len)| Extent {
            offset: self.area.start + first * ALLOC_UNIT,
            len: len * ALLOC_UNIT,
        })
    }

    /// The last free run that starts before a unit.
    fn last_run_before(&self, unit: u64) -> Option<(u64, u64)> {
        self.free.range(..unit).next_back().map(|(run, len)| (*run, *len))
    }

    /// First unit of an extent and the unit after its last, cut to the data area.
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
        assert_eq!(space.end(), START);
        assert!(space.mark(extent(2, 3)));
        assert_eq!(space.end(), START + 5 * ALLOC_UNIT);
        assert!(!space.mark(extent(4, 2)), "one of two units is taken");
        assert_eq!(space.used(), 4 * ALLOC_UNIT);
        assert!(!space.mark(extent(0, 8)) && !space.mark(extent(7, 9)));
        assert_eq!((space.free(), space.largest_free()), (0, 0));
        assert_eq!(space.end(), START + 8 * ALLOC_UNIT);
        space.release(extent(6, 2));
        space.release(extent(2, 2));
        space.release(extent(4, 2));
        assert_eq!((space.free(), space.largest_free()), (6 * ALLOC_UNIT, 6 * ALLOC_UNIT));
    }

    fn striping(buckets: u64, strips: usize, chunks: u64) -> Striping {
        Striping { buckets, strips, chunk_size: chunks * ALLOC_UNIT }
    }

    fn units(map: Option<FileMap>) -> Vec<(u64, u64)> {
        let unit = |e: &Extent| (e.offset / ALLOC_UNIT, e.len / ALLOC_UNIT);
        map.iter().flat_map(|map| map.extents().iter().map(unit)).collect()
    }

    #[test]
    fn strips_lie_in_buckets_of_their_own() {
        // 5 units of superblock and log, 59 of data: 8 buckets of 8 units.
        let mut space = space(59);
        let how = striping(8, 3, 1);
        assert_eq!(how.check(space.area), Ok(()));
        let size = 4 * ALLOC_UNIT;
        let mut file = |turn| units(space.allocate_striped(size, &how, turn));
        assert_eq!(file(0), [(5, 2), (8, 2), (16, 2)], "the first bucket begins with the log");
        assert_eq!(file(7), [(56, 2), (10, 2), (18, 2)], "one unit of bucket 0 is left");
        assert_eq!(file(15), [(58, 2), (12, 2), (20, 2)]);
        let small = space.allocate_striped(ALLOC_UNIT - 1, &how, 3);
        assert!(matches!(small, Some(FileMap::Simple(_))), "shorter than a chunk");
    }

    #[test]
    fn strips_that_do_not_fit_take_nothing() {
        let mut space = space(59);
        let how = striping(8, 8, 1);
        let free = space.free();
        assert_eq!(space.allocate_striped(8 * 4 * ALLOC_UNIT, &how, 0), None, "bucket 0 has 3");
        assert_eq!(space.allocate_striped(u64::MAX, &how, 0), None);
        assert_eq!(space.free(), free);
        assert!(space.allocate_striped(8 * 3 * ALLOC_UNIT, &how, 0).is_some());
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let area = space(59).area;
        for (how, message) in [
            (striping(8, 0, 1), "0 strips in 8 buckets, expected 1 to 16"),
            (striping(8, 9, 1), "9 strips in 8 buckets, expected 1 to 16"),
            (striping(64, 17, 1), "17 strips in 64 buckets, expected 1 to 16"),
            (striping(65, 1, 1), "65 buckets, expected 1 to 64"),
            (striping(0, 1, 1), "0 buckets, expected 1 to 64"),
            (striping(8, 1, 3), "chunk size is 6291456, expected a power of two from 2 MiB"),
            (striping(8, 1, 0), "chunk size is 0, expected a power of two from 2 MiB"),
            (striping(8, 1, 16), "8 buckets on a device of 128.00 MiB have 16.00 MiB each"),
        ] {
            let error = how.check(area).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    proptest! {
        /// For any request, strips are aligned, of one length, in different buckets, within the
        /// data area and nobody else's, and the same calls give the same strips.
        #[test]
        fn strips_are_disjoint(
            files in prop::collection::vec((1..70 * ALLOC_UNIT, 0_u64..99, any::<bool>()), 1..30),
            (buckets, strips, chunk) in (1_u64..=20, 1_usize..=16, 0_u32..3),
        ) {
            let how = striping(buckets, strips.min(usize::try_from(buckets).unwrap()), 1 << chunk);
            let (mut space, mut again) = (space(300), space(300));
            prop_assume!(how.check(space.area).is_ok());
            let bucket_len = how.bucket_units(space.area) * ALLOC_UNIT;
            let mut taken: Vec<Extent> = Vec::new();
            for (size, turn, striped) in files {
                let map = match striped {
                    true => space.allocate_striped(size, &how, turn),
                    false => space.allocate(size).map(|extent| FileMap::Simple(extent.into())),
                };
                if striped {
                    prop_assert_eq!(&map, &again.allocate_striped(size, &how, turn));
                } else {
                    again.allocate(size);
                }
                let Some(map) = map else { continue };
                let extents = map.extents();
                if let FileMap::Interleaved { chunk_size, strips } = &map {
                    prop_assert!(strips.iter().all(|s| s.len == strips[0].len));
                    prop_assert!(strips[0].len.is_multiple_of(*chunk_size));
                    let mut buckets: Vec<u64> = strips.iter().map(|s| s.offset / bucket_len).collect();
                    let ends = strips.iter().map(|s| (s.offset + s.len - 1) / bucket_len);
                    prop_assert!(ends.eq(buckets.iter().copied()), "a strip leaves its bucket");
                    buckets.sort_unstable();
                    buckets.dedup();
                    prop_assert_eq!(buckets.len(), strips.len());
                }
                prop_assert!(extents.iter().map(|e| e.len).sum::<u64>() >= size);
                prop_assert!(map.piece(size - 1).is_some());
                for extent in extents {
                    prop_assert!(extent.offset >= START && extent.offset.is_multiple_of(ALLOC_UNIT));
                    prop_assert!(extent.offset + extent.len <= START + 300 * ALLOC_UNIT);
                    let apart = |old: &Extent| {
                        extent.offset >= old.offset + old.len || old.offset >= extent.offset + extent.len
                    };
                    prop_assert!(taken.iter().all(apart));
                    taken.push(*extent);
                }
                prop_assert_eq!(space.used(), taken.iter().map(|e| e.len).sum::<u64>());
            }
        }

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
