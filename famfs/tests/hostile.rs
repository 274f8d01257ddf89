// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whatever is on the media: no panic, no path that leaves the file system, no two files that share
//! memory, no file outside the data area.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod common;
#[path = "common/formatting.rs"]
mod formatting;
#[path = "common/images.rs"]
mod images;

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use common::Pool;
use famfs::format::map::{Extent, FileMap};
use famfs::format::{
    ALLOC_UNIT, Body, ENTRY_LEN, Entry, EntryKind, FileBody, LOG_OFFSET, slot_offset,
};
use famfs::media::{Media, PoolFile};
use famfs::replay::fsck;
use famfs::replay::{Contents, NodeKind};
use famfs::store::log::Log;
use famfs::store::mkfs::mkfs;
use famfs::sys::dax::Access;
use famfs::text::error_report::one_line;
use images::{DEVICE_LEN, image};
use proptest::prelude::*;

use zerocopy::{FromBytes, FromZeros, IntoBytes, little_endian::U64};

/// Superblock, log header and 18 entries of the image with every kind of entry.
static MIXED: LazyLock<Vec<u8>> =
    LazyLock::new(|| image("mixed.img.zst")[..(8 << 20) + (2 << 20)].to_vec());
const ENTRIES: u64 = 18;

/// Reads everything and checks what a plan promises.
fn check_promises(pool: &Pool) {
    let media = PoolFile::open(&pool.path, Access::Read).unwrap();
    let Ok(contents) = Contents::read(&media) else { return };
    fsck::check(&media, &contents);
    let Contents { superblock, plan, .. } = contents;
    let area = superblock.data_area(media.len());

    let mut taken: Vec<Extent> = Vec::new();
    for node in plan.nodes() {
        let path = node.path.as_bytes();
        assert!(!path.starts_with(b"/") && !path.starts_with(b".meta"), "{}", node.path);
        assert!(path.split(|&b| b == b'/').all(|part| !matches!(part, b"" | b"." | b"..")));
        assert_eq!(node.owner.mode & !0o7777, 0);
        let NodeKind::File { size, map } = &node.kind else { continue };
        assert!(*size > 0 && map.piece(size - 1).is_some(), "the last byte has a place");
        for extent in map.extents() {
            assert!(extent.offset >= area.start && extent.offset + extent.len <= area.end);
            let apart = |other: &Extent| {
                extent.offset >= other.offset + other.len
                    || other.offset >= extent.offset + extent.len
            };
            assert!(taken.iter().all(apart), "\"{}\" shares memory", node.path);
            taken.push(*extent);
        }
    }
}

/// Where the damage is, and whether its checksum is corrected.
#[derive(Clone, Debug)]
enum Damage {
    /// Bytes of an entry, with a new checksum: what a hostile master can write.
    Entry { slot: u64, at: usize, bytes: Vec<u8> },
    /// A part of one entry in another one, such as its extents.
    Twin { from: u64, to: u64, at: usize },
    /// Any bytes of superblock, log header or entries.
    Anywhere { at: usize, bytes: Vec<u8> },
}

fn damage() -> impl Strategy<Value = Damage> {
    // Checks go wrong at the edges of fields, so these come as often as everything else.
    let edge = prop::sample::select(vec![0_u64, 1, 16, 17, 0x20_0000, 1 << 36, 1 << 63, u64::MAX]);
    let bytes = prop_oneof![
        edge.prop_map(|edge| edge.to_le_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 1..24),
    ];
    let used = usize::try_from(48 + ENTRIES * ENTRY_LEN).unwrap();
    prop_oneof![
        3 => (0..ENTRIES, 0_usize..536, bytes.clone())
            .prop_map(|(slot, at, bytes)| Damage::Entry { slot, at, bytes }),
        1 => (0..ENTRIES, 0..ENTRIES, prop::sample::select(vec![12_usize, 16, 40, 120, 136]))
            .prop_map(|(from, to, at)| Damage::Twin { from, to, at }),
        1 => (0_usize..200 + used, bytes).prop_map(|(at, bytes)| Damage::Anywhere { at, bytes }),
    ]
}

/// Overwrites bytes as far as they reach.
fn put(target: &mut [u8], at: usize, bytes: &[u8]) {
    for (old, new) in target.iter_mut().skip(at).zip(bytes) {
        *old = *new;
    }
}

/// Overwrites bytes of an entry, and corrects its checksum.
fn put_entry(image: &mut [u8], slot: u64, at: usize, bytes: &[u8]) {
    let start = usize::try_from(slot_offset(slot)).unwrap();
    let raw = &mut image[start..start + size_of::<Entry>()];
    put(&mut raw[..536], at, bytes);
    let mut entry = Entry::read_from_bytes(raw).unwrap();
    entry.crc = U64::new(entry.checksum());
    raw.copy_from_slice(entry.as_bytes());
}

fn apply(image: &mut [u8], damage: &Damage) {
    match damage {
        Damage::Entry { slot, at, bytes } => put_entry(image, *slot, *at, bytes),
        Damage::Twin { from, to, at } => {
            let start = usize::try_from(slot_offset(*from)).unwrap();
            let bytes = image[start + at..start + 536].to_vec();
            put_entry(image, *to, *at, &bytes);
        }
        Damage::Anywhere { at, bytes } if *at < 200 => put(&mut image[..200], *at, bytes),
        Damage::Anywhere { at, bytes } => {
            let start = usize::try_from(LOG_OFFSET).unwrap();
            put(&mut image[start..], at - 200, bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_keeps_its_promises(damages in prop::collection::vec(damage(), 1..8)) {
        let used = usize::try_from(slot_offset(ENTRIES)).unwrap();
        let mut bytes = MIXED[..used].to_vec();
        for damage in &damages {
            apply(&mut bytes, damage);
        }
        check_promises(&Pool::new(&bytes, DEVICE_LEN));
    }
}

/// Two files in the same memory: the first one keeps it.
#[test]
fn shared_memory_is_found() {
    let mut bytes = MIXED.clone();
    apply(&mut bytes, &Damage::Twin { from: 8, to: 11, at: 120 });
    let pool = Pool::new(&bytes, DEVICE_LEN);
    let media = PoolFile::open(&pool.path, Access::Read).unwrap();
    let plan = Contents::read(&media).unwrap().plan;
    assert_eq!(plan.collisions, 1);
    let text = one_line(&plan.refused[0]);
    assert!(text.ends_with("it shares memory with \"a/b/c/big\" of slot 8"), "{text}");
    assert_eq!(plan.nodes().len(), 16);
}

/// A file entry with a path of its own.
fn file_entry(number: u64, extents: Vec<Extent>) -> (u32, Body) {
    let mut body = FileBody::new_zeroed();
    body.size = U64::new(1);
    put(&mut body.path, 0, format!("f{number}").as_bytes());
    FileMap::Simple(extents.into()).encode(&mut body);
    (EntryKind::File as u32, body.as_bytes().try_into().unwrap())
}

/// Entries that claim as much as they can take no longer than others: a step for every unit or for
/// every earlier file would take hours.
#[test]
fn a_full_log_of_claims_to_everything_is_read() {
    let pool = Pool::new(&[], 8 << 40);
    let media = PoolFile::open(&pool.path, Access::Write).unwrap();
    let superblock = mkfs(&media, &formatting::options(false)).unwrap();
    let mut log = Log::open(&media, superblock.log_len).unwrap();
    let area = superblock.data_area(media.len());
    let half = log.slots() / 2;
    let honest = |number: u64| {
        let unit = |n: u64| area.start + (number * 32 + n * 2) * ALLOC_UNIT;
        (0..16).map(|n| Extent { offset: unit(n), len: ALLOC_UNIT }).collect()
    };
    let everything = vec![Extent { offset: area.start, len: area.end - area.start }; 16];
    let entries: Vec<_> = (0..half)
        .map(|number| file_entry(number, honest(number)))
        .chain((half..log.slots()).map(|number| file_entry(number, everything.clone())))
        .collect();
    log.append(&entries).unwrap();

    let plan = Contents::read(&media).unwrap().plan;
    assert_eq!((plan.nodes().len() as u64, plan.collisions), (half, log.slots() - half));
    assert_eq!(plan.space.free(), 0);
    let text = one_line(&plan.refused[0]);
    assert!(
        text.ends_with(&format!("memory with \"f{}\" of slot {}", half - 1, half - 1)),
        "{text}"
    );
}

/// chown(2) would take it as "leave unchanged": the file would belong to root.
#[test]
fn nobodys_number_owns_no_file() {
    let mut bytes = MIXED.clone();
    apply(&mut bytes, &Damage::Entry { slot: 8, at: 28, bytes: vec![0xff; 4] });
    let pool = Pool::new(&bytes, DEVICE_LEN);
    let media = PoolFile::open(&pool.path, Access::Read).unwrap();
    let plan = Contents::read(&media).unwrap().plan;
    let text = one_line(&plan.refused[0]);
    assert!(text.ends_with("user is 4294967295, expected 0 to 4294967294"), "{text}");
    assert_eq!(plan.nodes().len(), 16);
}

#[test]
fn every_flipped_bit_and_every_truncation_is_survived() {
    let used = usize::try_from(slot_offset(ENTRIES)).unwrap();
    let pool = Pool::new(&MIXED[..used], DEVICE_LEN);
    let file = fs::OpenOptions::new().write(true).open(&pool.path).unwrap();
    let log = usize::try_from(LOG_OFFSET).unwrap();
    for at in (0..200).chain(log..used) {
        // One bit of each byte, a different one each time.
        let flipped = MIXED[at] ^ 1 << (at % 8);
        file.write_all_at(&[flipped], at as u64).unwrap();
        check_promises(&pool);
        file.write_all_at(&[MIXED[at]], at as u64).unwrap();
    }
    for len in (0..used as u64).rev().step_by(4099) {
        file.set_len(len).unwrap();
        check_promises(&pool);
    }
}
