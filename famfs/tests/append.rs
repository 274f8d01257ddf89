// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Crash safety: whichever of a session's stores reach the media, the file system mounts with a
//! prefix of its files, and each of them is complete.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "common/crash.rs"]
mod crash;
#[path = "common/crash_volume.rs"]
mod crash_volume;
#[path = "common/formatting.rs"]
mod formatting;

use std::sync::LazyLock;

use crash::{BACKWARD, Device, Event, FORWARD, Kind, Words, crash};
use crash_volume::DeviceVolume;
use famfs::format::path::RelPath;
use famfs::media::Media;
use famfs::replay::compact::compact;
use famfs::replay::fsck::check;
use famfs::replay::{Contents, NodeKind, Owner};
use famfs::store::log::Log;
use famfs::store::mkfs::mkfs;
use famfs::store::superblock::Superblock;
use famfs::store::takeover::takeover;
use famfs::write::copy::Copy;
use famfs::write::prng::SeededBytes;
use famfs::write::sources::{Destination, Options, scan};
use famfs::write::transfer::How;
use famfs::write::volume::FileBytes;
use famfs::write::writer::{WriteError, Writer};
use proptest::prelude::*;
use uuid::Uuid;

const OWNER: Owner = Owner { uid: 1, gid: 2, mode: 0o640 };

/// What a session adds, in order.
#[derive(Clone, Debug)]
enum Action {
    Mkdir,
    /// A file of this many bytes.
    Create(usize),
    Commit,
}

fn path(number: usize) -> RelPath {
    RelPath::new(format!("n{number}").as_bytes()).unwrap()
}

/// The bytes of the file with this number.
fn contents(number: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SeededBytes::new(u32::try_from(number).unwrap() + 1).fill(&mut bytes);
    bytes
}

/// An empty file system; made once, because that is most of a session's stores.
static FORMATTED: LazyLock<Words> = LazyLock::new(|| {
    let device = Device::new(Words::new(), Kind::Mapped);
    mkfs(&device, &formatting::options(false)).unwrap();
    device.state.into_inner().unwrap().words
});

/// Runs a session on a new file system and returns everything that it stored.
fn record(actions: &[Action], kind: Kind) -> (Words, Vec<Event>) {
    let start = FORMATTED.clone();
    let device = Device::new(start.clone(), kind);
    let volume = DeviceVolume(&device);
    let mut writer = Writer::open(&volume, None).unwrap();
    let mut made = 0;
    for action in actions {
        match action {
            Action::Mkdir => writer.mkdir(&path(made), OWNER).unwrap(),
            Action::Create(len) => {
                let size = *len as u64;
                let extent = writer.allocate(&path(made), size).unwrap();
                let bytes = contents(made, *len);
                let fill = |file: &dyn FileBytes| -> Result<(), WriteError> {
                    file.write(0, &bytes).unwrap();
                    Ok(())
                };
                writer.create(&path(made), OWNER, extent, fill).unwrap();
            }
            Action::Commit => {
                writer.commit().unwrap();
                device.note(Event::Reported(made));
                continue;
            }
        }
        made += 1;
    }
    drop(writer);
    (start, device.state.into_inner().unwrap().events)
}

fn check_after_crash(words: Words, actions: &[Action], reported: usize) {
    let device = Device::new(words, Kind::Mapped);
    let Contents { log, plan, .. } = Contents::read(&device).unwrap();
    assert!(log.counter_problem().is_none(), "{:?}", log.counter_problem());
    let unpublished = log.interrupted().unwrap_or(0);
    assert!(plan.stopped.is_none() && plan.refused.is_empty(), "{:?}", plan.stopped);
    let found = plan.nodes().len();
    assert!(found >= reported, "{found} files and directories, {reported} were reported");

    let made: Vec<&Action> = actions.iter().filter(|a| !matches!(a, Action::Commit)).collect();
    for (number, (node, action)) in plan.nodes().iter().zip(&made).enumerate() {
        assert_eq!((&node.path, node.owner), (&path(number), OWNER));
        match (&node.kind, action) {
            (NodeKind::Dir, Action::Mkdir) => {}
            (NodeKind::File { size, map }, Action::Create(len)) => {
                assert_eq!(*size, *len as u64);
                let mut bytes = vec![0; *len];
                device.read_at(map.extents()[0].offset, &mut bytes).unwrap();
                assert!(bytes == contents(number, *len), "file {number} is not complete");
            }
            other => panic!("{other:?}"),
        }
    }

    // The next session continues from there.
    let volume = DeviceVolume(&device);
    let mut writer = Writer::open(&volume, None).unwrap();
    assert_eq!(writer.plan().nodes().len() as u64, found as u64 + unpublished);
    writer.mkdir(&path(1000), OWNER).unwrap();
    writer.commit().unwrap();
    drop(writer);
    let plan = Contents::read(&device).unwrap().plan;
    assert!(plan.get(&path(1000)).is_some() && plan.stopped.is_none());
}

fn reported(events: &[Event]) -> usize {
    let counts = events.iter().rev().find_map(|event| match event {
        Event::Reported(count) => Some(*count),
        _ => None,
    });
    counts.unwrap_or(0)
}

/// Every cut at eight bytes of one session, with all, none and half of what was not durable.
#[test]
fn every_cut_of_a_session_leaves_a_prefix() {
    use Action::{Commit, Create, Mkdir};
    let actions = [Mkdir, Create(100), Commit, Create(9), Create(65), Mkdir, Commit, Create(1)];
    for kind in [Kind::Mapped, Kind::PoolFile] {
        let (start, events) = record(&actions, kind);
        for cut in 0..=events.len() {
            let reported = reported(&events[..cut]);
            for (share, order) in [(0, FORWARD), (1, FORWARD), (1, BACKWARD), (2, FORWARD)] {
                let words = crash(&start, &events, cut, order, |_, pending| pending * share / 2);
                check_after_crash(words, &actions, reported);
            }
        }
    }
}

/// Every cut at eight bytes, and at each cut every single cache line ahead of all others, or behind
/// them, by every number of its stores.
#[test]
fn every_line_ahead_or_behind_leaves_a_prefix() {
    use Action::{Commit, Create, Mkdir};
    let actions = [Create(9), Commit, Create(65), Mkdir, Commit];
    for kind in [Kind::Mapped, Kind::PoolFile] {
        let (start, events) = record(&actions, kind);
        for cut in 0..=events.len() {
            let reported = reported(&events[..cut]);
            let mut pending = Vec::new();
            crash(&start, &events, cut, FORWARD, |_, count| {
                pending.push(count);
                0
            });
            for (line, count) in pending.into_iter().enumerate() {
                // None and all of the line are what other lines' turns have.
                for (kept, order) in (1..count).flat_map(|kept| [(kept, FORWARD), (kept, BACKWARD)])
                {
                    for others in [0, usize::MAX] {
                        let words = crash(&start, &events, cut, order, |rank, count| {
                            if rank == line { kept } else { others.min(count) }
                        });
                        check_after_crash(words, &actions, reported);
                    }
                }
            }
        }
    }
}

/// Every cut of a compaction, with all, none and half of what was not durable: the files stay the
/// same, and a second compaction completes the work.
#[test]
fn every_cut_of_a_compaction_leaves_the_same_files() {
    use Action::{Commit, Create, Mkdir};
    let actions = [Mkdir, Create(100), Create(9), Mkdir, Create(65), Create(4), Commit];
    for kind in [Kind::Mapped, Kind::PoolFile] {
        let (start, events) = record(&actions, kind);
        let start = crash(&start, &events, events.len(), FORWARD, |_, pending| pending);
        let device = Device::new(start, kind);
        let volume = DeviceVolume(&device);
        let mut writer = Writer::open(&volume, None).unwrap();
        let below = RelPath::new(b"n0/below").unwrap();
        writer.mkdir(&below, OWNER).unwrap();
        for path in [below, path(0), path(2), path(5), path(4)] {
            writer.delete(&path).unwrap();
        }
        // The same name twice.
        writer.mkdir(&path(2), OWNER).unwrap();
        writer.delete(&path(2)).unwrap();
        writer.commit().unwrap();
        drop(writer);
        let start = device.state.into_inner().unwrap().words;

        let device = Device::new(start.clone(), kind);
        let compacted = compact(&device, false).unwrap();
        assert_eq!((compacted.deletions, compacted.slots, compacted.voids), (6, 12, 0));
        let events = device.state.into_inner().unwrap().events;
        let mut moving = 0;
        for cut in 0..=events.len() {
            for share in 0..=2 {
                let words = crash(&start, &events, cut, FORWARD, |_, pending| pending * share / 2);
                let device = Device::new(words, kind);
                check_compacted(&device);
                moving += u64::from(Contents::read(&device).unwrap().log.is_moving());
                compact(&device, false).unwrap();
                let used = check_compacted(&device);
                assert_eq!(used, 2 << 20, "only file 1 has memory");
                let log_len = Contents::read(&device).unwrap().superblock.log_len;
                assert_eq!(Log::open(&device, log_len).unwrap().published(), 2);
            }
        }
        assert!(moving > 3, "crashes while entries were moving: {moving}");
    }
}

/// Files 1 and 3 exist and are complete, nothing else exists, and nothing is wrong; returns the
/// memory in use.
fn check_compacted(device: &Device) -> u64 {
    let Contents { log, plan, .. } = Contents::read(device).unwrap();
    assert!(log.counter_problem().is_none() && plan.stopped.is_none());
    assert!(plan.refused.is_empty(), "{:?}", plan.refused);
    let names: Vec<_> = plan.nodes().iter().map(|node| node.path.clone()).collect();
    assert_eq!(names, [path(1), path(3)]);
    let NodeKind::File { map, .. } = &plan.nodes()[0].kind else { panic!("no file") };
    let mut bytes = vec![0; 100];
    device.read_at(map.extents()[0].offset, &mut bytes).unwrap();
    assert!(bytes == contents(1, 100));
    plan.space.used()
}

/// Every cut of a takeover: one of the two systems is the master, and the files exist.
#[test]
fn every_cut_of_a_takeover_leaves_one_master() {
    let (start, events) = record(&[Action::Create(10), Action::Commit], Kind::Mapped);
    let start = crash(&start, &events, events.len(), FORWARD, |_, pending| pending);
    for kind in [Kind::Mapped, Kind::PoolFile] {
        let device = Device::new(start.clone(), kind);
        let new = Uuid::from_u128(0x4444_5555_6666_7777_8888_9999_aaaa_bbbb);
        takeover(&device, new).unwrap();
        let events = device.state.into_inner().unwrap().events;
        for cut in 0..=events.len() {
            for share in 0..=6 {
                let words = crash(&start, &events, cut, FORWARD, |_, pending| pending * share / 6);
                let device = Device::new(words, kind);
                let contents = Contents::read(&device).unwrap();
                let problems = check(&device, &contents).problems;
                let mut first = [0; 200];
                device.read_at(0, &mut first).unwrap();
                match Superblock::parse(&first, 0) {
                    Ok(_) => assert!(problems.is_empty(), "{problems:?}"),
                    Err(_) => assert!(problems.len() == 1 && problems[0].contains("takeover")),
                }
                let Contents { superblock, plan, .. } = contents;
                let master = superblock.system_uuid;
                assert!(master == new || master == Uuid::from_u128(3), "{master}");
                assert_eq!(plan.nodes().len(), 1);
                // A second run completes the work.
                takeover(&device, new).unwrap();
                device.read_at(0, &mut first).unwrap();
                assert_eq!(Superblock::parse(&first, 0).unwrap().system_uuid, new);
            }
        }
    }
}

/// Overwriting appends nothing to the log, and is as durable as anything else when it is reported.
#[test]
fn an_overwritten_file_survives_a_crash() {
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), contents(7, 100)).unwrap();
    for kind in [Kind::Mapped, Kind::PoolFile] {
        let (mut start, events) = record(&[Action::Create(100), Action::Commit], kind);
        start = crash(&start, &events, events.len(), FORWARD, |_, pending| pending);
        let device = Device::new(start.clone(), kind);
        let volume = DeviceVolume(&device);
        let mut writer = Writer::open(&volume, None).unwrap();
        let target = Destination::As(path(0));
        // Like the existing file.
        let Owner { uid, gid, mode } = OWNER;
        let options =
            Options { uid: Some(uid), gid: Some(gid), mode: Some(mode), ..Options::default() };
        let found = scan(&[source.path().into()], &target, &options).unwrap();
        let copy = Copy::prepare(found, &mut writer).unwrap();
        assert_eq!(
            copy.run(&volume, &mut writer, &How::default(), |_| true).unwrap().overwritten,
            1
        );
        drop(writer);

        let events = device.state.into_inner().unwrap().events;
        let words = crash(&start, &events, events.len(), FORWARD, |_, _| 0);
        let device = Device::new(words, kind);
        let mut bytes = vec![0; 100];
        let plan = Contents::read(&device).unwrap().plan;
        let NodeKind::File { map, .. } = &plan.nodes()[0].kind else { panic!("no file") };
        device.read_at(map.extents()[0].offset, &mut bytes).unwrap();
        assert!(bytes == contents(7, 100), "{kind:?}: the old bytes are back");
    }
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![Just(Action::Mkdir), (1_usize..300).prop_map(Action::Create), Just(Action::Commit),]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any session, cut anywhere, with any choice of what had arrived.
    #[test]
    fn any_crash_leaves_a_prefix(
        actions in prop::collection::vec(action(), 1..12),
        mapped in any::<bool>(),
        forward in any::<bool>(),
        cut in any::<prop::sample::Index>(),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 32),
    ) {
        let kind = if mapped { Kind::Mapped } else { Kind::PoolFile };
        let (start, events) = record(&actions, kind);
        let cut = cut.index(events.len() + 1);
        let mut choices = choices.iter().cycle();
        let order = if forward { FORWARD } else { BACKWARD };
        let words = crash(&start, &events, cut, order, |_, pending| {
            choices.next().unwrap().index(pending + 1)
        });
        check_after_crash(words, &actions, reported(&events[..cut]));
    }
}
