// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Target: extent maps. Input: first unit and number of units of the data area (4 bytes each,
//! little-endian, cut to what a device can have), then a file entry's body.
//!
//! Invariants of a map that is accepted:
//! * 1 to 16 extents, each within the data area and in whole allocation units, together at least
//!   as long as the file;
//! * the pieces of the file follow each other without a gap, and each lies within an extent;
//! * writing the map again and reading it gives the same map.

use famfs::format::map::{DataArea, FileMap};
use famfs::format::{ALLOC_UNIT, FileBody, MAX_EXTENTS};
use zerocopy::{FromZeros, IntoBytes};

/// Number of pieces to follow from the start of a file, and from a few places further on.
const FOLLOWED: usize = 40;

/// Runs the target.
///
/// # Panics
/// When an invariant does not hold.
pub fn run(data: &[u8]) {
    let Some((bounds, rest)) = data.split_first_chunk::<8>() else { return };
    let number = |at: usize| {
        let bytes = [bounds[at], bounds[at + 1], bounds[at + 2], bounds[at + 3]];
        u64::from(u32::from_le_bytes(bytes) >> 8)
    };
    let start = number(0) * ALLOC_UNIT;
    let area = DataArea { start, end: start + number(4) * ALLOC_UNIT };
    let mut body = FileBody::new_zeroed();
    let len = rest.len().min(size_of::<FileBody>());
    body.as_mut_bytes()[..len].copy_from_slice(&rest[..len]);
    let Ok(map) = FileMap::parse(&body, area) else { return };

    let size = body.size.get();
    let extents = map.extents();
    assert!((1..=MAX_EXTENTS).contains(&extents.len()));
    for extent in extents {
        assert!(extent.offset >= area.start && extent.offset + extent.len <= area.end);
        assert!(extent.offset.is_multiple_of(ALLOC_UNIT) && extent.len.is_multiple_of(ALLOC_UNIT));
    }
    assert!(size > 0 && extents.iter().map(|extent| extent.len).sum::<u64>() >= size);

    for start in [0, size / 3, size / 2, size - 1] {
        let mut at = start;
        for _ in 0..FOLLOWED {
            if at >= size {
                break;
            }
            let piece = map.piece(at).expect("a byte of the file has no place");
            assert!(piece.len > 0, "an empty piece at byte {at}");
            let inside = extents.iter().any(|extent| {
                piece.offset >= extent.offset
                    && piece.offset + piece.len <= extent.offset + extent.len
            });
            assert!(inside, "the piece at byte {at} is outside of the extents");
            // The next byte of the same piece is the next byte of the device.
            if piece.len > 1 {
                let next = map.piece(at + 1).expect("a byte of the file has no place");
                assert_eq!((next.offset, next.len), (piece.offset + 1, piece.len - 1));
            }
            at += piece.len;
        }
    }

    let mut again = FileBody::new_zeroed();
    again.size = body.size;
    map.encode(&mut again);
    assert_eq!(FileMap::parse(&again, area).as_ref(), Ok(&map));
}
