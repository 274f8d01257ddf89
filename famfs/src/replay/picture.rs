// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A picture of a file system as figures: what lies where, in a bounded number of cells for any
//! number of files.

use std::collections::HashSet;

use serde::Serialize;

use crate::format::ALLOC_UNIT;
use crate::format::map::{DataArea, Extent, FileMap, Memory};
use crate::format::path::RelPath;
use crate::format::piece::Piece;
use crate::replay::Plan;
use crate::replay::tree::Tree;
use crate::replay::tree::list::Entry;
use crate::replay::tree::object::{FileBytes, ObjectKind};
use crate::store::log::Log;
use crate::store::superblock::Superblock;
use crate::text::json_name::Name;

/// Number of files that are named.
pub const NAMED_FILES: usize = 8;

/// The picture; sizes and offsets in bytes of the device.
#[derive(Debug, Serialize)]
pub struct Picture {
    /// Version of this structure.
    pub version: u32,
    /// Size of the device.
    pub device_bytes: u64,
    /// Identity of the file system.
    pub fs_uuid: String,
    /// Length of the superblock's area, which is at offset 0.
    pub superblock_bytes: u64,
    /// The log.
    pub log: LogPicture,
    /// Number of files.
    pub files: u64,
    /// Number of directories.
    pub directories: u64,
    /// Number of symbolic links.
    pub symlinks: u64,
    /// Files in more than one piece that are not interleaved on purpose.
    pub fragmented_files: usize,
    /// The data area.
    pub space: SpacePicture,
    /// The largest files, the largest first.
    pub largest: Vec<FilePicture>,
    /// The data area in order, in cells of one length (the last may be shorter).
    pub cells: Vec<Cell>,
}

/// The log's share of a [`Picture`].
#[derive(Debug, Serialize)]
pub struct LogPicture {
    /// Offset of its header.
    pub offset: u64,
    /// Length, header included.
    pub bytes: u64,
    /// Number of slots.
    pub slots: u64,
    /// Slots with an entry.
    pub used: u64,
}

/// The data area's share of a [`Picture`].
#[derive(Debug, Serialize)]
pub struct SpacePicture {
    /// Offset of the area.
    pub start: u64,
    /// Size of the area.
    pub capacity: u64,
    /// Taken by files: whole units, or pages of units that files share.
    pub used: u64,
    /// Taken, but by no file: by files that were deleted, or by entries that are left out because
    /// they are damaged.
    pub held: u64,
    /// Not taken, free pages of units that files share included.
    pub free: u64,
    /// Number of free runs.
    pub free_runs: u64,
    /// Longest free run.
    pub largest_free: u64,
    /// Percentage of the free space that is not in the longest run.
    pub fragmentation: f64,
    /// Free runs by their length.
    pub histogram: Vec<Bar>,
}

/// Free runs of at least `at_least` bytes, and less than twice that.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Bar {
    /// Lower bound of the runs' length, a power of two.
    pub at_least: u64,
    /// Number of runs.
    pub runs: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// One of the largest files.
#[derive(Debug, Serialize)]
pub struct FilePicture {
    /// Its path.
    #[serde(flatten)]
    pub path: Name,
    /// Its size.
    pub size: u64,
    /// Extents, strips or pieces.
    pub pieces: usize,
}

/// A part of the data area.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// Offset of the first byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
    /// Bytes that files take.
    pub used: u64,
    /// Bytes that are not taken.
    pub free: u64,
    /// Bytes that files of less than an allocation unit take, which share units.
    pub small: u64,
    /// Number of extents, strips or pieces in it.
    pub pieces: u64,
    /// Log slot of the file, if it is the only one and takes all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u64>,
    /// Which of [`Picture::largest`] takes more than half of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest: Option<usize>,
}

impl Cell {
    /// Bytes that are taken, but by no file.
    pub fn held(&self) -> u64 {
        self.len - self.used - self.free
    }
}

impl Picture {
    /// Draws a file system with at most `cells` cells.
    pub fn of(
        superblock: &Superblock,
        log: &Log<'_>,
        plan: &Plan,
        device_bytes: u64,
        cells: usize,
    ) -> Self {
        let area = superblock.data_area(device_bytes);
        let tree = plan.tree();
        let counts = tree.counts();
        let (largest, ranks) = largest(tree);
        let mut grid = Grid::new(area, cells.max(1));
        let (mut used, mut fragmented_files) = (0, 0);
        for (slot, _, bytes, size) in files(tree) {
            let rank = ranks.iter().position(|named| *named == slot);
            let allocated = tree.allocated(bytes);
            let is_small = matches!(bytes, FileBytes::Pieces { .. }) && allocated < ALLOC_UNIT;
            used += allocated;
            for Extent { offset, len } in memory(tree, bytes, size) {
                grid.put(offset, len, File { slot, rank, is_small });
            }
            fragmented_files += usize::from(is_fragmented(tree, bytes, size));
        }
        let mut space = SpacePicture::of(area, plan, used);
        for run in plan.space.free_runs() {
            grid.free(run.offset, run.len);
            space.count(run.len);
        }
        for run in tree.free_runs() {
            let piece = Piece { slot: run.slot, page: run.page, at: 0, pages: run.pages };
            for (_, Extent { offset, len }) in tree.piece_extents(&piece) {
                grid.free(offset, len);
                space.count(len);
            }
        }
        Self {
            version: 1,
            device_bytes,
            fs_uuid: superblock.fs_uuid.to_string(),
            superblock_bytes: ALLOC_UNIT,
            log: LogPicture {
                offset: crate::format::LOG_OFFSET,
                bytes: superblock.log_len,
                slots: log.slots(),
                used: log.published(),
            },
            files: counts.files,
            directories: counts.directories,
            symlinks: counts.symlinks,
            fragmented_files,
            space,
            largest,
            cells: grid.finish(),
        }
    }
}

/// The files of a tree in the order of their paths, each once: slot, path, bytes and size.
fn files(tree: &Tree) -> Vec<(u64, RelPath, &FileBytes, u64)> {
    let mut seen = HashSet::new();
    let mut files = Vec::new();
    for Entry { path, listed } in tree.at_and_below(None) {
        let slot = listed.name.object;
        if let ObjectKind::File { size, bytes } = &listed.object.kind
            && (listed.object.links == 1 || seen.insert(slot))
        {
            files.push((slot, path, bytes, *size));
        }
    }
    files
}

/// The ranges of the device that a file takes.
fn memory(tree: &Tree, bytes: &FileBytes, size: u64) -> Vec<Extent> {
    match bytes {
        FileBytes::Own(map) => map.extents().to_vec(),
        FileBytes::Pieces { .. } => {
            tree.extents(bytes, size).into_iter().map(|(_, extent)| extent).collect()
        }
    }
}

/// Whether a file is in more pieces than its holes and chunks make necessary.
fn is_fragmented(tree: &Tree, bytes: &FileBytes, size: u64) -> bool {
    match tree.memory(bytes, size) {
        Memory::Map(FileMap::Simple(extents)) => extents.len() > 1,
        Memory::Map(FileMap::Interleaved { .. }) => false,
        Memory::Pieces(pieces) => pieces.windows(2).any(|pair| {
            let [(at, extent), (next_at, next)] = pair else { return false };
            at + extent.len == *next_at && extent.offset + extent.len != next.offset
        }),
    }
}

/// The largest files, and the slots that made them.
fn largest(tree: &Tree) -> (Vec<FilePicture>, Vec<u64>) {
    let mut largest: Vec<(u64, FilePicture)> = Vec::with_capacity(NAMED_FILES + 1);
    for (slot, path, bytes, size) in files(tree) {
        // Among files of equal size the first ones stay.
        let at = largest.partition_point(|(_, other)| other.size >= size);
        if at < NAMED_FILES {
            let pieces = memory(tree, bytes, size).len();
            let path = Name::new("path", path.as_bytes());
            largest.insert(at, (slot, FilePicture { path, size, pieces }));
            largest.truncate(NAMED_FILES);
        }
    }
    let slots = largest.iter().map(|(slot, _)| *slot).collect();
    (largest.into_iter().map(|(_, file)| file).collect(), slots)
}

impl SpacePicture {
    fn of(area: DataArea, plan: &Plan, used: u64) -> Self {
        let store = plan.tree().store_use();
        let free = plan.space.free() + store.free;
        let largest_free = plan.space.largest_free();
        let scattered = free - largest_free;
        #[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
        let fragmentation = if free == 0 { 0.0 } else { 100.0 * scattered as f64 / free as f64 };
        Self {
            start: area.start,
            capacity: plan.space.free() + plan.space.used(),
            used,
            held: plan.space.used().saturating_sub(used + store.free),
            free,
            free_runs: 0,
            largest_free,
            fragmentation: (fragmentation * 10.0).round() / 10.0,
            histogram: Vec::new(),
        }
    }

    fn count(&mut self, bytes: u64) {
        self.free_runs += 1;
        self.largest_free = self.largest_free.max(bytes);
        let at_least = 1 << bytes.max(1).ilog2();
        let at = self.histogram.partition_point(|bar| bar.at_least < at_least);
        if self.histogram.get(at).is_none_or(|bar| bar.at_least != at_least) {
            self.histogram.insert(at, Bar { at_least, runs: 0, bytes: 0 });
        }
        self.histogram[at].runs += 1;
        self.histogram[at].bytes += bytes;
    }
}

/// Whose memory is put into the cells.
#[derive(Clone, Copy)]
struct File {
    slot: u64,
    /// Which of the named files it is.
    rank: Option<usize>,
    is_small: bool,
}

/// The data area, divided into cells.
struct Grid {
    area: DataArea,
    cell_len: u64,
    cells: Vec<Cell>,
    /// Bytes of each of the named files in each cell.
    named: Vec<[u64; NAMED_FILES]>,
}

impl Grid {
    fn new(area: DataArea, most: usize) -> Self {
        let units = area.end.saturating_sub(area.start) / ALLOC_UNIT;
        let cell_len = units.div_ceil(most as u64).max(1) * ALLOC_UNIT;
        let cells: Vec<Cell> = (0..units * ALLOC_UNIT)
            .step_by(usize::try_from(cell_len).unwrap_or(usize::MAX))
            .map(|offset| Cell {
                offset: area.start + offset,
                len: cell_len.min(units * ALLOC_UNIT - offset),
                ..Cell::default()
            })
            .collect();
        let named = vec![[0; NAMED_FILES]; cells.len()];
        Self { area, cell_len, cells, named }
    }

    /// Calls `op` with each cell that a range touches, its index, and how many bytes of it.
    fn each(&mut self, offset: u64, len: u64, mut op: impl FnMut(&mut Cell, usize, u64)) {
        let first = (offset - self.area.start) / self.cell_len;
        let mut index = usize::try_from(first).unwrap_or(usize::MAX);
        let end = offset + len;
        while let Some(cell) = self.cells.get_mut(index).filter(|cell| cell.offset < end) {
            let share = end.min(cell.offset + cell.len) - offset.max(cell.offset);
            op(cell, index, share);
            index += 1;
        }
    }

    fn put(&mut self, offset: u64, len: u64, file: File) {
        let File { slot, rank, is_small } = file;
        let mut shares = Vec::new();
        self.each(offset, len, |cell, index, share| {
            cell.used += share;
            cell.small += if is_small { share } else { 0 };
            cell.pieces += 1;
            cell.slot = (share == cell.len).then_some(slot);
            if rank.is_some() {
                shares.push((index, share));
            }
        });
        for (index, share) in shares {
            if let Some(rank) = rank {
                self.named[index][rank] += share;
            }
        }
    }

    fn free(&mut self, offset: u64, len: u64) {
        self.each(offset, len, |cell, _, share| cell.free += share);
    }

    fn finish(mut self) -> Vec<Cell> {
        for (cell, named) in self.cells.iter_mut().zip(&self.named) {
            cell.largest = named.iter().position(|bytes| bytes * 2 > cell.len);
        }
        self.cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 10 << 20;

    fn area(units: u64) -> DataArea {
        DataArea { start: START, end: START + units * ALLOC_UNIT }
    }

    #[test]
    fn cells_cover_the_area_once() {
        for (units, most) in [(1, 1), (7, 3), (64, 64), (65, 64), (1_000_000, 4608)] {
            let cells = Grid::new(area(units), most).finish();
            assert!(cells.len() <= most, "{units} units in {} cells", cells.len());
            let mut at = START;
            for cell in &cells {
                assert_eq!((cell.offset, cell.len % ALLOC_UNIT), (at, 0));
                at += cell.len;
            }
            assert_eq!(at, START + units * ALLOC_UNIT, "{units} units");
        }
        assert!(Grid::new(area(0), 10).finish().is_empty());
    }

    #[test]
    fn extents_and_free_runs_fill_cells() {
        let mut grid = Grid::new(area(8), 4);
        let file = |slot, rank| File { slot, rank, is_small: false };
        grid.put(START + ALLOC_UNIT, 4 * ALLOC_UNIT, file(3, Some(2)));
        grid.put(START + 5 * ALLOC_UNIT, ALLOC_UNIT, file(4, None));
        grid.free(START + 6 * ALLOC_UNIT, 2 * ALLOC_UNIT);
        let cells = grid.finish();
        let seen: Vec<_> = cells
            .iter()
            .map(|c| (c.used >> 21, c.free >> 21, c.held() >> 21, c.pieces, c.largest))
            .collect();
        assert_eq!(cells.iter().map(|c| c.slot).collect::<Vec<_>>(), [None, Some(3), None, None]);
        assert_eq!(
            seen,
            [(1, 0, 1, 1, None), (2, 0, 0, 1, Some(2)), (2, 0, 0, 2, None), (0, 2, 0, 0, None)]
        );
    }
}
