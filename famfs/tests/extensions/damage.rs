// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every bit of every kind of extension entry.

use famfs::format::extension::{SET_MODE, SET_MTIME};
use famfs::format::{Entry, EntryKind, slot_offset};
use famfs::media::Media;
use famfs::replay::fsck;
use zerocopy::little_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

use crate::log::{attributes, file, group, link, listed, moved, removal};
use crate::sample::{Prepared, ROOT, paths, piece, prepared};

/// Every single bit of every kind of extension entry: without a checksum that fits, reading ends
/// there; with one, the entry does something else or is refused, and all before it stays.
#[test]
fn every_bit_of_every_entry() {
    let Prepared { mut log, store, dir: d, inner, file: f, link: l, .. } = prepared();
    log.push(EntryKind::Group, group(4).as_bytes());
    log.push(EntryKind::Link, link(f, d, b"hard").as_bytes());
    log.push(EntryKind::Attr, attributes(f, SET_MODE | SET_MTIME, 9).as_bytes());
    log.push(EntryKind::Move, moved(inner, ROOT, b"out", None).as_bytes());
    log.push(EntryKind::Remove, removal(l).as_bytes());
    let lists = log.lists(piece(store, 50, 0, 1).to_raw().as_bytes());
    log.name(&listed(file(ROOT, b"listed", 1, &[]), 1));
    let whole = paths(&log.contents().plan);
    let mut tolerated = Vec::new();
    for slot in d..log.next {
        // Damage in the group hides all of it.
        log.cut(if slot < lists { slot.min(l + 1) } else { slot });
        let before = paths(&log.contents().plan);
        log.cut(log.next);
        let offset = slot_offset(slot);
        let mut bytes = [0; 544];
        log.media.read_at(offset, &mut bytes).unwrap();
        for bit in 0..536 * 8 {
            let mut entry = Entry::new_zeroed();
            entry.as_mut_bytes().copy_from_slice(&bytes);
            entry.as_mut_bytes()[bit / 8] ^= 1 << (bit % 8);
            log.media.write_at(offset, entry.as_bytes()).unwrap();
            let plan = log.contents().plan;
            assert!(plan.stopped.is_some(), "slot {slot}, bit {bit}");
            assert_eq!(paths(&plan), before, "slot {slot}, bit {bit}");
            if bit < 64 {
                continue;
            }
            entry.crc = U64::new(entry.checksum());
            log.media.write_at(offset, entry.as_bytes()).unwrap();
            let contents = log.contents();
            let plan = &contents.plan;
            let told = !fsck::check(&log.media, &contents).problems.is_empty() || plan.unknown > 0;
            if !told && paths(plan) == whole {
                tolerated.push((slot - d, bit / 8));
            }
        }
        log.media.write_at(offset, &bytes).unwrap();
    }
    tolerated.dedup();
    // Owners, modes and times are any, as is a page that is free; the padding before the body is
    // not looked at. What a later entry moves or removes can have any name.
    let first_list = lists - d;
    let free = |slot: u64, at: usize| match at {
        12..16 | 32..44 | 48..60 => true,
        72..328 => slot == 1 || slot == 3,
        _ if slot == first_list => (24..32).contains(&at),
        328..536 => slot == 3 || slot == 2 && (336..344).contains(&at),
        _ => false,
    };
    let odd = tolerated
        .iter()
        .filter(|(slot, at)| (*slot < 4 || *slot >= first_list) && !free(*slot, *at));
    let odd: Vec<_> = odd.collect();
    assert!(odd.is_empty(), "{odd:?}");
}
