// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compactions of logs with extension entries: they change no tree, wherever they are interrupted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use famfs::format::extension::{EXTENSIONS_OFFSET, Extensions, PAGE, SET_MODE};
use famfs::format::{ALLOC_UNIT, EntryKind, LOG_OFFSET, slot_offset};
use famfs::media::in_memory::InMemory;
use famfs::media::{Media, MediaError};
use famfs::replay::compact::{Compacted, compact};
use famfs::replay::dead::Dead;
use famfs::replay::{Contents, Plan, fsck, size};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use crate::log::{
    DEVICE_LEN, ExtendedLog, attributes, dir, far, file, group, link, listed, moved, removal,
    symlink,
};
use crate::model::{self, Listing, Pair, Seen, op};
use crate::sample::{Prepared, ROOT, clean, paths, piece, prepared};

/// A copy of a file system that takes only so many parts of writes more.
pub struct Crashing {
    media: InMemory,
    left: AtomicU64,
}

impl Crashing {
    pub fn new(log: &ExtendedLog, left: u64) -> Self {
        let media = InMemory::new(DEVICE_LEN);
        let mark = (EXTENSIONS_OFFSET, size_of::<Extensions>() as u64);
        for (start, len) in [(0, 200), mark, (LOG_OFFSET, slot_offset(log.next) - LOG_OFFSET)] {
            let mut bytes = vec![0; usize::try_from(len).unwrap()];
            log.media.read_at(start, &mut bytes).unwrap();
            media.write_at(start, &bytes).unwrap();
        }
        Self { media, left: AtomicU64::new(left) }
    }

    /// From now on all stores arrive.
    pub fn go_on(&self) {
        self.left.store(u64::MAX, Ordering::Relaxed);
    }
}

impl Media for Crashing {
    fn len(&self) -> u64 {
        self.media.len()
    }

    fn origin(&self) -> u64 {
        0
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
        self.media.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), MediaError> {
        // More than one store can end at its beginning, in its middle and at its end.
        let part = (bytes.len() / 2).next_multiple_of(8).max(8);
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let left = self.left.load(Ordering::Relaxed);
            self.left.store(left.saturating_sub(1), Ordering::Relaxed);
            if left == 0 {
                return Err(MediaError::Kind { path: "crashed".into() });
            }
            let (now, later) = rest.split_at(part.min(rest.len()));
            self.media.write_at(at, now)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn persist(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        self.media.persist(offset, len)
    }

    fn refresh(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        self.media.refresh(offset, len)
    }
}

/// Compacts with a crash at every store, and goes on each time; `same` checks every tree. Nothing
/// is left to free in the end. Returns what was freed.
fn every_crash(log: &ExtendedLog, same: impl Fn(&Plan)) -> Compacted {
    let before = log.contents();
    let end = size::data_end(&before, DEVICE_LEN).unwrap();
    let old = before.plan.tree().store_use();
    let would = compact(&log.media, true).unwrap();
    for stores in 0.. {
        let media = Crashing::new(log, stores);
        let done = compact(&media, false);
        let contents = Contents::read(&media).unwrap();
        assert_eq!(fsck::check(&media, &contents).problems, Vec::<String>::new());
        same(&contents.plan);
        media.go_on();
        compact(&media, false).unwrap();
        let contents = Contents::read(&media).unwrap();
        assert_eq!(fsck::check(&media, &contents).problems, Vec::<String>::new());
        same(&contents.plan);
        let plan = &contents.plan;
        assert!(plan.idle().is_empty());
        let dead = Dead::of(&contents.log, plan).unwrap();
        assert_eq!((dead.made, dead.rest), (vec![], vec![]));
        let used = before.plan.space.used();
        assert_eq!(plan.space.used() + would.bytes, used);
        let new = plan.tree().store_use();
        assert_eq!((new.used, new.retired), (old.used, 0));
        assert_eq!(size::data_end(&contents, DEVICE_LEN).unwrap().now, end.compacted);
        if let Ok(done) = done {
            assert_eq!(done, would);
            return done;
        }
    }
    unreachable!("a compaction ends");
}

/// Something of everything is removed, in groups, through moves and replacements.
#[test]
fn what_is_removed_goes() {
    let Prepared { mut log, store, plain, dir: d, inner, file: f, link: l, .. } = prepared();
    log.push(EntryKind::Group, group(4).as_bytes());
    let hard = log.push(EntryKind::Link, link(f, ROOT, b"hard").as_bytes());
    log.push(EntryKind::Attr, attributes(f, SET_MODE, 0o600).as_bytes());
    log.push(EntryKind::Move, moved(hard, d, b"moved", None).as_bytes());
    log.lists(piece(store, 20, 0, 3).to_raw().as_bytes());
    let stays = log.name(&listed(file(d, b"stays", 3 * PAGE, &[]), 1));
    log.lists(&[b't'; 600]);
    let far = log.name(&far(symlink(inner, b"far", b""), 600));
    // The file goes with its last name, which another one replaces.
    log.push(EntryKind::Remove, removal(f).as_bytes());
    log.push(EntryKind::Move, moved(stays, d, b"moved", Some(hard)).as_bytes());
    log.push(EntryKind::Move, moved(stays, ROOT, b"stays", None).as_bytes());
    log.push(EntryKind::Remove, removal(far).as_bytes());
    log.push(EntryKind::Remove, removal(inner).as_bytes());
    log.push(EntryKind::Remove, removal(l).as_bytes());
    log.push(EntryKind::Remove, removal(plain).as_bytes());
    log.push(EntryKind::Remove, removal(d).as_bytes());
    let left = |plan: &Plan| assert_eq!(paths(plan), ["stays 12288"]);
    let freed = every_crash(&log, left);
    // The unused interleaved file and the plain one go, and two pages of the other one. What was
    // moved through "dir" keeps its entry, so that its removal stays too.
    let bytes = 3 * ALLOC_UNIT;
    assert_eq!((freed.deletions, freed.bytes, freed.page_bytes), (5, bytes, 2 * PAGE));
    compact(&log.media, false).unwrap();
    let contents = log.contents();
    clean(&contents);
    assert_eq!(contents.log.published(), log.next - freed.slots);
    let (stays, ..) = model::listing(&contents.plan)[&b"stays"[..]];
    let next = contents.log.published();
    drop(contents);
    log.next = next;
    // With the last file the store goes, and with it all slots but the one of its directory.
    log.push(EntryKind::Remove, removal(stays).as_bytes());
    let freed = every_crash(&log, |plan| assert!(paths(plan).is_empty()));
    assert_eq!((freed.deletions, freed.bytes, freed.page_bytes), (2, ALLOC_UNIT, 0));
    compact(&log.media, false).unwrap();
    assert_eq!(log.contents().log.published(), 1);
}

/// Directories that were in each other cannot become void one after the other, so they stay.
#[test]
fn directories_that_were_in_each_other_stay() {
    let mut log = ExtendedLog::new(true);
    let a = log.name(&dir(ROOT, b"a"));
    let b = log.name(&dir(ROOT, b"b"));
    log.push(EntryKind::Move, moved(a, b, b"x", None).as_bytes());
    log.push(EntryKind::Move, moved(a, ROOT, b"a", None).as_bytes());
    log.push(EntryKind::Move, moved(b, a, b"x", None).as_bytes());
    log.push(EntryKind::Remove, removal(b).as_bytes());
    log.push(EntryKind::Remove, removal(a).as_bytes());
    let freed = every_crash(&log, |plan| assert!(paths(plan).is_empty()));
    assert_eq!(freed, Compacted::default());
}

/// What is given back at the end of the log takes no group with it.
#[test]
fn a_group_survives_the_end_of_the_log() {
    let mut log = ExtendedLog::new(true);
    log.push(EntryKind::Group, group(3).as_bytes());
    log.name(&dir(ROOT, b"stays"));
    let gone = log.name(&dir(ROOT, b"gone"));
    log.push(EntryKind::Remove, removal(gone).as_bytes());
    let freed = every_crash(&log, |plan| assert_eq!(paths(plan), ["stays/"]));
    assert_eq!((freed.deletions, freed.slots, freed.voids), (1, 3, 0));
}

/// What each path has, and for names of one file the first of its paths.
fn without_slots(listing: &Listing) -> BTreeMap<Vec<u8>, (Vec<u8>, u64, Seen)> {
    let first_of = |object: u64| listing.iter().find(|(_, (_, other, ..))| *other == object);
    let path = |path: &Vec<u8>, (_, object, names, seen): &(u64, u64, u64, Seen)| {
        let first = first_of(*object).map_or_else(Vec::new, |(path, _)| path.clone());
        (path.clone(), (first, *names, seen.clone()))
    };
    listing.iter().map(|(name, what)| path(name, what)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Any legal log, with a crash at every store of its compaction.
    #[test]
    fn every_crash_of_every_compaction(ops in prop::collection::vec(op(), 1..60)) {
        let mut pair = Pair::new();
        for op in ops {
            let (next, free) = (pair.log.next, pair.log.free);
            pair.run(op);
            // A log with an entry that is left out is not compacted.
            if !std::mem::take(&mut pair.model.refused).is_empty() {
                (pair.log.next, pair.log.free) = (next, free);
                pair.log.cut(next);
            }
        }
        let expected = without_slots(&pair.model.list());
        let same = |plan: &Plan| assert_eq!(without_slots(&model::listing(plan)), expected);
        let freed = every_crash(&pair.log, same);
        // Only what the files have is taken.
        compact(&pair.log.media, false).unwrap();
        let contents = pair.log.contents();
        let units: BTreeSet<u64> = expected
            .values()
            .flat_map(|(_, _, seen)| seen.pages.values().map(|page| page * PAGE / ALLOC_UNIT))
            .collect();
        prop_assert_eq!(contents.plan.space.used(), units.len() as u64 * ALLOC_UNIT);
        prop_assert_eq!((contents.plan.voids().len(), freed.voids), (0, 0));
        prop_assert_eq!(contents.log.published() + freed.slots, pair.log.next);
    }
}
