// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a file's bytes lie on the device.

use std::ops::{Deref, Range};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes, transmute};

use crate::format::{self, ALLOC_UNIT, EXT_INTERLEAVED, EXT_SIMPLE, MAX_EXTENTS};

/// A range of the device in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset of the first byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

/// The part of a device that files may use, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct DataArea {
    /// First byte after the log.
    pub start: u64,
    /// First byte after the last whole allocation unit.
    pub end: u64,
}

/// A file's map, checked: every extent is aligned and lies in the data area, and together they hold
/// the file's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileMap {
    /// Extents, one after the other.
    Simple(Extents),
    /// Chunks in turn over strips of one length.
    Interleaved {
        /// Bytes per chunk.
        chunk_size: u64,
        /// The strips in data order.
        strips: Extents,
    },
}

/// Extents in the order of the data. Most files have one, which needs no memory of its own.
#[derive(Clone, Debug)]
pub enum Extents {
    /// A single one.
    One(Extent),
    /// Any number.
    Many(Box<[Extent]>),
}

impl From<Extent> for Extents {
    fn from(extent: Extent) -> Self {
        Self::One(extent)
    }
}

impl From<Vec<Extent>> for Extents {
    fn from(extents: Vec<Extent>) -> Self {
        match extents[..] {
            [extent] => Self::One(extent),
            _ => Self::Many(extents.into()),
        }
    }
}

impl Deref for Extents {
    type Target = [Extent];

    fn deref(&self) -> &[Extent] {
        match self {
            Self::One(extent) => std::slice::from_ref(extent),
            Self::Many(extents) => extents,
        }
    }
}

impl<'e> IntoIterator for &'e Extents {
    type Item = &'e Extent;
    type IntoIter = std::slice::Iter<'e, Extent>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromIterator<Extent> for Extents {
    fn from_iter<I: IntoIterator<Item = Extent>>(extents: I) -> Self {
        Vec::from_iter(extents).into()
    }
}

impl PartialEq for Extents {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Extents {}

/// Where the bytes of a file are on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// All of them, as one map says.
    Map(FileMap),
    /// In ranges of whole pages, each with its offset in the file, in order. What no range holds is
    /// zero; the bytes of the last page behind the end of the file are zero too.
    Pieces(Vec<(u64, Extent)>),
}

/// Why a file's map cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// A file without bytes has no map.
    #[error("file size is 0, expected at least 1")]
    EmptyFile,
    /// Neither simple nor interleaved.
    #[error("extent type is {0}, expected 0 (simple) or 1 (interleaved)")]
    ExtentType(u32),
    /// A count is outside its array.
    #[error("{what} is {found}, expected 1 to {max}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// Value on the media.
        found: u64,
        /// Largest legal value.
        max: u64,
    },
    /// The chunks do not fit the strips.
    #[error("chunk size is {0}, expected a power of two and a multiple of 2 MiB")]
    ChunkSize(u64),
    /// The strips differ.
    #[error("strip {index} has {found} bytes, expected {expected} like strip 0, in whole chunks")]
    StripLength {
        /// Index of the strip.
        index: usize,
        /// Its length.
        found: u64,
        /// Length of the first strip.
        expected: u64,
    },
    /// An extent is on another device.
    #[error("extent {index} is on device {found}, expected 0")]
    Device {
        /// Index of the extent.
        index: usize,
        /// Device index on the media.
        found: u64,
    },
    /// An extent is not made of allocation units.
    #[error("extent {index} is {len} bytes at {offset:#x}, expected multiples of 2 MiB")]
    Alignment {
        /// Index of the extent.
        index: usize,
        /// Its offset.
        offset: u64,
        /// Its length.
        len: u64,
    },
    /// An extent overlaps superblock or log, or passes the end.
    #[error("extent {index} is {len} bytes at {offset:#x}, expected within {start:#x}..{end:#x}")]
    Outside {
        /// Index of the extent.
        index: usize,
        /// Its offset.
        offset: u64,
        /// Its length.
        len: u64,
        /// First byte of the data area.
        start: u64,
        /// First byte after the data area.
        end: u64,
    },
    /// The extents are too short for the file.
    #[error("file size is {size}, but the extents hold only {held} bytes")]
    TooShort {
        /// Size of the file.
        size: u64,
        /// Sum of the extents.
        held: u64,
    },
}

impl Memory {
    /// The ranges of a file of `size` bytes that have memory, in order. What lies between them is a
    /// hole.
    pub fn data(&self, size: u64) -> Vec<Range<u64>> {
        let Self::Pieces(pieces) = self else {
            return Vec::from_iter((size > 0).then_some(0..size));
        };
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (at, extent) in pieces {
            let (start, end) = (*at, (at + extent.len).min(size));
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        ranges
    }

    /// What holds a file from byte `from` on: its device offset, or `None` in a hole, and the
    /// number of bytes that go on like this. `None` behind everything that a map holds.
    pub fn part(&self, from: u64) -> Option<(Option<u64>, u64)> {
        match self {
            Self::Map(map) => map.piece(from).map(|piece| (Some(piece.offset), piece.len)),
            Self::Pieces(pieces) => {
                let next = pieces.partition_point(|(at, extent)| at + extent.len <= from);
                Some(match pieces.get(next) {
                    Some((at, extent)) if *at <= from => {
                        (Some(extent.offset + (from - at)), at + extent.len - from)
                    }
                    Some((at, _)) => (None, at - from),
                    None => (None, u64::MAX - from),
                })
            }
        }
    }
}

impl FileMap {
    /// Checks the map of a file entry.
    pub fn parse(body: &format::FileBody, area: DataArea) -> Result<Self, MapError> {
        let size = body.size.get();
        if size == 0 {
            return Err(MapError::EmptyFile);
        }
        let map = match body.ext_type.get() {
            EXT_SIMPLE => {
                let raw: format::SimpleMap = transmute!(body.map);
                let count = checked_count("extent count", raw.count.get().into(), MAX_EXTENTS)?;
                Self::Simple(parse_extents(&raw.extents[..count], area)?)
            }
            EXT_INTERLEAVED => {
                let raw: format::InterleavedMap = transmute!(body.map);
                checked_count("interleaved extent count", raw.count.get().into(), 1)?;
                let nstrips = checked_count("strip count", raw.nstrips.get(), MAX_EXTENTS)?;
                let chunk_size = raw.chunk_size.get();
                if !chunk_size.is_power_of_two() || chunk_size < ALLOC_UNIT {
                    return Err(MapError::ChunkSize(chunk_size));
                }
                let strips = parse_extents(&raw.strips[..nstrips], area)?;
                let expected = strips[0].len;
                for (index, strip) in strips.iter().enumerate() {
                    if strip.len != expected || !strip.len.is_multiple_of(chunk_size) {
                        let found = strip.len;
                        return Err(MapError::StripLength { index, found, expected });
                    }
                }
                Self::Interleaved { chunk_size, strips }
            }
            other => return Err(MapError::ExtentType(other)),
        };
        // At most 16 extents within a device of at most 2^46 bytes: no overflow.
        let held = map.extents().iter().map(|extent| extent.len).sum();
        if held < size {
            return Err(MapError::TooShort { size, held });
        }
        Ok(map)
    }

    /// Writes the map into a file entry.
    pub fn encode(&self, body: &mut format::FileBody) {
        let raw = |extent: &Extent| format::RawExtent {
            devindex: U64::ZERO,
            offset: U64::new(extent.offset),
            len: U64::new(extent.len),
        };
        match self {
            Self::Simple(extents) => {
                let mut map = format::SimpleMap::new_zeroed();
                for (slot, extent) in map.extents.iter_mut().zip(extents) {
                    *slot = raw(extent);
                    map.count += 1;
                }
                body.ext_type = U32::new(EXT_SIMPLE);
                body.map.copy_from_slice(map.as_bytes());
            }
            Self::Interleaved { chunk_size, strips } => {
                let mut map = format::InterleavedMap::new_zeroed();
                map.count = U32::new(1);
                map.chunk_size = U64::new(*chunk_size);
                for (slot, strip) in map.strips.iter_mut().zip(strips) {
                    *slot = raw(strip);
                    map.nstrips += 1;
                }
                body.ext_type = U32::new(EXT_INTERLEAVED);
                body.map.copy_from_slice(map.as_bytes());
            }
        }
    }

    /// The extents or strips.
    pub fn extents(&self) -> &[Extent] {
        match self {
            Self::Simple(extents) => extents,
            Self::Interleaved { strips, .. } => strips,
        }
    }

    /// The contiguous piece of the device that starts at byte `offset` of the file; `None` past the
    /// extents.
    pub fn piece(&self, offset: u64) -> Option<Extent> {
        match self {
            Self::Simple(extents) => {
                let mut skip = offset;
                for extent in extents {
                    if skip < extent.len {
                        return Some(Extent {
                            offset: extent.offset + skip,
                            len: extent.len - skip,
                        });
                    }
                    skip -= extent.len;
                }
                None
            }
            Self::Interleaved { chunk_size, strips } => {
                let nstrips = strips.len() as u64;
                let (chunk, within) = (offset / chunk_size, offset % chunk_size);
                let strip = strips.iter().zip(0..).find(|(_, n)| *n == chunk % nstrips)?.0;
                let start = (chunk / nstrips) * chunk_size + within;
                (start < strip.len)
                    .then(|| Extent { offset: strip.offset + start, len: chunk_size - within })
            }
        }
    }
}

fn checked_count(what: &'static str, found: u64, max: usize) -> Result<usize, MapError> {
    match usize::try_from(found) {
        Ok(count) if (1..=max).contains(&count) => Ok(count),
        _ => Err(MapError::Count { what, found, max: max as u64 }),
    }
}

fn parse_extents(raw: &[format::RawExtent], area: DataArea) -> Result<Extents, MapError> {
    let parse = |(index, raw): (usize, &format::RawExtent)| {
        let (offset, len) = (raw.offset.get(), raw.len.get());
        if raw.devindex.get() != 0 {
            return Err(MapError::Device { index, found: raw.devindex.get() });
        }
        let in_area =
            offset >= area.start && offset.checked_add(len).is_some_and(|end| end <= area.end);
        if !in_area {
            let DataArea { start, end } = area;
            return Err(MapError::Outside { index, offset, len, start, end });
        }
        if len == 0 || !offset.is_multiple_of(ALLOC_UNIT) || !len.is_multiple_of(ALLOC_UNIT) {
            return Err(MapError::Alignment { index, offset, len });
        }
        Ok(Extent { offset, len })
    };
    match raw {
        [one] => Ok(Extents::One(parse((0, one))?)),
        _ => raw.iter().enumerate().map(parse).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB2: u64 = ALLOC_UNIT;
    const AREA: DataArea = DataArea { start: 5 * MIB2, end: 100 * MIB2 };

    fn body(size: u64, map: &FileMap) -> format::FileBody {
        let mut body = format::FileBody::new_zeroed();
        body.size = U64::new(size);
        map.encode(&mut body);
        body
    }

    fn extent(unit: u64, units: u64) -> Extent {
        Extent { offset: unit * MIB2, len: units * MIB2 }
    }

    #[test]
    fn round_trips() {
        for map in [
            FileMap::Simple(vec![extent(5, 1), extent(9, 2)].into()),
            FileMap::Interleaved {
                chunk_size: MIB2,
                strips: vec![extent(8, 4), extent(20, 4)].into(),
            },
        ] {
            assert_eq!(FileMap::parse(&body(MIB2, &map), AREA), Ok(map));
        }
    }

    #[test]
    fn refuses_bad_extents() {
        for (map, size, message) in [
            (
                vec![extent(4, 1)],
                1,
                "extent 0 is 2097152 bytes at 0x800000, expected within 0xa00000..0xc800000",
            ),
            (
                vec![extent(99, 2)],
                1,
                "extent 0 is 4194304 bytes at 0xc600000, expected within 0xa00000..0xc800000",
            ),
            (
                vec![Extent { offset: MIB2 * 6, len: u64::MAX }],
                1,
                "expected within 0xa00000..0xc800000",
            ),
            (
                vec![extent(5, 1), Extent { offset: 6 * MIB2, len: 4096 }],
                1,
                "extent 1 is 4096 bytes at 0xc00000, expected multiples of 2 MiB",
            ),
            (vec![extent(5, 0)], 1, "extent 0 is 0 bytes at 0xa00000, expected multiples of 2 MiB"),
            (
                vec![extent(5, 1)],
                MIB2 + 1,
                "file size is 2097153, but the extents hold only 2097152 bytes",
            ),
            (vec![], 1, "extent count is 0, expected 1 to 16"),
            (vec![extent(5, 1)], 0, "file size is 0, expected at least 1"),
        ] {
            let error =
                FileMap::parse(&body(size, &FileMap::Simple(map.into())), AREA).unwrap_err();
            assert!(error.to_string().ends_with(message), "{error}");
        }
    }

    #[test]
    fn simple_pieces_follow_the_extents() {
        let map = FileMap::Simple(vec![extent(5, 1), extent(9, 2)].into());
        assert_eq!(map.piece(10), Some(Extent { offset: 5 * MIB2 + 10, len: MIB2 - 10 }));
        assert_eq!(map.piece(MIB2), Some(extent(9, 2)));
        assert_eq!(map.piece(3 * MIB2), None);
    }

    #[test]
    fn holes_are_between_the_data() {
        let page = |at: u64, pages: u64| (at * 4096, Extent { offset: 0, len: pages * 4096 });
        let memory = Memory::Pieces(vec![page(1, 1), page(2, 2), page(9, 1)]);
        assert_eq!(memory.data(9 * 4096 + 7), [4096..4 * 4096, 9 * 4096..9 * 4096 + 7]);
        assert!(Memory::Pieces(Vec::new()).data(1 << 60).is_empty());
        let map = Memory::Map(FileMap::Simple(extent(5, 1).into()));
        assert_eq!((map.data(7), map.data(0)), (vec![0..7], vec![]));
    }

    #[test]
    fn interleaved_pieces_go_round() {
        let map = FileMap::Interleaved {
            chunk_size: MIB2,
            strips: vec![extent(8, 2), extent(20, 2)].into(),
        };
        let starts: Vec<_> = (0..5).map(|n| map.piece(n * MIB2).map(|p| p.offset / MIB2)).collect();
        assert_eq!(starts, [Some(8), Some(20), Some(9), Some(21), None]);
        assert_eq!(map.piece(MIB2 + 7), Some(Extent { offset: 20 * MIB2 + 7, len: MIB2 - 7 }));
    }
}
