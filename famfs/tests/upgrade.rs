// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Turning on extensions: a crash at any store leaves a file system with or without them. A log
//! that is not good is refused, and a mark that was lost is restored.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[allow(dead_code, reason = "the tests of appends need more of it")]
#[path = "common/crash.rs"]
mod crash;
#[path = "common/formatting.rs"]
mod formatting;

use crash::{BACKWARD, DEVICE_LEN, Device, FORWARD, Kind, Words, crash};
use famfs::format::extension::{EXTENSIONS_OFFSET, Extensions, NO_ENTRY, RemoveBody};
use famfs::format::path::RelPath;
use famfs::format::{Body, EntryKind, LOG_OFFSET, LogHeader, slot_offset};
use famfs::media::in_memory::InMemory;
use famfs::media::{Media, MediaError};
use famfs::replay::compact::compact;
use famfs::replay::fsck;
use famfs::replay::upgrade::{Upgrade, UpgradeError, check, mark};
use famfs::replay::{Contents, Owner};
use famfs::store::log::Log;
use famfs::store::mkfs::{self, mkfs};
use famfs::store::superblock::{MIN_LOG_LEN, Superblock};
use famfs::write::volume::OfflineVolume;
use famfs::write::writer::{WriteError, Writer};
use uuid::Uuid;
use zerocopy::IntoBytes;

const OWNER: Owner = Owner { uid: 1, gid: 2, mode: 0o755 };

fn options(extensions: bool) -> mkfs::Options {
    mkfs::Options {
        log_len: Some(MIN_LOG_LEN),
        force: true,
        fs_uuid: Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_8888),
        ..formatting::options(extensions)
    }
}

fn path(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

/// Device of a volume that the test looks at, too.
struct Shared<'m>(&'m InMemory);

impl Media for Shared<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn origin(&self) -> u64 {
        0
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
        self.0.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), MediaError> {
        self.0.write_at(offset, buf)
    }

    fn persist(&self, _: u64, _: u64) -> Result<(), MediaError> {
        Ok(())
    }

    fn refresh(&self, _: u64, _: u64) -> Result<(), MediaError> {
        Ok(())
    }
}

/// A file system without extensions, with directories.
fn with_directories(names: &[&str]) -> InMemory {
    let media = InMemory::new(DEVICE_LEN);
    mkfs(&media, &options(false)).unwrap();
    let volume = OfflineVolume::new(Shared(&media));
    let mut writer = Writer::open(&volume, None).unwrap();
    for name in names {
        writer.mkdir(&path(name), OWNER).unwrap();
    }
    writer.commit().unwrap();
    drop(writer);
    media
}

/// Runs `change` on a device, and `look` at what each crash in it leaves.
fn at_every_crash(start: &Words, change: impl Fn(&Device), look: impl Fn(&Device)) {
    for kind in [Kind::Mapped, Kind::PoolFile] {
        let device = Device::new(start.clone(), kind);
        change(&device);
        let events = device.state.into_inner().unwrap().events;
        for cut in 0..=events.len() {
            for order in [FORWARD, BACKWARD] {
                for kept in 0..=8 {
                    let words = crash(start, &events, cut, order, |_, pending| pending.min(kept));
                    look(&Device::new(words, kind));
                }
            }
        }
    }
}

#[test]
fn a_crash_leaves_the_file_system_with_or_without_extensions() {
    let device = Device::new(Words::new(), Kind::Mapped);
    mkfs(&device, &options(false)).unwrap();
    let unmarked = device.state.into_inner().unwrap().words;
    // Of an earlier file system, and one that no reader takes.
    let mut other = Extensions::new(Uuid::from_u128(7).into_bytes());
    let valid = other;
    other.fs_uuid = [0xff; 16];
    for left in [None, Some(valid), Some(other)] {
        let device = Device::new(unmarked.clone(), Kind::Mapped);
        if let Some(left) = left {
            device.write_at(EXTENSIONS_OFFSET, left.as_bytes()).unwrap();
        }
        let start = device.state.into_inner().unwrap().words;
        at_every_crash(
            &start,
            |device| {
                assert_eq!(check(device).unwrap(), Upgrade::TurnOn);
                mark(device).unwrap();
                assert_eq!(check(device).unwrap(), Upgrade::None, "it has them");
            },
            |device| {
                Contents::read(device).unwrap();
                // A second run completes the work.
                if check(device).unwrap() != Upgrade::None {
                    mark(device).unwrap();
                }
                assert!(Superblock::read(device).unwrap().has_extensions(device).unwrap());
            },
        );
    }
}

#[test]
fn a_crash_of_mkfs_leaves_no_file_system_or_one_with_extensions() {
    at_every_crash(
        &Words::new(),
        |device| drop(mkfs(device, &options(true)).unwrap()),
        |device| {
            if let Ok(superblock) = Superblock::read(device) {
                assert!(superblock.has_extensions(device).unwrap());
                Contents::read(device).unwrap();
            }
        },
    );
}

#[test]
fn the_name_of_the_store_must_be_free() {
    let media = with_directories(&["a", ".famfs", ".famfs/0", ".famfs2"]);
    let error = check(&media).unwrap_err();
    assert!(matches!(error, UpgradeError::Reserved { slot: 1 }), "{error}");
    let volume = OfflineVolume::new(Shared(&media));
    let mut writer = Writer::open(&volume, None).unwrap();
    writer.delete(&path(".famfs/0")).unwrap();
    writer.delete(&path(".famfs")).unwrap();
    writer.commit().unwrap();
    drop(writer);
    assert_eq!(check(&media).unwrap(), Upgrade::TurnOn);
    mark(&media).unwrap();
    let plan = Contents::read(&media).unwrap().plan;
    assert!(plan.stopped.is_none() && plan.refused.is_empty(), "{:?}", plan.refused);
    assert_eq!(plan.nodes().len(), 2);
    // From now on nobody can take it.
    let mut writer = Writer::open(&volume, None).unwrap();
    for name in [".famfs", ".famfs/0"] {
        let error = writer.mkdir(&path(name), OWNER).unwrap_err();
        assert!(matches!(error, WriteError::Path { .. }), "{error}");
        let error = writer.delete(&path(name)).unwrap_err();
        assert!(matches!(error, WriteError::Delete { .. }), "{error}");
    }
    writer.mkdir(&path("a/.famfs"), OWNER).unwrap();
}

/// A file system with extensions: "a", and in it "b", which an extension entry moved there.
fn with_extensions() -> InMemory {
    let media = with_directories(&["a", "b"]);
    mark(&media).unwrap();
    let volume = OfflineVolume::new(Shared(&media));
    let mut writer = Writer::open(&volume, None).unwrap();
    writer.rename(&path("b"), &path("a/b"), false).unwrap();
    writer.commit().unwrap();
    drop(writer);
    media
}

/// Whichever byte of the mark is lost, nothing is written, all is reported, and all comes back.
#[test]
fn a_lost_mark_is_restored() {
    for byte in 0..size_of::<Extensions>() as u64 {
        let media = with_extensions();
        let mut bytes = [0];
        media.read_at(EXTENSIONS_OFFSET + byte, &mut bytes).unwrap();
        media.write_at(EXTENSIONS_OFFSET + byte, &[bytes[0] ^ 0x10]).unwrap();
        if let Ok(contents) = Contents::read(&media) {
            assert_eq!((contents.plan.unmarked, contents.plan.unknown), (1, 0), "byte {byte}");
            assert_eq!(fsck::check(&media, &contents).problems.len(), 1, "byte {byte}");
            assert!(compact(&media, false).is_err(), "byte {byte}");
        }
        let volume = OfflineVolume::new(Shared(&media));
        assert!(Writer::open(&volume, None).is_err(), "byte {byte}");
        assert!(Writer::preview(&volume, None).is_err(), "byte {byte}");
        assert_eq!(check(&media).unwrap(), Upgrade::Restore, "byte {byte}");
        mark(&media).unwrap();
        assert_eq!(check(&media).unwrap(), Upgrade::None, "byte {byte}");
        let contents = Contents::read(&media).unwrap();
        assert_eq!(fsck::check(&media, &contents).problems, [""; 0], "byte {byte}");
        assert!(contents.plan.tree().get(&path("a/b")).is_some(), "byte {byte}");
    }
}

#[test]
fn a_lost_mark_of_a_log_with_other_faults_stays_lost() {
    let lose = |media: &InMemory| media.write_at(EXTENSIONS_OFFSET, &[0]).unwrap();
    let media = with_extensions();
    media.write_at(slot_offset(1) + 100, &[1]).unwrap();
    media.write_at(EXTENSIONS_OFFSET + 32, &[0; 8]).unwrap();
    let error = check(&media).unwrap_err();
    assert!(matches!(error, UpgradeError::NotRestored(_)), "{error}");

    let media = with_extensions();
    lose(&media);
    let body = RemoveBody { name_slot: NO_ENTRY.into(), rest: [0; 512] };
    let body: Body = body.as_bytes().try_into().unwrap();
    Log::open(&media, MIN_LOG_LEN).unwrap().append(&[(EntryKind::Remove as u32, body)]).unwrap();
    let error = check(&media).unwrap_err();
    assert!(matches!(error, UpgradeError::NotRestored(_)), "{error}");

    let media = with_extensions();
    lose(&media);
    Log::open(&media, MIN_LOG_LEN).unwrap().append(&[(77, [0; 520])]).unwrap();
    let error = check(&media).unwrap_err();
    assert!(matches!(error, UpgradeError::Unknown { count: 1 }), "{error}");
}

/// Types that nobody knows are no fault of a file system without extensions.
#[test]
fn unknown_types_are_no_lost_mark() {
    let media = with_directories(&["a", "b"]);
    Log::open(&media, MIN_LOG_LEN).unwrap().append(&[(77, [0; 520])]).unwrap();
    let contents = Contents::read(&media).unwrap();
    assert_eq!((contents.plan.unmarked, contents.plan.unknown), (0, 1));
    assert_eq!(fsck::check(&media, &contents).problems, [""; 0]);
    let volume = OfflineVolume::new(Shared(&media));
    Writer::open(&volume, None).unwrap().mkdir(&path("c"), OWNER).unwrap();
    assert_eq!(check(&media).unwrap(), Upgrade::TurnOn);
}

#[test]
fn a_damaged_log_is_refused() {
    let media = with_directories(&["a", "b"]);
    media.write_at(slot_offset(1) + 100, &[1]).unwrap();
    let error = check(&media).unwrap_err();
    assert!(matches!(error, UpgradeError::Damaged(_)), "{error}");

    let media = with_directories(&["a", "b"]);
    let next_index = std::mem::offset_of!(LogHeader, next_index) as u64;
    media.write_at(LOG_OFFSET + next_index, &1_u64.to_le_bytes()).unwrap();
    let error = check(&media).unwrap_err();
    assert!(matches!(error, UpgradeError::Interrupted { count: 1 }), "{error}");
}
