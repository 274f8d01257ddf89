// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Exhaustive damage: every single bit of a populated superblock and log, and every truncation.
//! Each gives a clear error, or is tolerated as the tables here say; files before it stay as they
//! were.
//!
//! The image has every kind of entry. It lies in memory, so that each of its 160,000 damages takes
//! microseconds.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "common/images.rs"]
mod images;

use std::mem::offset_of;
use std::ops::Range;

use famfs::format::{
    ALLOC_UNIT, Body, ENTRY_LEN, EXT_INTERLEAVED, Entry, EntryKind, FileBody, InterleavedMap,
    LOG_HEADER_LEN, LOG_OFFSET, LogHeader, MkdirBody, RawExtent, SimpleMap, Superblock,
    slot_offset,
};
use famfs::media::Media;
use famfs::media::in_memory::InMemory;
use famfs::replay::fsck;
use famfs::replay::{Contents, Node};
use famfs::text::error_report::one_line;
use images::{DEVICE_LEN, image};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes, transmute};

/// Published entries of the image.
const ENTRIES: u64 = 18;
const SUPERBLOCK_LEN: u64 = size_of::<Superblock>() as u64;
/// Bytes of a path field.
const PATH_LEN: usize = 80;

/// The undamaged file system.
struct Populated {
    media: InMemory,
    nodes: Vec<Node>,
}

fn populated() -> Populated {
    let bytes = image("mixed.img.zst");
    let media = InMemory::new(DEVICE_LEN);
    let end = usize::try_from(slot_offset(ENTRIES)).unwrap();
    media.write_at(0, &bytes[..end]).unwrap();
    let contents = Contents::read(&media).unwrap();
    assert_eq!(contents.log.published(), ENTRIES);
    let nodes = contents.plan.nodes().to_vec();
    assert_eq!(nodes.len(), 17, "every entry but the one of an unknown type");
    Populated { media, nodes }
}

/// Calls `check` with each bit of a range of the device flipped, and flips it back.
fn flip_each(media: &InMemory, range: Range<u64>, mut check: impl FnMut(u64, u8)) {
    for offset in range {
        let mut byte = [0];
        media.read_at(offset, &mut byte).unwrap();
        for bit in 0..8 {
            media.write_at(offset, &[byte[0] ^ 1 << bit]).unwrap();
            check(offset, bit);
        }
        media.write_at(offset, &byte).unwrap();
    }
}

/// Everything that is wrong, as fsck reports it; an error if nothing can be read at all.
fn problems(media: &InMemory) -> (Vec<Node>, Vec<String>) {
    match Contents::read(media) {
        Ok(contents) => {
            let problems = fsck::check(media, &contents).problems;
            (contents.plan.nodes().to_vec(), problems)
        }
        Err(error) => (Vec::new(), vec![one_line(&error)]),
    }
}

/// Bytes of the superblock that may hold anything, as the reference leaves them: no checksum
/// protects them. The device size among them is checked against the device's real size.
#[test]
fn every_bit_of_the_superblock() {
    const TOLERATED: [Range<usize>; 2] = [
        offset_of!(Superblock, flags)..offset_of!(Superblock, dev_size),
        offset_of!(Superblock, dd_uuid)..size_of::<Superblock>(),
    ];
    let Populated { media, nodes } = populated();
    flip_each(&media, 0..SUPERBLOCK_LEN, |offset, bit| {
        let at = usize::try_from(offset).unwrap();
        let (found, problems) = problems(&media);
        if TOLERATED.iter().any(|range| range.contains(&at)) {
            assert!(found == nodes && problems.is_empty(), "{at}.{bit}: {problems:?}");
        } else if at >= offset_of!(Superblock, dev_size) {
            // Whatever it says, all files lie within the real device.
            assert_eq!(found, nodes, "{at}.{bit}");
            assert!(problems[0].starts_with("superblock: device size is "), "{problems:?}");
        } else {
            assert!(found.is_empty() && problems.len() == 1, "{at}.{bit}: {problems:?}");
            assert!(problems[0].contains("superblock"), "{at}.{bit}: {}", problems[0]);
        }
    });
}

#[test]
fn every_bit_of_the_log_header() {
    let Populated { media, nodes } = populated();
    let counters = LOG_OFFSET + offset_of!(LogHeader, next_seqnum) as u64;
    flip_each(&media, LOG_OFFSET..counters, |offset, bit| {
        let (found, problems) = problems(&media);
        assert!(found.is_empty() && problems.len() == 1, "{offset:#x}.{bit}: {problems:?}");
        assert!(problems[0].starts_with("log header at 0x200000: "), "{}", problems[0]);
    });
    // The counters have no checksum, because append moves them. A wrong sequence number does no
    // harm to a reader; a wrong index hides or invents entries, and invented ones have no checksum.
    let index = LOG_OFFSET + offset_of!(LogHeader, next_index) as u64;
    flip_each(&media, counters..index, |offset, bit| {
        let (found, problems) = problems(&media);
        assert_eq!(found, nodes, "{offset:#x}.{bit}");
        assert!(problems[0].contains("next sequence number"), "{problems:?}");
    });
    flip_each(&media, index..LOG_OFFSET + LOG_HEADER_LEN, |offset, bit| {
        let mut raw = [0; 8];
        media.read_at(index, &mut raw).unwrap();
        let next = u64::from_le_bytes(raw);
        let (found, problems) = problems(&media);
        if next < ENTRIES {
            // What an append leaves that was interrupted between its last two stores.
            let hidden: Vec<Node> = nodes.iter().filter(|n| n.slot < next).cloned().collect();
            assert!(found == hidden && problems.is_empty(), "{offset:#x}.{bit}: {problems:?}");
        } else {
            assert_eq!(found, nodes, "{offset:#x}.{bit}");
            assert!(problems.iter().any(|p| p.starts_with("log ")), "{problems:?}");
        }
    });
}

#[test]
fn every_bit_of_every_entry() {
    let Populated { media, nodes } = populated();
    for slot in 0..ENTRIES {
        let before: Vec<Node> = nodes.iter().filter(|node| node.slot < slot).cloned().collect();
        let start = slot_offset(slot);
        flip_each(&media, start..start + ENTRY_LEN, |offset, bit| {
            let (found, problems) = problems(&media);
            assert_eq!(found, before, "{offset:#x}.{bit}");
            let expected = format!("log slot {slot} at {start:#x}: checksum ");
            assert!(problems[0].starts_with(&expected), "{offset:#x}.{bit}: {problems:?}");
        });
    }
    // Unpublished slots may hold anything.
    let free = slot_offset(ENTRIES);
    flip_each(&media, free..free + ENTRY_LEN, |offset, bit| {
        assert_eq!(problems(&media), (nodes.clone(), Vec::new()), "{offset:#x}.{bit}");
    });
}

/// What a hostile master can do: every single bit of every entry, with a right checksum. Exactly
/// the bits of the table change nothing; every other one gives another file or an error, and in
/// each case all other entries stay what they were, or miss the directory they were in.
#[test]
fn every_bit_of_every_entry_with_its_checksum_corrected() {
    let Populated { media, nodes } = populated();
    for slot in 0..ENTRIES {
        let mut bytes = [0; size_of::<Entry>()];
        media.read_at(slot_offset(slot), &mut bytes).unwrap();
        let entry: Entry = transmute!(bytes);
        let free = free_bytes(&entry);
        for at in offset_of!(Entry, kind)..offset_of!(Entry, crc) {
            for bit in 0..8 {
                let mut flipped = bytes;
                flipped[at] ^= 1 << bit;
                let mut sealed: Entry = transmute!(flipped);
                sealed.crc = U64::new(sealed.checksum());
                media.write_at(slot_offset(slot), sealed.as_bytes()).unwrap();
                let (found, problems) = problems(&media);
                let is_free =
                    free.iter().any(|(range, bits)| range.contains(&at) && bits.contains(&bit));
                let same = found == nodes && problems.is_empty();
                assert_eq!(same, is_free, "slot {slot} byte {at} bit {bit}: {problems:?}");
                let others = found.iter().filter(|node| node.slot != slot);
                assert!(others.clone().all(|node| nodes.contains(node)), "slot {slot} byte {at}");
                assert!(others.count() + problems.len() + 1 >= nodes.len() - 1);
            }
        }
        media.write_at(slot_offset(slot), &bytes).unwrap();
    }
}

/// Bytes of an entry, and bits in them, that every reader ignores.
fn free_bytes(entry: &Entry) -> Vec<(Range<usize>, Range<u8>)> {
    let body = offset_of!(Entry, body);
    let all = |range: Range<usize>| (body + range.start..body + range.end, 0..8);
    let path_end = |field: &[u8; PATH_LEN]| field.iter().position(|&byte| byte == 0).unwrap() + 1;
    // Only 12 bits of a mode count.
    let mode =
        |offset: usize| [(body + offset + 1..body + offset + 2, 4..8), all(offset + 2..offset + 4)];
    let padding = (offset_of!(Entry, pad)..body, 0..8);
    let mut free = vec![padding];
    match EntryKind::of(entry) {
        Some(EntryKind::File) => {
            let file: FileBody = transmute!(entry.body);
            let path = offset_of!(FileBody, path);
            let flags = offset_of!(FileBody, flags);
            free.push(all(flags..flags + 4));
            free.extend(mode(offset_of!(FileBody, mode)));
            free.push(all(path + path_end(&file.path)..path + PATH_LEN));
            let pad = offset_of!(FileBody, pad);
            free.push(all(pad..pad + 4));
            let map = offset_of!(FileBody, map);
            // After the count, and after the extents in use.
            free.push(all(map + 4..map + 8));
            let (extents, used) = if file.ext_type.get() == EXT_INTERLEAVED {
                let raw: InterleavedMap = transmute!(file.map);
                (offset_of!(InterleavedMap, strips), usize::try_from(raw.nstrips.get()).unwrap())
            } else {
                let raw: SimpleMap = transmute!(file.map);
                (offset_of!(SimpleMap, extents), usize::try_from(raw.count.get()).unwrap())
            };
            free.push(all(map + extents + size_of::<RawExtent>() * used..size_of::<Body>()));
        }
        Some(EntryKind::Mkdir) => {
            let dir = MkdirBody::read_from_bytes(&entry.body).unwrap();
            let path = offset_of!(MkdirBody, path);
            free.extend(mode(offset_of!(MkdirBody, mode)));
            free.push(all(path + path_end(&dir.path)..size_of::<Body>()));
        }
        _ => {
            // Another unknown type, or with bit 0 a deletion without a target. Bit 1 leads to a
            // directory.
            let kind = offset_of!(Entry, kind);
            free.extend([(kind..kind + 1, 0..1), (kind..kind + 1, 2..8)]);
            free.extend([(kind + 1..kind + 4, 0..8), all(0..size_of::<Body>())]);
        }
    }
    free
}

/// A copy that was cut, onto a device of the right size: zeros from there on.
#[test]
fn every_cut_of_the_contents() {
    let Populated { media, nodes } = populated();
    let used = slot_offset(ENTRIES);
    let mut bytes = vec![0; usize::try_from(used).unwrap()];
    media.read_at(0, &mut bytes).unwrap();
    // Backwards, so that each cut adds one zero.
    for cut in (0..SUPERBLOCK_LEN).chain(LOG_OFFSET..used).rev() {
        let at = usize::try_from(cut).unwrap();
        media.write_at(cut, &[0]).unwrap();
        if bytes[at] == 0 {
            continue;
        }
        let (found, problems) = problems(&media);
        let whole = (0..ENTRIES).take_while(|slot| slot_offset(slot + 1) <= cut).count() as u64;
        let expected: Vec<Node> = if cut < LOG_OFFSET + LOG_HEADER_LEN {
            Vec::new()
        } else {
            nodes.iter().filter(|node| node.slot < whole).cloned().collect()
        };
        assert_eq!(found, expected, "cut at {cut:#x}");
        // Only what no checksum covers can be cut off unnoticed: an index that becomes zero.
        let counters = LOG_OFFSET + offset_of!(LogHeader, next_seqnum) as u64;
        let noticed = !problems.is_empty();
        assert!(noticed || (counters..counters + 16).contains(&cut), "cut at {cut:#x}");
    }
}

/// A device that is shorter than its file system: every length that cuts superblock or used log,
/// and every unit after them.
#[test]
fn every_length_of_the_device() {
    let bytes = image("mixed.img.zst");
    let Populated { nodes, .. } = populated();
    let used = slot_offset(ENTRIES);
    let log_end = LOG_OFFSET + (8 << 20);
    let units = (log_end..1 << 30).step_by(usize::try_from(ALLOC_UNIT).unwrap());
    for len in (0..SUPERBLOCK_LEN + 2).chain(LOG_OFFSET - 2..used + 2).chain(units) {
        let media = InMemory::new(len);
        let end = usize::try_from(len.min(used)).unwrap();
        for (start, stop) in [(0, 200.min(end)), (end.min(2 << 20), end)] {
            media.write_at(start as u64, &bytes[start..stop]).unwrap();
        }
        let (found, problems) = problems(&media);
        if len < log_end {
            assert!(found.is_empty() && problems.len() == 1, "{len}: {problems:?}");
            let expected =
                if len < SUPERBLOCK_LEN { "cannot read the superblock" } else { "the log ends at" };
            assert!(problems[0].contains(expected), "{len}: {}", problems[0]);
        } else {
            assert!(problems[0].contains("device size"), "{len}: {problems:?}");
            assert!(found.iter().all(|node| nodes.contains(node)), "{len}");
            assert!(found.len() + problems.len() > nodes.len(), "{len}: {problems:?}");
        }
    }
}
