// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Deletion: what the log says, and what readers see.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod common;
#[path = "common/formatting.rs"]
mod formatting;

use common::Pool;
use famfs::format::path::RelPath;
use famfs::media::PoolFile;
use famfs::replay::compact::{CompactError, compact};
use famfs::replay::dead::Dead;
use famfs::replay::{Contents, EntryProblem, Node, NodeKind, Owner, Plan};
use famfs::store::mkfs::mkfs;
use famfs::sys::dax::Access;
use famfs::write::volume::{OfflineVolume, Volume};
use famfs::write::writer::{WriteError, Writer};

const OWNER: Owner = Owner { uid: 1, gid: 2, mode: 0o640 };

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

/// An empty file system; the pool must outlive the volume.
fn volume() -> (Pool, OfflineVolume) {
    let pool = Pool::new(&[], 64 << 20);
    let file = PoolFile::open(&pool.path, Access::Write).unwrap();
    mkfs(&file, &formatting::options(false)).unwrap();
    (pool, OfflineVolume::new(file))
}

fn create(writer: &mut Writer<'_>, name: &str, size: u64) {
    let map = writer.allocate(&path(name), size).unwrap();
    writer.create(&path(name), OWNER, map, |_| Ok::<_, WriteError>(())).unwrap();
    writer.commit().unwrap();
}

fn delete(writer: &mut Writer<'_>, name: &str) {
    writer.delete(&path(name)).unwrap();
    writer.commit().unwrap();
}

fn plan(volume: &OfflineVolume) -> Plan {
    Contents::read(volume.media()).unwrap().plan
}

fn names(plan: &Plan) -> Vec<String> {
    plan.nodes().iter().map(|node| node.path.to_string()).collect()
}

#[test]
fn a_path_is_free_again_but_not_its_memory() {
    let (_pool, volume) = volume();
    let mut writer = Writer::open(&volume, None).unwrap();
    create(&mut writer, "a", 5 << 20);
    create(&mut writer, "b", 1);
    let used = writer.plan().space.used();
    delete(&mut writer, "a");
    assert_eq!(names(writer.plan()), ["b"]);
    let contents = Contents::read(volume.media()).unwrap();
    let dead = Dead::of(&contents.log, &contents.plan).unwrap();
    assert_eq!((writer.plan().space.used(), dead.units), (used, 6 << 20));
    create(&mut writer, "a", 9);
    drop(writer);

    let plan = plan(&volume);
    assert!(plan.refused.is_empty() && plan.stopped.is_none(), "{:?}", plan.refused);
    assert_eq!(names(&plan), ["b", "a"]);
    assert_eq!(plan.space.used(), used + (2 << 20));
    let deleted = &plan.deletions_since(0)[0];
    let NodeKind::File { map: old, .. } = &deleted.node.kind else { panic!("no file") };
    let NodeKind::File { map: new, .. } = &plan.get(&path("a")).unwrap().kind else { panic!() };
    assert_ne!(old, new);
    assert_eq!(plan.deletions_since(3).len(), 0, "it is slot 2 that deletes");
}

#[test]
fn only_empty_directories_go() {
    let (_pool, volume) = volume();
    let mut writer = Writer::open(&volume, None).unwrap();
    writer.mkdir(&path("d"), OWNER).unwrap();
    writer.mkdir(&path("d/e"), OWNER).unwrap();
    create(&mut writer, "d/e/f", 1);
    for (name, expected) in [("d", "1 files and"), ("d/e", "1 files and"), ("x", "does not exist")]
    {
        let WriteError::Delete { source, .. } = writer.delete(&path(name)).unwrap_err() else {
            panic!("{name}")
        };
        assert!(source.to_string().contains(expected), "{name}: {source}");
    }
    // Children first; all in one batch.
    for name in ["d/e/f", "d/e", "d"] {
        writer.delete(&path(name)).unwrap();
    }
    writer.commit().unwrap();
    drop(writer);
    let plan = plan(&volume);
    assert_eq!((names(&plan).len(), plan.refused.len(), plan.counts()), (0, 0, (0, 0)));
}

/// A hostile or foreign log may say anything; only what is named exactly is deleted.
#[test]
fn a_deletion_of_something_else_is_refused() {
    use famfs::format::{Body, DeleteBody, EntryKind};
    use famfs::store::log::Log;
    use zerocopy::{FromZeros, IntoBytes};

    let (_pool, volume) = volume();
    let mut writer = Writer::open(&volume, None).unwrap();
    create(&mut writer, "a", 1);
    delete(&mut writer, "a");
    create(&mut writer, "a", 1);
    drop(writer);
    let mut log =
        Log::open(volume.media(), Contents::read(volume.media()).unwrap().superblock.log_len)
            .unwrap();
    let entry = |slot: u64, name: &str| {
        let mut body = DeleteBody::new_zeroed();
        body.slot = slot.into();
        body.path[..name.len()].copy_from_slice(name.as_bytes());
        let mut bytes = [0; size_of::<Body>()];
        bytes.copy_from_slice(body.as_bytes());
        (EntryKind::Delete as u32, bytes)
    };
    // The old one again, none, outside, no NUL.
    let endless = "x".repeat(80);
    log.append(&[entry(0, "a"), entry(7, "b"), entry(2, "../a"), entry(2, &endless)]).unwrap();
    let plan = plan(&volume);
    assert_eq!(names(&plan), ["a"]);
    let problems: Vec<&EntryProblem> = plan.refused.iter().map(|err| &err.problem).collect();
    assert!(matches!(problems[0], EntryProblem::OtherSlot { found: 2, expected: 0 }));
    assert!(matches!(problems[1..], [EntryProblem::Path(_), EntryProblem::Path(_)]));
    assert_eq!(plan.idle(), [4], "of what is not there: harmless");
    let refused = compact(volume.media(), false).unwrap_err();
    assert!(matches!(refused, CompactError::LeftOut(_)), "{refused}");
}

#[test]
fn a_compaction_keeps_the_new_file_of_an_old_name() {
    let (_pool, volume) = volume();
    let mut writer = Writer::open(&volume, None).unwrap();
    create(&mut writer, "a", 5 << 20);
    delete(&mut writer, "a");
    create(&mut writer, "a", 9);
    let before = writer.plan().get(&path("a")).unwrap().clone();
    drop(writer);
    let freed = compact(volume.media(), false).unwrap();
    assert_eq!((freed.deletions, freed.bytes, freed.slots, freed.voids), (1, 6 << 20, 2, 0));
    let after = plan(&volume);
    // Its entry is the first one now.
    assert_eq!(after.get(&path("a")), Some(&Node { slot: 0, ..before }));
    assert_eq!((names(&after).len(), after.voids(), after.space.used()), (1, &[][..], 2 << 20));
    assert_eq!(compact(volume.media(), false).unwrap().deletions, 0, "all is done");
}

/// The entries of a later version may mean anything, so nothing is freed.
#[test]
fn a_log_with_unknown_entries_is_not_compacted() {
    let (_pool, volume) = volume();
    let mut writer = Writer::open(&volume, None).unwrap();
    create(&mut writer, "a", 1);
    delete(&mut writer, "a");
    drop(writer);
    let Contents { mut log, .. } = Contents::read(volume.media()).unwrap();
    log.append(&[(77, [0; 520])]).unwrap();
    let refused = compact(volume.media(), false).unwrap_err();
    assert!(matches!(refused, CompactError::Unknown { count: 1 }), "{refused}");
    assert_eq!(plan(&volume).deletions_since(0).len(), 1);
}
