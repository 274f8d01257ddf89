// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writing sessions in a file system with extensions: what they make is what a reader of the log
//! finds.

#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "common/formatting.rs"]
mod formatting;

use std::collections::BTreeMap;

use famfs::format::ALLOC_UNIT;
use famfs::format::extension::{EXTENSIONS_OFFSET, NO_ENTRY, PAGE};
use famfs::format::path::RelPath;
use famfs::media::Media;
use famfs::media::in_memory::InMemory;
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::{Attributes, Contents, Owner, Time};
use famfs::store::mkfs::mkfs;
use famfs::sys::dax::Access;
use famfs::write::change::NewAttributes;
use famfs::write::layout::Layout;
use famfs::write::volume::{OfflineVolume, Volume};
use famfs::write::writer::{WriteError, Writer};
use proptest::prelude::*;

fn path(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

fn attributes(mode: u32) -> Attributes {
    let owner = Owner { uid: 7, gid: 8, mode };
    Attributes { owner, mtime: Some(Time { sec: -1, nsec: 999_999_999 }) }
}

/// An empty pool with extensions, filled with ones: memory is not clear when it is taken.
fn volume(len: u64) -> OfflineVolume<InMemory> {
    let media = InMemory::new(len);
    let made = mkfs(&media, &formatting::options(true)).unwrap();
    let ones = vec![0xff; 1 << 20];
    for at in (made.data_start()..len).step_by(ones.len()) {
        media.write_at(at, &ones).unwrap();
    }
    OfflineVolume::new(media)
}

/// Makes a file whose data has a byte for each page, in the memory that readers of the log find.
fn create(writer: &mut Writer<'_>, name: &str, layout: Layout) -> Result<(), WriteError> {
    let room = writer.allocate(&path(name), layout.clone())?;
    let memory = room.memory().clone();
    writer.create(&path(name), attributes(0o644), room, |file| {
        for range in layout.data() {
            let bytes: Vec<u8> =
                range.clone().map(|at| u8::try_from(at / PAGE % 250).unwrap() + 1).collect();
            file.write(range.start, &bytes).unwrap();
        }
        Ok::<_, WriteError>(())
    })?;
    let tree = writer.plan().tree();
    let made = tree.get(&path(name)).unwrap();
    let ObjectKind::File { size, bytes } = &made.object.kind else { panic!("{name} is no file") };
    assert_eq!(tree.memory(bytes, *size), memory, "{name}");
    Ok(())
}

/// What is planned and not published counts as needed, and leaves the free slots as they are.
#[test]
fn a_log_that_is_too_short_for_a_group_tells_what_all_of_it_needs() {
    let volume = volume(64 << 20);
    let free = Contents::read(volume.media()).unwrap().log.free_slots();
    let mut writer = Writer::open(&volume, None).unwrap();
    writer.atomic().unwrap();
    writer.check_slots(free - 1).unwrap();
    let error = writer.check_slots(free).unwrap_err().to_string();
    let expected = format!("{} more entries needed, {free} of {free} slots free", free + 1);
    assert!(error.contains(&expected), "{error}");
}

/// Names with kind, size, links, and the parts of a file that are not zero.
fn found(volume: &OfflineVolume<InMemory>) -> BTreeMap<String, String> {
    let Contents { plan, .. } = Contents::read(volume.media()).unwrap();
    assert!(plan.refused.is_empty() && plan.stopped.is_none(), "{:?}", plan.refused);
    let mut found = BTreeMap::new();
    let tree = plan.tree();
    tree.walk(NO_ENTRY, |at, listed| {
        let text = match &listed.object.kind {
            ObjectKind::Dir { .. } => "dir".to_owned(),
            ObjectKind::Symlink { target, .. } => {
                format!("-> {}", String::from_utf8_lossy(target))
            }
            ObjectKind::File { size, bytes } => {
                let memory = tree.memory(bytes, *size);
                let at = RelPath::new(at).unwrap();
                let file = volume.open_file(&at, *size, &memory, Access::Read).unwrap();
                let mut data = vec![0; usize::try_from(*size).unwrap()];
                file.read(0, &mut data).unwrap();
                for (at, byte) in data.iter().enumerate() {
                    let page = u8::try_from(at / 4096 % 250).unwrap() + 1;
                    assert!(*byte == 0 || *byte == page, "{at} of {size}");
                }
                let filled = data.iter().filter(|byte| **byte != 0).count();
                format!("{size} {filled} {}", listed.object.links)
            }
        };
        found.insert(String::from_utf8_lossy(at).into_owned(), text);
        Ok::<(), ()>(())
    })
    .unwrap();
    found
}

#[test]
fn whatever_a_directory_holds() {
    let volume = volume(64 << 20);
    let long = format!("{}/{}", "d".repeat(255), "é".repeat(127));
    let mut writer = Writer::open(&volume, None).unwrap();
    writer.mkdir(&path(&"d".repeat(255)), attributes(0o755)).unwrap();
    for (name, size) in [
        ("empty", 0),
        ("one", 1),
        ("page", 4096),
        ("more", 4097),
        ("unit", ALLOC_UNIT),
        ("tail", 3 * ALLOC_UNIT + 5),
        (&*long, 10_000),
    ] {
        create(&mut writer, name, size.into()).unwrap();
    }
    let holes = Layout::new(1 << 24, (0..40).map(|n| n * 20_000..n * 20_000 + 1));
    create(&mut writer, "holes", holes).unwrap();
    create(&mut writer, "hole", Layout::new(5000, [])).unwrap();
    writer.symlink(&path("link"), b"../nowhere", attributes(0o777)).unwrap();
    writer.symlink(&path("far"), &[b'x'; 4095], attributes(0o777)).unwrap();
    writer.link(&path("one"), &path("two")).unwrap();
    writer.rename(&path("page"), &path("moved"), false).unwrap();
    writer.rename(&path("more"), &path("one"), true).unwrap();
    let new = NewAttributes { mode: Some(0o4700), ..NewAttributes::default() };
    writer.set_attributes(Some(&path("two")), &new).unwrap();
    writer.commit().unwrap();
    drop(writer);
    let expected = [
        ("empty", "0 0 1".to_owned()),
        ("one", "4097 4097 1".to_owned()),
        ("two", "1 1 1".to_owned()),
        ("moved", "4096 4096 1".to_owned()),
        ("unit", format!("{ALLOC_UNIT} {ALLOC_UNIT} 1")),
        ("tail", format!("{0} {0} 1", 3 * ALLOC_UNIT + 5)),
        (&*long, "10000 10000 1".to_owned()),
        ("hole", "5000 0 1".to_owned()),
        ("link", "-> ../nowhere".to_owned()),
        ("far", format!("-> {}", "x".repeat(4095))),
    ];
    let found = found(&volume);
    for (name, text) in expected {
        assert_eq!(found.get(name), Some(&text), "{name}");
    }
    assert!(found["holes"].starts_with("16777216 ") && found.len() == 12, "{found:?}");
    let contents = Contents::read(volume.media()).unwrap();
    let two = contents.plan.tree().get(&path("two")).unwrap().object;
    assert_eq!((two.owner.mode, two.owner.uid), (0o4700, 7));
    assert_eq!(two.mtime, Some(Time { sec: -1, nsec: 999_999_999 }));
    // Data, lists and tails: a few units, however many files there are.
    assert!(contents.plan.space.used() <= 6 * ALLOC_UNIT, "{}", contents.plan.space.used());
}

#[test]
fn large_files_lie_in_aligned_units() {
    let volume = volume(64 << 20);
    let mut writer = Writer::open(&volume, None).unwrap();
    create(&mut writer, "small", 5000.into()).unwrap();
    create(&mut writer, "large", (4 * ALLOC_UNIT + 4096).into()).unwrap();
    writer.commit().unwrap();
    let tree = writer.plan().tree();
    let large = tree.get(&path("large")).unwrap();
    let ObjectKind::File { size, bytes } = &large.object.kind else { panic!("no file") };
    let extents = tree.extents(bytes, *size);
    assert_eq!(extents[0].0, 0);
    assert!(extents[0].1.offset % ALLOC_UNIT == 0 && extents[0].1.len == 4 * ALLOC_UNIT);
    assert_eq!((extents[1].0, extents[1].1.len, extents.len()), (4 * ALLOC_UNIT, 4096, 2));
}

#[test]
fn a_group_is_one_append() {
    let volume = volume(64 << 20);
    let mut writer = Writer::open(&volume, None).unwrap();
    writer.atomic().unwrap();
    writer.mkdir(&path("tree"), attributes(0o755)).unwrap();
    for number in 0..2000 {
        create(&mut writer, &format!("tree/{number}"), 100.into()).unwrap();
    }
    assert!(found(&volume).is_empty());
    writer.commit().unwrap();
    assert_eq!(found(&volume).len(), 2001);
    // A group of nothing leaves nothing.
    let before = Contents::read(volume.media()).unwrap().log.published();
    writer.atomic().unwrap();
    writer.commit().unwrap();
    assert_eq!(Contents::read(volume.media()).unwrap().log.published(), before);
}

#[test]
fn the_last_pages_are_found() {
    let volume = volume(16 << 20);
    let mut writer = Writer::open(&volume, None).unwrap();
    let room = writer.plan().space.free() / PAGE;
    let mut made = 0;
    let error = loop {
        match create(&mut writer, &made.to_string(), 1.into()) {
            Ok(()) => made += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WriteError::NoSpace { .. }), "{error}");
    assert_eq!(made, room);
    writer.commit().unwrap();
    assert_eq!(found(&volume).len() as u64, room);
}

#[test]
fn without_extensions_nothing_else_is_written() {
    let volume = volume(64 << 20);
    volume.media().write_at(EXTENSIONS_OFFSET, &[0; 40]).unwrap();
    let mut writer = Writer::open(&volume, None).unwrap();
    writer.mkdir(&path("d"), attributes(0o755)).unwrap();
    create(&mut writer, "d/f", 5.into()).unwrap();
    let new = NewAttributes { mode: Some(0o600), ..NewAttributes::default() };
    for result in [
        create(&mut writer, "empty", 0.into()),
        create(&mut writer, &"x".repeat(80), 1.into()),
        writer.symlink(&path("l"), b"d", attributes(0o777)),
        writer.link(&path("d/f"), &path("g")),
        writer.rename(&path("d/f"), &path("g"), false),
        writer.set_attributes(Some(&path("d")), &new),
        writer.set_attributes(None, &new),
        writer.atomic(),
    ] {
        let error = result.unwrap_err();
        assert!(error.to_string().ends_with("`famfs upgrade` turns them on"), "{error}");
    }
    writer.commit().unwrap();
    let contents = Contents::read(volume.media()).unwrap();
    assert!(contents.plan.tree().is_conventional() && contents.plan.unknown == 0);
    assert_eq!(contents.log.published(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is made, given up and deleted: no file gets a page of another, and a reader of the
    /// log finds each file as it was written.
    #[test]
    fn pages_are_never_shared(
        steps in prop::collection::vec((0..20_u8, 0..5_u8, 0..3_000_000_u64), 1..60),
    ) {
        let volume = volume(40 << 20);
        let mut model: BTreeMap<String, String> = BTreeMap::new();
        let mut writer = Writer::open(&volume, None).unwrap();
        for (name, action, size) in steps {
            let name = name.to_string();
            match action {
                0 if model.contains_key(&name) => {
                    writer.delete(&path(&name)).unwrap();
                    model.remove(&name);
                }
                1 => {
                    if let Ok(room) = writer.allocate(&path(&name), size) {
                        writer.release(&room);
                    }
                }
                2 => {
                    writer.commit().unwrap();
                    writer = Writer::open(&volume, None).unwrap();
                }
                _ if model.contains_key(&name) => {}
                _ => match create(&mut writer, &name, size.into()) {
                    Ok(()) => { model.insert(name, format!("{size} {size} 1")); }
                    Err(WriteError::NoSpace { .. }) => {}
                    Err(error) => panic!("{error}"),
                },
            }
        }
        writer.commit().unwrap();
        prop_assert_eq!(found(&volume), model);
    }
}
