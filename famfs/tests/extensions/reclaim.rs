// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory of removed files that is given back while others use it: no tree changes, wherever that
//! is interrupted, and nothing becomes free that somebody may still have.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use famfs::format::map::{DataArea, Extent};
use famfs::format::{ALLOC_UNIT, EntryKind, LOG_OFFSET, VOIDED_OFFSET};
use famfs::media::{Media, MediaError};
use famfs::replay::compact::compact;
use famfs::replay::reclaim::{number, reclaim, releasing, removed_by, renumber};
use famfs::replay::{Contents, Plan, fsck};
use famfs::store::log::Log;
use proptest::prelude::*;
use zerocopy::IntoBytes;

use crate::compaction::Crashing;
use crate::log::{DEVICE_LEN, ExtendedLog, dir, file, moved, removal};
use crate::model::{self, Pair, op};
use crate::sample::{Prepared, ROOT, clean, paths, piece, prepared};

/// What entries from a slot on have removed.
fn removed_since(plan: &Plan, slot: u64) -> Vec<(u64, Extent)> {
    plan.tree().removed().iter().filter(|(at, _)| *at >= slot).copied().collect()
}

/// No new file can get any of these ranges.
fn are_taken(contents: &mut Contents<'_>, ranges: &[(u64, Extent)]) {
    let tree = contents.plan.tree();
    let free: Vec<Extent> = tree
        .free_runs()
        .flat_map(|run| {
            let at = famfs::format::piece::Piece {
                slot: run.slot,
                page: run.page,
                at: 0,
                pages: run.pages,
            };
            tree.piece_extents(&at)
        })
        .map(|(_, extent)| extent)
        .collect();
    for (slot, range) in ranges {
        let apart = |free: &Extent| {
            free.offset >= range.offset + range.len || range.offset >= free.offset + free.len
        };
        assert!(free.iter().all(apart), "slot {slot}: {range:?} is free in {free:?}");
        for at in (range.offset..range.offset + range.len).step_by(4096) {
            let offset = at - at % ALLOC_UNIT;
            assert!(!contents.plan.space.mark(Extent { offset, len: ALLOC_UNIT }), "{range:?}");
        }
    }
}

/// Gives back what was removed below a slot, with a crash at every store, and goes on each time.
fn every_crash(log: &ExtendedLog, released: u64, same: impl Fn(&Plan)) {
    let before = log.contents();
    let held = removed_since(&before.plan, released);
    let compacted = Crashing::new(log, u64::MAX);
    compact(&compacted, false).unwrap();
    let compacted = Contents::read(&compacted).unwrap();
    for stores in 0.. {
        let media = Crashing::new(log, stores);
        let done = reclaim(&media, released, 0, || true);
        for goes_on in [false, true] {
            if goes_on {
                media.go_on();
                reclaim(&media, released, 0, || true).unwrap();
                assert_eq!(number(&media).unwrap() % 2, 0);
            }
            let mut contents = Contents::read(&media).unwrap();
            assert_eq!(fsck::check(&media, &contents).problems, Vec::<String>::new());
            assert_eq!(contents.log.published(), before.log.published());
            same(&contents.plan);
            assert_eq!(removed_since(&contents.plan, released), held);
            are_taken(&mut contents, &held);
        }
        reclaim(&media, u64::MAX, 0, || true).unwrap();
        let contents = Contents::read(&media).unwrap();
        same(&contents.plan);
        let (plan, expected) = (&contents.plan, &compacted.plan);
        assert_eq!(plan.space.used(), expected.space.used());
        assert_eq!(plan.tree().store_use(), expected.tree().store_use());
        if done.is_ok() {
            return;
        }
    }
}

#[test]
fn only_what_is_released_becomes_free() {
    let mut log = ExtendedLog::new(true);
    log.store();
    let store = log.file(".famfs/0", 1, 0);
    let own = log.file(".famfs/1", 2, 0);
    let first = log.name(&file(ROOT, b"first", 4096, &[piece(store, 0, 0, 1)]));
    let large = log.name(&file(ROOT, b"large", 4 << 20, &[piece(own, 0, 0, 1024)]));
    let last = log.name(&file(ROOT, b"last", 4096, &[piece(store, 1, 0, 1)]));
    let stays = log.name(&file(ROOT, b"stays", 4096, &[piece(store, 2, 0, 1)]));
    let at = [first, large, last].map(|slot| log.push(EntryKind::Remove, removal(slot).as_bytes()));
    let whole = releasing(&log.media).unwrap();
    assert_eq!((whole.bytes, whole.objects), ((4 << 20) + 2 * 4096, 3));
    assert_eq!(removed_by(&log.media, at[1]).unwrap().unwrap().to_string(), "large");
    for released in 0..=log.next {
        every_crash(&log, released, |plan| assert_eq!(paths(plan), ["stays 4096"]));
    }
    let left = |released: u64| {
        let done = reclaim(&log.media, released, 0, || true).unwrap();
        (done.objects, done.bytes, done.left)
    };
    assert_eq!(left(at[0]), (0, 0, whole.bytes));
    assert_eq!(left(at[0] + 1), (1, 4096, (4 << 20) + 4096));
    assert_eq!(left(at[2]), (1, 4 << 20, 4096));
    assert_eq!(left(u64::MAX), (1, 4096, 0));
    assert!(releasing(&log.media).unwrap().is_nothing());
    // The pages are there for the next file, and the file that stays is not touched.
    let again = log.name(&file(ROOT, b"again", 8192, &[piece(store, 0, 0, 2)]));
    log.push(EntryKind::Move, moved(again, ROOT, b"stays", Some(stays)).as_bytes());
    clean(&log.contents());
    every_crash(&log, log.next, |plan| assert_eq!(paths(plan), ["stays 8192"]));
}

/// Somebody who came while entries became void may be between a file and its removal.
#[test]
fn removals_stay_while_somebody_reads() {
    let Prepared { mut log, file: f, .. } = prepared();
    log.push(EntryKind::Remove, removal(f).as_bytes());
    let expected = paths(&log.contents().plan);
    let done = reclaim(&log.media, log.next, 0, || false).unwrap();
    assert!(done.bytes > 0);
    let contents = log.contents();
    assert_eq!((contents.plan.idle().len(), paths(&contents.plan)), (1, expected.clone()));
    assert!(!releasing(&log.media).unwrap().is_nothing());
    reclaim(&log.media, log.next, 0, || true).unwrap();
    assert!(releasing(&log.media).unwrap().is_nothing());
    assert_eq!(paths(&log.contents().plan), expected);
}

/// Media on which a file is given back between two parts of one reading of the log.
struct Torn<'l> {
    log: &'l ExtendedLog,
    due: AtomicBool,
}

impl Media for Torn<'_> {
    fn len(&self) -> u64 {
        DEVICE_LEN
    }

    fn origin(&self) -> u64 {
        0
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
        if offset > LOG_OFFSET + (1 << 20) && self.due.swap(false, Ordering::Relaxed) {
            reclaim(&self.log.media, u64::MAX, 0, || true).unwrap();
        }
        self.log.media.read_at(offset, buf)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<(), MediaError> {
        unreachable!("a reader")
    }

    fn persist(&self, _: u64, _: u64) -> Result<(), MediaError> {
        Ok(())
    }

    fn refresh(&self, _: u64, _: u64) -> Result<(), MediaError> {
        Ok(())
    }
}

/// Media on which entries move after a number of reads of the log.
struct Moving<'l> {
    log: &'l ExtendedLog,
    reads: AtomicU32,
}

impl Media for Moving<'_> {
    fn len(&self) -> u64 {
        DEVICE_LEN
    }

    fn origin(&self) -> u64 {
        0
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
        if offset > LOG_OFFSET && self.reads.fetch_sub(1, Ordering::Relaxed) == 1 {
            renumber(&self.log.media, || true).unwrap();
        }
        self.log.media.read_at(offset, buf)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<(), MediaError> {
        unreachable!("a reader")
    }

    fn persist(&self, _: u64, _: u64) -> Result<(), MediaError> {
        Ok(())
    }

    fn refresh(&self, _: u64, _: u64) -> Result<(), MediaError> {
        Ok(())
    }
}

#[test]
fn what_is_releasing_is_read_again_if_entries_move() {
    let mut is_past = false;
    for reads in 1..100 {
        let Prepared { mut log, file: f, dir: d, .. } = prepared();
        for n in 0..300 {
            log.name(&dir(d, format!("{n}").as_bytes()));
        }
        log.push(EntryKind::Remove, removal(f).as_bytes());
        reclaim(&log.media, u64::MAX, 0, || true).unwrap();
        let before = releasing(&log.media).unwrap();
        assert!(before.voids > 0);
        let moving = Moving { log: &log, reads: AtomicU32::new(reads) };
        let found = releasing(&moving).unwrap();
        is_past = found.voids > 0;
        if is_past {
            break;
        }
        assert!(found.voids == 0 && found.numbering > before.numbering);
    }
    assert!(is_past, "at last they move after all was read");
}

/// A log that is read while entries become void brings no removed file back.
#[test]
fn a_reader_in_between_reads_again() {
    for crashed in [false, true] {
        let Prepared { mut log, file: f, dir: d, .. } = prepared();
        for n in 0..2000 {
            log.name(&dir(d, format!("{n}").as_bytes()));
        }
        log.push(EntryKind::Remove, removal(f).as_bytes());
        if crashed {
            // As somebody leaves it who was killed.
            log.media.write_at(VOIDED_OFFSET, &7_u64.to_le_bytes()).unwrap();
        }
        let expected = paths(&log.contents().plan);
        let media = Torn { log: &log, due: AtomicBool::new(true) };
        let contents = Contents::read(&media).unwrap();
        assert!(!media.due.load(Ordering::Relaxed));
        assert_eq!(paths(&contents.plan), expected);
    }
    // Who reads once sees it.
    let Prepared { mut log, file: f, dir: d, .. } = prepared();
    for n in 0..2000 {
        log.name(&dir(d, format!("{n}").as_bytes()));
    }
    log.push(EntryKind::Remove, removal(f).as_bytes());
    let expected = paths(&log.contents().plan);
    let area: DataArea = log.contents().superblock.data_area(DEVICE_LEN);
    let media = Torn { log: &log, due: AtomicBool::new(true) };
    let once = Plan::read(&Log::open(&media, log.log_len).unwrap(), area, true);
    assert_ne!(paths(&once), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    /// Any legal log, given back up to any slot.
    #[test]
    fn every_crash_of_every_reclamation(
        ops in prop::collection::vec(op(), 1..50),
        share in 0_u64..=4,
    ) {
        let mut pair = Pair::new();
        for op in ops {
            let (next, free) = (pair.log.next, pair.log.free);
            pair.run(op);
            if !std::mem::take(&mut pair.model.refused).is_empty() {
                (pair.log.next, pair.log.free) = (next, free);
                pair.log.cut(next);
            }
        }
        let expected = pair.model.list();
        let released = pair.log.next * share / 4;
        every_crash(&pair.log, released, |plan| assert_eq!(model::listing(plan), expected));
    }
}
