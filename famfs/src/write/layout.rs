// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which parts of a new file get memory.

use std::ops::Range;

use crate::format::ALLOC_UNIT;
use crate::format::extension::PAGE;
use crate::format::map::Memory;

/// Pages of an allocation unit.
pub const UNIT_PAGES: u64 = ALLOC_UNIT / PAGE;
/// Most ranges of a file: each needs at most three pieces, and a file has room for 65,536. Of a
/// file with more, the shortest holes become zeros.
const MAX_RANGES: usize = 20_000;

/// Size of a file, and its pages with data. What lies between is a hole, which reads as zeros and
/// takes no memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    size: u64,
    /// Pages of the file with data, in order; ranges neither overlap nor touch.
    ranges: Vec<Range<u64>>,
}

impl From<u64> for Layout {
    /// A file of so many bytes without holes.
    fn from(size: u64) -> Self {
        Self::new(size, [0..size])
    }
}

impl Layout {
    /// A file of `size` bytes whose data is in these ranges of bytes, which come in order.
    pub fn new(size: u64, data: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for range in data {
            let (start, end) = (range.start / PAGE, range.end.min(size).div_ceil(PAGE));
            match ranges.last_mut() {
                _ if start >= end => {}
                Some(last) if start <= last.end => last.end = last.end.max(end),
                _ => ranges.push(start..end),
            }
        }
        if ranges.len() > MAX_RANGES {
            ranges = without_short_holes(&ranges);
        }
        Self { size, ranges }
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether nothing of the file is a hole.
    pub fn is_whole(&self) -> bool {
        self.pages() == self.size.div_ceil(PAGE)
    }

    /// Number of pages with data.
    pub fn pages(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Number of bytes with data, without what lies behind the end of the file.
    pub fn data_bytes(&self) -> u64 {
        self.data().map(|range| range.end - range.start).sum()
    }

    /// The parts with data in bytes, without what lies behind the end of the file.
    pub fn data(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let bytes = |range: &Range<u64>| range.start * PAGE..(range.end * PAGE).min(self.size);
        self.ranges.iter().map(bytes)
    }

    /// The parts of a file in bytes that have data here or memory there: all others are zero.
    pub(super) fn and_memory(&self, memory: &Memory) -> Vec<Range<u64>> {
        let Memory::Pieces(pieces) = memory else { return vec![0..self.size] };
        let mut ranges: Vec<Range<u64>> = self.data().collect();
        ranges.extend(pieces.iter().map(|(at, extent)| *at..at + extent.len));
        ranges.sort_unstable_by_key(|range| range.start);
        Self::new(self.size, ranges).data().collect()
    }

    /// The pages that fill whole allocation units of the file, as ranges of pages, and all others.
    /// A unit can be mapped by one large page where its memory is aligned like it.
    pub(super) fn split(&self) -> (Vec<Range<u64>>, Vec<Range<u64>>) {
        let (mut units, mut rest) = (Vec::new(), Vec::new());
        for Range { start, end } in self.ranges.iter().cloned() {
            let first = start.next_multiple_of(UNIT_PAGES);
            let last = end / UNIT_PAGES * UNIT_PAGES;
            if first < last {
                units.push(first..last);
                rest.extend([start..first, last..end].into_iter().filter(|part| !part.is_empty()));
            } else {
                rest.push(start..end);
            }
        }
        (units, rest)
    }
}

fn without_short_holes(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let hole = |pair: &[Range<u64>]| pair[1].start - pair[0].end;
    let mut holes: Vec<u64> = ranges.windows(2).map(hole).collect();
    holes.sort_unstable_by(|a, b| b.cmp(a));
    // Holes as long as this one go too, so no more ranges than allowed are left.
    let longest = holes[MAX_RANGES - 1];
    let mut kept: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match kept.last_mut() {
            Some(last) if range.start - last.end <= longest => last.end = range.end,
            _ => kept.push(range.clone()),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_in_whole_pages() {
        let layout = Layout::new(10_000, [0..1, 4096..4097, 9000..20_000]);
        assert_eq!(layout.data().collect::<Vec<_>>(), vec![0..10_000]);
        assert!(layout.is_whole());
        let layout = Layout::new(1 << 40, [5000..5001, 1 << 39..(1 << 39) + 1]);
        let start = 1 << 39;
        assert_eq!(layout.data().collect::<Vec<_>>(), vec![4096..8192, start..start + 4096]);
        assert_eq!((layout.pages(), layout.is_whole()), (2, false));
        assert_eq!(Layout::from(0).data().count(), 0);
        assert!(Layout::from(0).is_whole());
    }

    #[test]
    fn units_are_aligned_within_the_file() {
        let unit = ALLOC_UNIT;
        let layout = Layout::new(10 * unit, [4096..3 * unit + 1, 5 * unit..6 * unit]);
        let (units, rest) = layout.split();
        assert_eq!(units, vec![512..1536, 2560..3072]);
        assert_eq!(rest, vec![1..512, 1536..1537]);
        assert_eq!(Layout::from(unit - 1).split(), (vec![0..512], vec![]));
        assert_eq!(Layout::from(unit - 4096).split(), (vec![], vec![0..511]));
    }

    #[test]
    fn the_shortest_of_too_many_holes_go() {
        let most = MAX_RANGES as u64;
        // A hole of two pages after every second range, else of one.
        let start = |n: u64| n * 3 * PAGE + if n % 2 == 1 { PAGE } else { 0 };
        let data = (0..2 * most).map(|n| start(n)..start(n) + PAGE);
        let layout = Layout::new(1 << 60, data);
        assert_eq!(layout.ranges.len() as u64, 1);
        let data = (0..most).map(|n| start(n)..start(n) + PAGE);
        assert_eq!(Layout::new(1 << 60, data).ranges.len() as u64, most);
    }
}
