// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A copy that crashes at any store: the file system mounts with whole files only, a copy that is
//! to appear at once is there or not, and the same copy again makes the tree complete.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "common/crash.rs"]
mod crash;
#[path = "common/crash_volume.rs"]
mod crash_volume;
#[path = "common/formatting.rs"]
mod formatting;
#[path = "common/pool_tree.rs"]
mod pool_tree;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use crash::{BACKWARD, Device, Event, FORWARD, Kind, Order, Words, crash};
use crash_volume::DeviceVolume;
use famfs::media::Media;
use famfs::store::mkfs::mkfs;
use famfs::write::copy::{Copy, Done};
use famfs::write::sources::{Destination, Options, scan};
use famfs::write::transfer::How;
use famfs::write::writer::Writer;
use pool_tree::manifest;
use tempfile::TempDir;
use trees::{Rules, Tree};

/// Longer than what is published at once, so that a copy that may appear in parts does.
const BATCH: u64 = 64 << 20;

/// A tree with one of each kind, and as few bytes as that takes.
fn source() -> TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("dir/inner")).unwrap();
    fs::write(at("a"), b"first\n").unwrap();
    fs::write(at("dir/empty"), b"").unwrap();
    fs::hard_link(at("a"), at("dir/other name of a")).unwrap();
    symlink("../a", at("dir/link")).unwrap();
    // Longer than one entry of a log holds.
    symlink("t".repeat(300), at("dir/far")).unwrap();
    let sparse = |name: &str, size: u64, data: &[u64]| {
        let file = File::create(at(name)).unwrap();
        file.set_len(size).unwrap();
        data.iter().for_each(|offset| file.write_all_at(b"some bytes", *offset).unwrap());
    };
    sparse("dir/hole", 10_000, &[]);
    sparse("dir/sparse", BATCH + 5, &[4096, 1 << 20, BATCH - 10]);
    // Two pages, of which the second begins in the middle of a word.
    sparse("dir/two pages", 4099, &[4, 4089]);
    fs::write(at(&format!("inner {}", "n".repeat(249))), "x").unwrap();
    sparse("zz", BATCH, &[0]);
    fs::set_permissions(at("zz"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::write(at("zzz"), "last").unwrap();
    dir
}

/// An empty file system with old bytes where files will be.
fn formatted() -> Words {
    let device = Device::new(Words::new(), Kind::Mapped);
    let made = mkfs(&device, &formatting::options(true)).unwrap();
    for at in (0..64 << 10).step_by(488) {
        device.write_at(made.data_start() + at, &[0xee; 8]).unwrap();
    }
    device.state.into_inner().unwrap().words
}

/// Copies a directory into the root; notes when that is reported.
fn copy(device: &Device, source: &Path, atomic: bool) -> Done {
    let volume = DeviceVolume(device);
    let all = Options { recursive: true, ..Options::default() };
    let found = scan(&[source.join(".")], &Destination::Into(None), &all).unwrap();
    let mut writer = Writer::open(&volume, None).unwrap();
    if atomic {
        writer.atomic().unwrap();
    }
    let how = How { threads: 1, verify: false };
    let copy = Copy::prepare(found, &mut writer).unwrap();
    let done = copy.run(&volume, &mut writer, &how, |_| true).unwrap();
    drop(writer);
    let made = done.files + done.directories + done.symlinks + done.hard_links;
    device.note(Event::Reported(usize::try_from(made).unwrap()));
    done
}

/// The source as a pool has it.
fn expected(source: &Path) -> Tree {
    let mut tree = Tree::read(source).unwrap();
    tree.entries.remove(&Vec::new());
    tree
}

/// A pool's tree without the files that hold other files' bytes, which it does not show.
fn tree_of(device: &Device) -> Tree {
    manifest(&DeviceVolume(device))
}

/// What is there is whole; returns its names.
fn whole(device: &Device, expected: &Tree) -> BTreeSet<Vec<u8>> {
    let mut found = tree_of(device);
    let names: BTreeSet<_> = found.entries.keys().cloned().collect();
    let mut there = expected.clone();
    there.entries.retain(|path, _| names.contains(path));
    for entry in there.entries.values_mut().chain(found.entries.values_mut()) {
        // Its other name may not be there yet.
        entry.same_as = None;
    }
    trees::compare(&there, &found, Rules::default()).none().unwrap();
    names
}

/// Of what was not durable, none, all, or half of each cache line has arrived, in halves, and the
/// order of the stores of one write.
const ARRIVED: [(usize, Order); 4] = [(0, FORWARD), (1, FORWARD), (1, BACKWARD), (2, FORWARD)];

/// Crashes a copy at every store, and looks at what each crash leaves.
fn crash_everywhere(kind: Kind, atomic: bool) {
    let (source, start) = (source(), formatted());
    let expected = expected(source.path());
    let device = Device::new(start.clone(), kind);
    let done = copy(&device, source.path(), atomic);
    assert_eq!((done.files, done.directories, done.symlinks, done.hard_links), (8, 2, 2, 1));
    trees::compare(&expected, &tree_of(&device), Rules::default()).none().unwrap();
    let events = device.state.into_inner().unwrap().events;

    let mut last: [Words; 4] = Default::default();
    let mut seen = BTreeSet::new();
    for cut in 0..=events.len() {
        let reported = match events[..cut].last() {
            Some(Event::Reported(names)) => *names,
            _ => 0,
        };
        for (which, (share, order)) in ARRIVED.into_iter().enumerate() {
            let words = crash(&start, &events, cut, order, |_, pending| pending * share / 2);
            // What is durable is the same behind most stores.
            if last[which] == words {
                continue;
            }
            last[which].clone_from(&words);
            let device = Device::new(words, kind);
            let names = whole(&device, &expected);
            assert!(names.len() >= reported, "{names:?} of {reported}");
            let (all, none) = (names.len() == expected.entries.len(), names.is_empty());
            assert!(!atomic || all || none, "event {cut}: a part of the copy: {names:?}");
            seen.insert(names.len());
            // Going on is the same for each of these; it is looked at for the extremes.
            if share == 1 {
                continue;
            }
            copy(&device, source.path(), atomic);
            let told = trees::compare(&expected, &tree_of(&device), Rules::default()).none();
            told.unwrap_or_else(|differs| panic!("the copy after event {cut}: {differs}"));
        }
    }
    // The test has seen what it is about: none, all, and parts only of what may appear in parts.
    assert!(seen.contains(&0) && seen.contains(&expected.entries.len()), "{seen:?}");
    assert_eq!(seen.len() > 2, !atomic, "{seen:?}");
}

#[test]
fn a_copy_to_a_pool_file_leaves_whole_files() {
    crash_everywhere(Kind::PoolFile, false);
}

#[test]
fn a_copy_to_a_mount_leaves_whole_files() {
    crash_everywhere(Kind::Mapped, false);
}

#[test]
fn an_atomic_copy_to_a_pool_file_is_there_or_not() {
    crash_everywhere(Kind::PoolFile, true);
}

#[test]
fn an_atomic_copy_to_a_mount_is_there_or_not() {
    crash_everywhere(Kind::Mapped, true);
}
