// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Copies that take the place of files: old or new, never a mix, whatever crashes.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "common/crash.rs"]
mod crash;
#[path = "common/crash_volume.rs"]
mod crash_volume;
#[path = "common/formatting.rs"]
mod formatting;
#[path = "common/pool_tree.rs"]
mod pool_tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crash::{BACKWARD, Device, Event, FORWARD, Kind, Order, Words, crash};
use crash_volume::DeviceVolume;
use famfs::media::Media;
use famfs::media::in_memory::InMemory;
use famfs::replay::{Contents, compact};
use famfs::store::mkfs::mkfs;
use famfs::text::error_report::one_line;
use famfs::write::copy::{Action, Copy, CopyError, Done};
use famfs::write::sources::{Destination, Options, scan};
use famfs::write::transfer::How;
use famfs::write::volume::{OfflineVolume, Volume};
use famfs::write::writer::Writer;
use pool_tree::manifest;
use tempfile::TempDir;
use trees::{Entry, Rules, Tree};

fn dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn prepared<'v>(
    volume: &'v dyn Volume,
    source: &Path,
    atomic: bool,
) -> Result<(Copy, Writer<'v>), CopyError> {
    let all = Options { recursive: true, ..Options::default() };
    let found = scan(&[source.join(".")], &Destination::Into(None), &all)?;
    let mut writer = Writer::open(volume, None)?;
    if atomic {
        writer.atomic()?;
    }
    let copy = Copy::prepare_to_replace(found, &mut writer, &|_| true)?;
    Ok((copy, writer))
}

/// Copies the contents of a directory into the root, in place of what is there.
fn replace(volume: &dyn Volume, source: &Path, atomic: bool) -> Result<Done, CopyError> {
    let (copy, mut writer) = prepared(volume, source, atomic)?;
    copy.run(volume, &mut writer, &How { threads: 1, verify: false }, |_| true)
}

/// The source as a pool has it.
fn expected(source: &Path) -> Tree {
    let mut tree = Tree::read(source).unwrap();
    tree.entries.remove(&Vec::new());
    for entry in tree.entries.values_mut() {
        if matches!(entry.kind, trees::Kind::Symlink(_)) {
            entry.same_as = None;
        }
    }
    tree
}

fn same(expected: &Tree, found: &Tree) {
    trees::compare(expected, found, Rules::default()).none().unwrap();
}

/// What the crashes are about: files that grow, shrink or keep their size, one that becomes a link,
/// a link that becomes a file, hard links, and what stays.
fn versions() -> (TempDir, TempDir) {
    let (old, new) = (dir(), dir());
    let (at, to) = (|name: &str| old.path().join(name), |name: &str| new.path().join(name));
    for root in [old.path(), new.path()] {
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/stays"), "the same").unwrap();
    }
    let page = |letter: &str, len: usize| letter.repeat(len);
    for (name, before, after) in
        [("grows", 10, 500), ("shrinks", 900, 3), ("d/same size", 97, 97), ("empties", 1, 0)]
    {
        fs::write(at(name), page("o", before)).unwrap();
        fs::write(to(name), page("n", after)).unwrap();
    }
    fs::write(at("to link"), "a file").unwrap();
    symlink("d", to("to link")).unwrap();
    symlink("grows", at("to file")).unwrap();
    fs::write(to("to file"), "was a link").unwrap();
    symlink("o", at("link")).unwrap();
    symlink("n".repeat(300), to("link")).unwrap();
    for (root, text) in [(old.path(), "old one"), (new.path(), "new one")] {
        fs::write(root.join("one"), text).unwrap();
        fs::hard_link(root.join("one"), root.join("other")).unwrap();
    }
    fs::write(to("added"), "new").unwrap();
    (old, new)
}

#[test]
fn files_and_links_take_the_place_of_others() {
    let (old, new) = versions();
    let media = InMemory::new(64 << 20);
    mkfs(&media, &formatting::options(true)).unwrap();
    let pool = OfflineVolume::new(media);
    replace(&pool, old.path(), false).unwrap();
    same(&expected(old.path()), &manifest(&pool));
    let (copy, writer) = prepared(&pool, new.path(), false).unwrap();
    let mut actions: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (action, _, path) in copy.actions() {
        actions.entry(format!("{action:?}")).or_default().push(path.to_string());
    }
    drop(writer);
    assert_eq!(actions["Replace"].len(), 9, "{actions:?}");
    assert_eq!(actions["Create"], ["added"]);
    let done = replace(&pool, new.path(), false).unwrap();
    assert_eq!((done.replaced, done.files, done.unchanged), (9, 1, 1));
    same(&expected(new.path()), &manifest(&pool));
    // The same again finds nothing to do but times.
    let again = replace(&pool, new.path(), true).unwrap();
    assert_eq!((again.replaced, again.files, again.bytes), (0, 0, 0));
    assert_eq!(again.unchanged, 8);
    // What was replaced is free after a compaction.
    let report = compact::compact(pool.media(), false).unwrap();
    assert!(report.deletions >= 8, "{report:?}");
    same(&expected(new.path()), &manifest(&pool));
}

#[test]
fn another_name_of_a_replaced_file_keeps_it() {
    let source = dir();
    let at = |name: &str| source.path().join(name);
    fs::write(at("a"), "old").unwrap();
    fs::hard_link(at("a"), at("b")).unwrap();
    let media = InMemory::new(64 << 20);
    mkfs(&media, &formatting::options(true)).unwrap();
    let pool = OfflineVolume::new(media);
    replace(&pool, source.path(), false).unwrap();
    let before = manifest(&pool);
    fs::remove_file(at("a")).unwrap();
    fs::remove_file(at("b")).unwrap();
    fs::write(at("a"), "new").unwrap();
    replace(&pool, source.path(), false).unwrap();
    let after = manifest(&pool);
    let kept = Entry { same_as: None, ..before.entries[&b"b"[..]].clone() };
    assert_eq!(after.entries[&b"b"[..]], kept);
    assert_ne!(after.entries[&b"a"[..]].kind, kept.kind);
    // Two files with the bytes of one that has two names become two files.
    fs::write(at("a"), "old").unwrap();
    fs::write(at("b"), "old").unwrap();
    replace(&pool, source.path(), false).unwrap();
    same(&expected(source.path()), &manifest(&pool));
}

#[test]
fn what_cannot_be_replaced_is_refused() {
    let source = dir();
    fs::write(source.path().join("f"), "x").unwrap();
    let media = InMemory::new(64 << 20);
    mkfs(&media, &formatting::options(false)).unwrap();
    let refused = replace(&OfflineVolume::new(media), source.path(), false).unwrap_err();
    let text = one_line(&refused);
    assert!(text.contains("no extensions") && text.contains("`famfs upgrade`"), "{text}");

    let media = InMemory::new(64 << 20);
    mkfs(&media, &formatting::options(true)).unwrap();
    let pool = OfflineVolume::new(media);
    replace(&pool, source.path(), false).unwrap();
    fs::remove_file(source.path().join("f")).unwrap();
    fs::create_dir(source.path().join("f")).unwrap();
    let refused = one_line(&replace(&pool, source.path(), false).unwrap_err());
    assert!(refused.contains("\"f\" is a file, not a directory"), "{refused}");
    fs::rename(source.path().join("f"), source.path().join("d")).unwrap();
    replace(&pool, source.path(), false).unwrap();
    fs::remove_dir(source.path().join("d")).unwrap();
    fs::write(source.path().join("d"), "x").unwrap();
    let refused = one_line(&replace(&pool, source.path(), false).unwrap_err());
    assert!(refused.contains("\"d\" is a directory"), "{refused}");
    // Old and new need room at the same time.
    fs::remove_file(source.path().join("d")).unwrap();
    fs::write(source.path().join("f"), vec![1; 30 << 20]).unwrap();
    replace(&pool, source.path(), false).unwrap();
    let before = manifest(&pool);
    fs::write(source.path().join("f"), vec![2; 34 << 20]).unwrap();
    let refused = one_line(&replace(&pool, source.path(), false).unwrap_err());
    assert!(refused.contains("--replace needs room for the old files and the new"), "{refused}");
    same(&before, &manifest(&pool));
}

/// Of what was not durable, none, all, or half of each cache line has arrived, in halves, and the
/// order of the stores of one write.
const ARRIVED: [(usize, Order); 4] = [(0, FORWARD), (1, FORWARD), (1, BACKWARD), (2, FORWARD)];

/// Crashes a copy at every store: each name is what it was or what it will be.
fn crash_everywhere(kind: Kind, atomic: bool) {
    let (old, new) = versions();
    let device = Device::new(Words::new(), kind);
    let made = mkfs(&device, &formatting::options(true)).unwrap();
    for at in (0..64 << 10).step_by(488) {
        device.write_at(made.data_start() + at, &[0xee; 8]).unwrap();
    }
    replace(&DeviceVolume(&device), old.path(), false).unwrap();
    let start = device.state.into_inner().unwrap().words;
    let (before, after) = (expected(old.path()), expected(new.path()));
    let device = Device::new(start.clone(), kind);
    assert_eq!(replace(&DeviceVolume(&device), new.path(), atomic).unwrap().replaced, 9);
    same(&after, &manifest(&DeviceVolume(&device)));
    device.note(Event::Reported(CHANGED));
    let events = device.state.into_inner().unwrap().events;

    let mut last: [Words; 4] = Default::default();
    let mut seen = BTreeSet::new();
    for cut in 0..=events.len() {
        for (which, (share, order)) in ARRIVED.into_iter().enumerate() {
            let words = crash(&start, &events, cut, order, |_, pending| pending * share / 2);
            // What is durable is the same behind most stores.
            if last[which] == words {
                continue;
            }
            last[which].clone_from(&words);
            let device = Device::new(words, kind);
            let count = replaced(&manifest(&DeviceVolume(&device)), &before, &after);
            let reported = match events[..cut].last() {
                Some(Event::Reported(names)) => *names,
                _ => 0,
            };
            assert!(count >= reported, "{count} of {reported} are new");
            assert!(!atomic || count == 0 || count == CHANGED, "event {cut}: {count} are new");
            seen.insert(count);
            // Going on is the same for each of these; it is looked at for the extremes.
            if share != 1 {
                replace(&DeviceVolume(&device), new.path(), atomic).unwrap();
                same(&after, &manifest(&DeviceVolume(&device)));
            }
        }
    }
    // The test has seen what it is about: none and all.
    assert!(seen.contains(&0) && seen.contains(&CHANGED), "{seen:?}");
}

/// Names that differ between the versions.
const CHANGED: usize = 10;

/// How many names are new; fails if one is neither old nor new, or is missing.
fn replaced(found: &Tree, before: &Tree, after: &Tree) -> usize {
    let mut count = 0;
    for (path, new) in &after.entries {
        let (old, now) = (before.entries.get(path), found.entries.get(path));
        // Names of one file are replaced one after the other; directories get their times.
        let alike = |wanted: &Entry, now: &Entry| wanted.kind == now.kind;
        match (old, now) {
            (Some(old), Some(now)) if alike(old, now) => assert!(alike(old, now)),
            (_, Some(now)) if alike(new, now) => count += 1,
            (None, None) => {}
            _ => panic!("{}: {now:?}", String::from_utf8_lossy(path)),
        }
    }
    assert!(found.entries.keys().all(|path| after.entries.contains_key(path)), "{found:?}");
    count
}

#[test]
fn replaced_files_of_a_pool_file_are_old_or_new() {
    crash_everywhere(Kind::PoolFile, false);
}

#[test]
fn replaced_files_of_a_mount_are_old_or_new() {
    crash_everywhere(Kind::Mapped, false);
}

#[test]
fn files_of_a_pool_file_that_are_replaced_at_once_are_all_old_or_all_new() {
    crash_everywhere(Kind::PoolFile, true);
}

#[test]
fn files_of_a_mount_that_are_replaced_at_once_are_all_old_or_all_new() {
    crash_everywhere(Kind::Mapped, true);
}

/// A writer whose session ends in the middle leaves the old files.
#[test]
fn an_interrupted_replacement_changes_nothing() {
    let (old, new) = versions();
    let media = InMemory::new(64 << 20);
    mkfs(&media, &formatting::options(true)).unwrap();
    let pool = OfflineVolume::new(media);
    replace(&pool, old.path(), false).unwrap();
    let space = Contents::read(pool.media()).unwrap().plan.space.used();
    let (copy, mut writer) = prepared(&pool, new.path(), true).unwrap();
    assert!(copy.actions().any(|(action, ..)| action == Action::Replace));
    let stopped = copy.run(&pool, &mut writer, &How { threads: 1, verify: false }, |_| false);
    assert!(matches!(stopped, Err(CopyError::Interrupted { .. })), "{stopped:?}");
    drop(writer);
    same(&expected(old.path()), &manifest(&pool));
    assert_eq!(Contents::read(pool.media()).unwrap().plan.space.used(), space);
}
