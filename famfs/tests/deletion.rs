// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Deletion: what the log says, what readers see, and what appears in a mounted tree.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod common;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;

use common::Pool;
use famfs::format::map::FileMap;
use famfs::format::map::Memory;
use famfs::format::path::RelPath;
use famfs::kernel::apply::{ApplyError, Tree, apply};
use famfs::kernel::backlog::Backlog;
use famfs::media::PoolFile;
use famfs::replay::compact::{CompactError, compact};
use famfs::replay::{Contents, EntryProblem, NodeKind, Owner, Plan};
use famfs::store::mkfs::{self, mkfs};
use famfs::sys::dax::Access;
use famfs::write::volume::{OfflineVolume, Volume};
use famfs::write::writer::{WriteError, Writer};
use uuid::Uuid;

const OWNER: Owner = Owner { uid: 1, gid: 2, mode: 0o640 };

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

/// An empty file system; the pool must outlive the volume.
fn volume() -> (Pool, OfflineVolume) {
    let pool = Pool::new(&[], 64 << 20);
    let file = PoolFile::open(&pool.path, Access::Write).unwrap();
    let options = mkfs::Options {
        log_len: None,
        extensions: false,
        force: false,
        fs_uuid: Uuid::from_u128(1),
        dev_uuid: Uuid::from_u128(2),
        system_uuid: Uuid::from_u128(3),
        dev_name: "test".into(),
    };
    mkfs(&file, &options).unwrap();
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
    assert_eq!((writer.plan().space.used(), writer.plan().deleted_space()), (used, 6 << 20));
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
    assert_eq!((freed.deletions, freed.bytes, freed.slots, freed.voids), (1, 6 << 20, 0, 2));
    let after = plan(&volume);
    assert_eq!(after.get(&path("a")), Some(&before));
    assert_eq!((names(&after).len(), after.voids(), after.space.used()), (1, &[0, 1][..], 2 << 20));
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

/// A model of a mounted tree: what is at each path, and with which memory.
#[derive(Default)]
struct Model(RefCell<BTreeMap<String, Option<(u64, FileMap)>>>);

impl Tree for Model {
    fn existing(&self, path: &RelPath) -> io::Result<Option<(bool, u64)>> {
        let found = self.0.borrow().get(&path.to_string()).cloned();
        Ok(found.map(|file| file.map_or((true, 0), |(size, _)| (false, size))))
    }

    fn memory(&self, path: &RelPath) -> io::Result<Option<FileMap>> {
        Ok(self.0.borrow()[&path.to_string()].clone().map(|(_, map)| map))
    }

    fn unlink(&self, path: &RelPath, is_dir: bool) -> io::Result<()> {
        let mut tree = self.0.borrow_mut();
        let below = format!("{path}/");
        assert!(!tree.keys().any(|name| name.starts_with(&below)), "{path} is not empty");
        assert_eq!(tree.remove(&path.to_string()).unwrap().is_none(), is_dir);
        Ok(())
    }

    fn make_dir(&self, path: &RelPath, _owner: Owner) -> io::Result<()> {
        self.0.borrow_mut().insert(path.to_string(), None);
        Ok(())
    }

    fn make_file(&self, path: &RelPath, _: Owner, size: u64, map: &FileMap) -> io::Result<()> {
        self.0.borrow_mut().insert(path.to_string(), Some((size, map.clone())));
        Ok(())
    }
}

#[test]
fn mounted_trees_follow() {
    let (_pool, volume) = volume();
    let (follower, late) = (Model::default(), Model::default());
    let play = |tree: &Model| apply(tree, &plan(&volume), false, |_| {});
    let mut writer = Writer::open(&volume, None).unwrap();
    writer.mkdir(&path("d"), OWNER).unwrap();
    create(&mut writer, "d/f", 3);
    create(&mut writer, "same", 3);
    assert_eq!(play(&follower).files, 2);

    delete(&mut writer, "d/f");
    delete(&mut writer, "d");
    delete(&mut writer, "same");
    // A file where a directory was, and one with the same size as before.
    create(&mut writer, "d", 4);
    create(&mut writer, "same", 3);
    for (tree, removed) in [(&follower, 3), (&late, 0), (&follower, 0)] {
        let applied = play(tree);
        assert!(applied.errors.is_empty(), "{:?}", applied.errors);
        assert_eq!(applied.removed, removed);
    }
    assert_eq!(*follower.0.borrow(), *late.0.borrow());
    let in_the_log: Vec<String> = follower.0.borrow().keys().cloned().collect();
    assert_eq!(in_the_log, ["d", "same"]);
}

/// A tree in which one thing cannot be removed.
struct Stuck<'m> {
    model: &'m Model,
    stuck: Cell<Option<&'static str>>,
}

impl Tree for Stuck<'_> {
    fn existing(&self, path: &RelPath) -> io::Result<Option<(bool, u64)>> {
        self.model.existing(path)
    }

    fn memory(&self, path: &RelPath) -> io::Result<Option<FileMap>> {
        self.model.memory(path)
    }

    fn unlink(&self, path: &RelPath, is_dir: bool) -> io::Result<()> {
        let stuck = self.stuck.get().is_some_and(|stuck| path.to_string().starts_with(stuck));
        if stuck {
            Err(io::ErrorKind::ResourceBusy.into())
        } else {
            self.model.unlink(path, is_dir)
        }
    }

    fn make_dir(&self, path: &RelPath, owner: Owner) -> io::Result<()> {
        self.model.make_dir(path, owner)
    }

    fn make_file(&self, path: &RelPath, owner: Owner, size: u64, map: &FileMap) -> io::Result<()> {
        self.model.make_file(path, owner, size, map)
    }
}

#[test]
fn a_deletion_that_failed_is_tried_again() {
    let (_pool, volume) = volume();
    let model = Model::default();
    let tree = Stuck { model: &model, stuck: Cell::new(Some("d/f")) };
    let mut backlog = Backlog::default();
    let mut play = || {
        let applied = backlog.carry_out(&tree, &plan(&volume), |_| {});
        (applied, backlog.has_failed())
    };
    let mut writer = Writer::open(&volume, None).unwrap();
    writer.mkdir(&path("d"), OWNER).unwrap();
    create(&mut writer, "d/f", 3);
    assert!(!play().1);

    delete(&mut writer, "d/f");
    create(&mut writer, "d/f", 3);
    create(&mut writer, "other", 3);
    // The new file is not the existing one, so it has to wait for the deletion.
    for _ in 0..2 {
        let (applied, failed) = play();
        let [ApplyError::Remove { slot: 2, .. }, ApplyError::OtherMemory { slot: 3, .. }] =
            &applied.errors[..]
        else {
            panic!("{:?}", applied.errors)
        };
        assert!(failed && model.0.borrow().contains_key("other"));
    }
    tree.stuck.set(None);
    let (applied, failed) = play();
    assert!(applied.errors.is_empty() && !failed, "{:?}", applied.errors);
    assert_eq!((applied.removed, applied.files), (1, 1));
    let late = Model::default();
    apply(&late, &plan(&volume), false, |_| {});
    assert_eq!(*model.0.borrow(), *late.0.borrow());
}

/// `mkfs --force` or `compact` behind the back of a mount: the names are the same, the memory is
/// not.
#[test]
fn other_memory_under_the_same_name_is_told() {
    let (_pool, volume) = volume();
    let mut writer = Writer::open(&volume, None).unwrap();
    create(&mut writer, "a", 3);
    let stale = Model::default();
    let elsewhere = writer.allocate(&path("a"), 3).unwrap();
    let Memory::Map(elsewhere) = elsewhere.memory() else { panic!("no map") };
    stale.make_file(&path("a"), OWNER, 3, elsewhere).unwrap();
    let applied = apply(&stale, &plan(&volume), false, |_| {});
    assert!(matches!(&applied.errors[..], [ApplyError::OtherMemory { slot: 0, .. }]));
    assert!(applied.errors[0].to_string().contains("unmount it and mount it again"));
}
