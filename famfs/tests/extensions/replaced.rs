// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files that take the place of others, in a mounted tree.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use famfs::format::EntryKind;
use famfs::kernel::note::Note;
use famfs::kernel::player::Task;
use zerocopy::IntoBytes;

use crate::log::{dir, file, group, link, removal, symlink};
use crate::mounted::{Mount, follows, player};
use crate::sample::{Prepared, ROOT, piece, prepared};

/// Adds what takes the place of a file with two names and of a link, as `famfs cp --replace
/// --atomic` does, and removes one file for good.
fn replaced(all: &mut Prepared, again: u64, gone: u64) {
    all.log.push(EntryKind::Group, group(7).as_bytes());
    all.log.push(EntryKind::Remove, removal(all.file).as_bytes());
    let new = all.log.name(&file(all.inner, b"file", 5000, &[piece(all.store, 14, 0, 2)]));
    all.log.push(EntryKind::Remove, removal(again).as_bytes());
    all.log.push(EntryKind::Link, link(new, ROOT, b"again").as_bytes());
    all.log.push(EntryKind::Remove, removal(all.link).as_bytes());
    all.log.name(&symlink(ROOT, b"link", b"elsewhere"));
    all.log.push(EntryKind::Remove, removal(gone).as_bytes());
}

#[test]
fn old_or_new_is_there_at_any_moment() {
    let mut all = prepared();
    let again = all.log.push(EntryKind::Link, link(all.file, ROOT, b"again").as_bytes());
    let gone = all.log.name(&file(ROOT, b"gone", 0, &[]));
    let mount = Mount::new();
    let contents = all.log.contents();
    let mut watch = player(&contents);
    mount.play(&mut watch, &contents, Task::default()).unwrap();
    replaced(&mut all, again, gone);
    let contents = all.log.contents();
    let names = ["dir/inner/file", "again", "link"];
    let inodes = || names.map(|name| mount.path(name).symlink_metadata().unwrap().ino());
    let (before, held) = (inodes(), File::open(mount.path("dir/inner/file")).unwrap());
    // While the new ones are made, the old ones are there.
    let seen = RefCell::new(Vec::new());
    let applied = mount
        .play_each(&mut watch, &contents, Task::default(), &mut |_| {
            seen.borrow_mut().push((inodes(), mount.path("gone").exists()));
        })
        .unwrap();
    assert!(applied.errors.is_empty(), "{:?}", applied.errors);
    assert_eq!(seen.into_inner(), [(before, true); 3]);
    follows(&mount, &contents.plan);
    assert!(inodes().iter().zip(before).all(|(now, before)| *now != before));
    assert_eq!(held.metadata().unwrap().ino(), before[0], "who has the old file keeps it");
    assert!(!mount.path("gone").exists());
    assert_eq!(fs::read_dir(mount.path(".meta/.group")).unwrap().count(), 0);
}

/// A player was killed in the middle: the next one replaces what is left of the old files.
#[test]
fn what_a_killed_player_left_is_replaced() {
    for done in 0..4 {
        let mut all = prepared();
        let again = all.log.push(EntryKind::Link, link(all.file, ROOT, b"again").as_bytes());
        let gone = all.log.name(&file(ROOT, b"gone", 0, &[]));
        let mount = Mount::new();
        mount.play_all(&all.log.contents(), Task::default());
        replaced(&mut all, again, gone);
        Note { complete: false, ..mount.note() }.write(mount.root()).unwrap();
        for name in ["dir/inner/file", "again", "link"].iter().take(done) {
            fs::remove_file(mount.path(name)).unwrap();
        }
        let contents = all.log.contents();
        let applied = mount.play_all(&contents, Task::default());
        assert!(applied.errors.is_empty(), "{done}: {:?}", applied.errors);
        follows(&mount, &contents.plan);
    }
}

/// Removes a link and a tree, and makes a tree and a file in their places.
fn other_kinds(all: &mut Prepared) {
    all.log.push(EntryKind::Remove, removal(all.link).as_bytes());
    let tree = all.log.name(&dir(ROOT, b"link"));
    all.log.name(&file(tree, b"file", 5000, &[piece(all.store, 14, 0, 2)]));
    all.log.push(EntryKind::Remove, removal(all.file).as_bytes());
    all.log.push(EntryKind::Remove, removal(all.inner).as_bytes());
    all.log.name(&symlink(all.dir, b"inner", b"elsewhere"));
}

#[test]
fn a_directory_takes_the_place_of_a_link_and_a_link_that_of_a_directory() {
    let mut all = prepared();
    let mount = Mount::new();
    let contents = all.log.contents();
    let mut watch = player(&contents);
    mount.play(&mut watch, &contents, Task::default()).unwrap();
    all.log.push(EntryKind::Group, group(6).as_bytes());
    other_kinds(&mut all);
    let contents = all.log.contents();
    let (applied, _) = mount.play(&mut watch, &contents, Task::default()).unwrap();
    assert!(applied.errors.is_empty(), "{:?}", applied.errors);
    follows(&mount, &contents.plan);
    assert_eq!(fs::read_dir(mount.path(".meta/.group")).unwrap().count(), 0);
}

#[test]
fn what_a_killed_player_left_of_another_kind_is_replaced() {
    let mut all = prepared();
    let mount = Mount::new();
    mount.play_all(&all.log.contents(), Task::default());
    other_kinds(&mut all);
    Note { complete: false, ..mount.note() }.write(mount.root()).unwrap();
    let contents = all.log.contents();
    // To find out what would be done, nothing is needed that is not there yet.
    let applied = mount.play_all(&contents, Task { dry_run: true, ..Task::default() });
    assert!(applied.errors.is_empty(), "{:?}", applied.errors);
    assert_eq!((applied.directories, applied.files, applied.symlinks), (1, 1, 1));
    let applied = mount.play_all(&contents, Task::default());
    assert!(applied.errors.is_empty(), "{:?}", applied.errors);
    follows(&mount, &contents.plan);
}

#[test]
fn what_a_killed_player_left_and_nobody_can_remove_keeps_nothing_back() {
    let mut all = prepared();
    let mount = Mount::new();
    mount.play_all(&all.log.contents(), Task::default());
    // In a real mount, something that is mounted there.
    fs::write(mount.path(".meta/.group"), "").unwrap();
    Note { complete: false, ..mount.note() }.write(mount.root()).unwrap();
    all.log.name(&dir(ROOT, b"more"));
    let contents = all.log.contents();
    let applied = mount.play_all(&contents, Task::default());
    assert_eq!(applied.errors.len(), 1, "{:?}", applied.errors);
    assert!(mount.path("more").is_dir() && !mount.note().complete);
    fs::remove_file(mount.path(".meta/.group")).unwrap();
    let applied = mount.play_all(&contents, Task::default());
    assert!(applied.errors.is_empty(), "{:?}", applied.errors);
    follows(&mount, &contents.plan);
}

/// The writer's own mount has the new file already.
#[test]
fn what_is_replaced_already_stays() {
    let mut all = prepared();
    let again = all.log.push(EntryKind::Link, link(all.file, ROOT, b"again").as_bytes());
    let gone = all.log.name(&file(ROOT, b"gone", 0, &[]));
    let mount = Mount::new();
    let contents = all.log.contents();
    mount.play_all(&contents, Task::default());
    let note = mount.note();
    replaced(&mut all, again, gone);
    all.log.name(&dir(ROOT, b"more"));
    let contents = all.log.contents();
    mount.play_all(&contents, Task::default());
    let inode = mount.path("dir/inner/file").metadata().unwrap().ino();
    note.write(mount.root()).unwrap();
    let applied = mount.play_all(&contents, Task::default());
    assert!(applied.errors.is_empty(), "{:?}", applied.errors);
    follows(&mount, &contents.plan);
    assert_eq!(mount.path("dir/inner/file").metadata().unwrap().ino(), inode);
}
