// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a tree needs in a file system with extensions, before there is one.

use crate::format::ALLOC_UNIT;
use crate::format::extension::{ENTRY_PIECES, LIST_LEN, RawPiece, TAIL_LEN};
use crate::write::layout::{Layout, UNIT_PAGES};

/// Counts log entries and memory. Both are upper bounds for a file system that is new; one with
/// scattered free memory can need more entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    entries: u64,
    /// Units that files have for themselves.
    units: u64,
    /// Pages that files take from shared units.
    pages: u64,
}

impl Need {
    /// Adds a directory or a hard link.
    pub fn add_name(&mut self) {
        self.entries = self.entries.saturating_add(1);
    }

    /// Adds a symbolic link with a target of so many bytes.
    pub fn add_symlink(&mut self, target: usize) {
        self.add_name();
        if target > TAIL_LEN {
            self.entries = self.entries.saturating_add(target.div_ceil(LIST_LEN) as u64);
        }
    }

    /// Adds a file.
    pub fn add_file(&mut self, layout: &Layout) {
        self.add_name();
        let (units, rest) = layout.split();
        let pages = |ranges: &[std::ops::Range<u64>]| -> u64 {
            ranges.iter().map(|range| range.end - range.start).sum()
        };
        let (own, shared) = (pages(&units) / UNIT_PAGES, pages(&rest));
        self.units = self.units.saturating_add(own);
        self.pages = self.pages.saturating_add(shared);
        // A holder of its own; and each range of shared pages can be in two holders.
        let pieces = units.len() + 2 * rest.len();
        let lists = match pieces > ENTRY_PIECES {
            true => (pieces * size_of::<RawPiece>()).div_ceil(LIST_LEN),
            false => 0,
        };
        self.entries = self.entries.saturating_add(u64::from(own > 0) + lists as u64);
    }

    /// The sum of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_add(other.entries),
            units: self.units.saturating_add(other.units),
            pages: self.pages.saturating_add(other.pages),
        }
    }

    /// Log entries.
    #[must_use]
    pub fn entries(&self) -> u64 {
        // The store's directory, the head of a group, and the shared holders.
        self.entries.saturating_add(2 + self.pages.div_ceil(UNIT_PAGES))
    }

    /// Bytes of memory, in whole allocation units.
    #[must_use]
    pub fn data(&self) -> u64 {
        let shared = self.pages.div_ceil(UNIT_PAGES);
        // Shared holders grow by a sixteenth; what is over lies idle until the next file.
        let shared = shared + shared / 16 + u64::from(shared > 0);
        self.units.saturating_add(shared).saturating_mul(ALLOC_UNIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_needs_what_its_files_hold() {
        let mut need = Need::default();
        assert_eq!((need.entries(), need.data()), (2, 0));
        need.add_name();
        need.add_symlink(208);
        need.add_symlink(4095);
        need.add_file(&Layout::from(0));
        assert_eq!((need.entries(), need.data()), (2 + 4 + 8, 0));
        need.add_file(&(3 * ALLOC_UNIT + 1).into());
        // A unit for the page behind the units, and one to grow.
        assert_eq!((need.entries(), need.data()), (14 + 2 + 1, 5 * ALLOC_UNIT));
        let absurd = Layout::from(u64::MAX);
        need.add_file(&absurd);
        assert_eq!(need.and(need).and(need).data(), u64::MAX);
    }

    #[test]
    fn many_small_files_lie_side_by_side() {
        let mut need = Need::default();
        for _ in 0..100_000 {
            need.add_file(&4000.into());
        }
        assert!(need.data() < 11 * 100_000 * 4096 / 10, "{}", need.data());
        assert!(need.entries() < 100_300, "{}", need.entries());
    }
}
