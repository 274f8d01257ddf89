// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A device that fails: whichever access of a session fails, and in whatever way, the file system
//! stays clean, what was reported exists, and a session that could not publish a batch does nothing
//! more.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "common/formatting.rs"]
mod formatting;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use famfs::format::LOG_OFFSET;
use famfs::format::map::FileMap;
use famfs::format::map::Memory;
use famfs::format::path::RelPath;
use famfs::media::in_memory::InMemory;
use famfs::media::{Media, MediaError};
use famfs::replay::Attributes;
use famfs::replay::compact::compact;
use famfs::replay::fsck::check;
use famfs::replay::tree::Tree;
use famfs::replay::tree::change::Change;
use famfs::replay::{Contents, NodeKind, Owner};
use famfs::store::mkfs;
use famfs::store::superblock::Superblock;
use famfs::store::takeover::takeover;
use famfs::sys::dax::Access;
use famfs::write::copy::Copy;
use famfs::write::room::Room;
use famfs::write::sources::{self, Destination, scan};
use famfs::write::transfer::How;
use famfs::write::volume::{FileBytes, Volume};
use famfs::write::writer::{WriteError, Writer};
use uuid::Uuid;

const DEVICE_LEN: u64 = 1 << 30;
const LOG_LEN: u64 = 2 << 20;
const OWNER: Owner = Owner { uid: 1, gid: 2, mode: 0o640 };
/// A file of this size fills a batch, so that its publication is a separate access.
const BATCH: u64 = 64 << 20;

/// What the failing access does before it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Nothing,
    /// The first half of its bytes is written.
    Half,
    /// All of it is done, and the error comes anyway.
    All,
}

/// A device in memory that fails.
struct Device {
    memory: InMemory,
    failure: Failure,
    /// Whether all accesses after the failing one fail too.
    dead: bool,
    /// Accesses before the one that fails.
    left: AtomicUsize,
    /// Only writes to the log fail.
    only_log: bool,
    /// What is mounted.
    mounted: Mutex<BTreeSet<RelPath>>,
}

impl Device {
    fn new(failure: Failure, dead: bool) -> Self {
        let memory = InMemory::new(DEVICE_LEN);
        let options = mkfs::Options { log_len: Some(LOG_LEN), ..formatting::options(false) };
        mkfs::mkfs(&memory, &options).unwrap();
        let (left, mounted) = (AtomicUsize::new(usize::MAX), Mutex::default());
        Self { memory, failure, dead, left, only_log: false, mounted }
    }

    /// Counts an access; the failure if it is due.
    fn access(&self) -> Option<Failure> {
        let next = |left: usize| match left {
            0 if self.dead => Some(0),
            left => Some(left.wrapping_sub(1)),
        };
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap();
        (left == 0).then_some(self.failure)
    }

    fn error(&self, action: &'static str, offset: u64, len: u64) -> MediaError {
        let source = io::ErrorKind::StorageFull.into();
        MediaError::Io { action, offset, len, path: "memory".into(), source }
    }
}

impl Media for Device {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn origin(&self) -> u64 {
        0
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
        match if self.only_log { None } else { self.access() } {
            Some(_) => Err(self.error("read", offset, buf.len() as u64)),
            None => self.memory.read_at(offset, buf),
        }
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), MediaError> {
        let counts = !self.only_log || (LOG_OFFSET..LOG_OFFSET + LOG_LEN).contains(&offset);
        let failure = if counts { self.access() } else { None };
        let done = match failure {
            Some(Failure::Nothing) => 0,
            Some(Failure::Half) => buf.len() / 16 * 8,
            Some(Failure::All) | None => buf.len(),
        };
        self.memory.write_at(offset, &buf[..done])?;
        match failure {
            Some(_) => Err(self.error("write", offset, buf.len() as u64)),
            None => Ok(()),
        }
    }

    fn persist(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        match if self.only_log { None } else { self.access() } {
            Some(_) => Err(self.error("sync", offset, len)),
            None => Ok(()),
        }
    }

    fn refresh(&self, _offset: u64, _len: u64) -> Result<(), MediaError> {
        Ok(())
    }
}

struct DeviceFile<'d> {
    device: &'d Device,
    start: u64,
}

impl FileBytes for DeviceFile<'_> {
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.device.read_at(self.start + offset, buf).map_err(io::Error::other)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.device.write_at(self.start + offset, buf).map_err(io::Error::other)
    }

    fn write_back(&self, offset: u64, len: usize) -> io::Result<()> {
        self.device.persist(self.start + offset, len as u64).map_err(io::Error::other)
    }

    fn refresh(&self, _offset: u64, _len: usize) -> io::Result<()> {
        Ok(())
    }

    fn clear_tail(&self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Volume for Device {
    fn media(&self) -> &dyn Media {
        self
    }

    fn lease_media(&self) -> io::Result<Box<dyn Media>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn make_dir(&self, path: &RelPath, _attributes: &Attributes) -> io::Result<()> {
        match self.mounted.lock().unwrap().insert(path.clone()) {
            true => Ok(()),
            false => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn make_file(
        &self,
        path: &RelPath,
        attributes: &Attributes,
        size: u64,
        memory: &Memory,
    ) -> io::Result<Box<dyn FileBytes + '_>> {
        self.make_dir(path, attributes)?;
        self.open_file(path, size, memory, Access::Write)
    }

    fn open_file(
        &self,
        _path: &RelPath,
        _size: u64,
        memory: &Memory,
        _access: Access,
    ) -> io::Result<Box<dyn FileBytes + '_>> {
        let Some((Some(start), _)) = memory.part(0) else { panic!("no memory") };
        Ok(Box::new(DeviceFile { device: self, start }))
    }

    fn remove(&self, path: &RelPath, _is_dir: bool) -> io::Result<()> {
        match self.mounted.lock().unwrap().remove(path) {
            true => Ok(()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn carry_out(&self, _tree: &Tree, change: &Change) -> io::Result<()> {
        match change {
            Change::Removed { path, is_dir } => self.remove(path, *is_dir),
            _ => Ok(()),
        }
    }

    fn note_played(&self, _: &Tree, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.persist(0, DEVICE_LEN).map_err(io::Error::other)
    }
}

fn path(name: &str) -> RelPath {
    RelPath::new(name.as_bytes()).unwrap()
}

/// A file that must exist with this byte, or must not exist at all.
type Promises = BTreeMap<&'static str, Option<u8>>;

/// What a user does, one command after the other; each has its own session, and reports what it has
/// done. `promises` has the last report on each path, `tried` what was not reported.
struct User<'d> {
    device: &'d Device,
    promises: RefCell<Promises>,
}

impl User<'_> {
    /// Runs a command. It promises its changes if it reports success, and otherwise nothing.
    fn command(
        &self,
        changes: &[(&'static str, Option<u8>)],
        run: impl FnOnce(&mut Writer<'_>) -> Result<(), WriteError>,
    ) {
        for (name, _) in changes {
            self.promises.borrow_mut().remove(name);
        }
        let Ok(mut writer) = Writer::open(self.device, None) else { return };
        match run(&mut writer).and_then(|()| writer.commit()) {
            Ok(()) => self.promises.borrow_mut().extend(changes.iter().copied()),
            Err(WriteError::Ended(why)) => stays_ended(&mut writer, &why.to_string()),
            Err(_) => {}
        }
    }

    fn all(&self) {
        self.command(
            &[("d", Some(0)), ("d/1", Some(1)), ("d/2", Some(2)), ("d/3", Some(3))],
            |w| {
                w.mkdir(&path("d"), OWNER)?;
                create(w, "d/1", BATCH, 1)?;
                create(w, "d/2", 1, 2)?;
                create(w, "d/3", BATCH, 3)
            },
        );
        self.command(&[("d/2", None)], |w| w.delete(&path("d/2")));
        self.command(&[("e", Some(0)), ("e/4", Some(4)), ("d/1", None)], |w| {
            w.mkdir(&path("e"), OWNER)?;
            w.delete(&path("d/1"))?;
            create(w, "e/4", BATCH, 4)
        });
        let master = Uuid::from_u128(9);
        if takeover(self.device, master).is_ok() {
            assert_eq!(Superblock::read(&self.device.memory).unwrap().system_uuid, master);
        }
        // Done when nothing is mounted, and no promise.
        only_what_is_logged(self.device);
        self.device.mounted.lock().unwrap().clear();
        let _ = compact(self.device, false);
        self.command(&[("5", Some(5))], |w| create(w, "5", 1, 5));
    }
}

fn create(writer: &mut Writer<'_>, name: &str, size: u64, byte: u8) -> Result<(), WriteError> {
    let map = writer.allocate(&path(name), size)?;
    writer.create(&path(name), OWNER, map, |file| {
        file.write(0, &[byte]).map_err(|source| WriteError::Volume {
            action: "write",
            path: path(name),
            source,
        })
    })
}

/// Every further call returns the same error.
fn stays_ended(writer: &mut Writer<'_>, why: &str) {
    let room = Room::own(1, FileMap::Simple(Vec::new().into()));
    let answers = [
        writer.commit(),
        writer.mkdir(&path("late"), OWNER),
        writer.delete(&path("d")),
        writer.allocate(&path("late"), 1).map(drop),
        writer.begin(&path("late"), OWNER, &room).map(drop),
        writer.publish(&path("late"), OWNER, room.clone()),
        create(writer, "late", 1, 1),
        writer.check_slots(1),
        writer.commit(),
    ];
    for answer in answers {
        assert_eq!(answer.unwrap_err().to_string(), why);
    }
}

/// The file system is clean and keeps its promises; what is mounted is a part of it.
fn judge(device: &Device, promises: &Promises, context: &str) {
    let media = &device.memory;
    let copy_used =
        |media| Superblock::left_by_takeover(media).unwrap().is_some_and(|(_, used)| used);
    if copy_used(media) {
        // Half a store of the superblock: fsck asks for a second takeover, and a user runs it.
        assert_eq!(device.failure, Failure::Half, "{context}");
        takeover(media, Uuid::from_u128(9)).unwrap();
    }
    let contents = Contents::read(media).unwrap();
    let report = check(media, &contents);
    assert!(report.problems.is_empty(), "{context}: {:?}", report.problems);
    for (name, promise) in promises {
        let node = contents.plan.get(&path(name));
        match (node.map(|node| &node.kind), promise) {
            (Some(NodeKind::Dir), Some(0)) | (None, None) => {}
            (Some(NodeKind::File { map, .. }), Some(byte)) => {
                let mut found = [0];
                media.read_at(map.extents()[0].offset, &mut found).unwrap();
                assert_eq!(found, [*byte], "{context}: {name}");
            }
            (found, promised) => panic!("{context}: {name} is {found:?}, promised {promised:?}"),
        }
    }
    only_what_is_logged(device);
}

/// What is mounted is what the log has, or what it deletes: the next play carries out a deletion
/// that an interrupted append left.
fn only_what_is_logged(device: &Device) {
    let Ok(Contents { plan, .. }) = Contents::read(&device.memory) else { return };
    let deletions = plan.deletions_since(0);
    for mounted in &*device.mounted.lock().unwrap() {
        let deleted = deletions.iter().any(|deletion| deletion.node.path == *mounted);
        let known = deleted || plan.get(mounted).is_some();
        assert!(known || device.dead, "{mounted} is mounted only");
    }
}

#[test]
fn whichever_access_fails_nothing_reported_is_lost() {
    for failure in [Failure::Nothing, Failure::Half, Failure::All] {
        for dead in [false, true] {
            let mut reached = 0;
            for number in 0.. {
                let device = Device::new(failure, dead);
                device.left.store(number, Ordering::Relaxed);
                let user = User { device: &device, promises: RefCell::default() };
                user.all();
                let context = format!("{failure:?} at access {number}, dead: {dead}");
                judge(&device, &user.promises.borrow(), &context);
                // If counted past zero it wraps; otherwise this access was never made.
                let left = device.left.load(Ordering::Relaxed);
                if left <= number && !(dead && left == 0) {
                    assert_eq!(user.promises.borrow().len(), 7, "{context}");
                    break;
                }
                reached = number;
            }
            assert!(reached > 50, "the session is no session: {reached}");
        }
    }
}

#[test]
fn a_copy_ends_with_the_batch_that_was_not_published() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("d");
    fs::create_dir(&source).unwrap();
    // More than one batch.
    for number in 0..300 {
        fs::write(source.join(format!("f{number:03}")), b"x").unwrap();
    }
    let mut device = Device::new(Failure::Nothing, false);
    device.only_log = true;
    let mut writer = Writer::open(&device, None).unwrap();
    let options = sources::Options { recursive: true, ..sources::Options::default() };
    let found = scan(&[source], &Destination::Into(None), &options).unwrap();
    let copy = Copy::prepare(found, &mut writer).unwrap();
    device.left.store(0, Ordering::Relaxed);
    let error =
        copy.run(&device, &mut writer, &How { threads: 4, verify: false }, |_| true).unwrap_err();
    assert!(error.to_string().contains("cannot access the log"), "{error}");
    drop(writer);
    judge(&device, &Promises::new(), "a copy");
    let contents = Contents::read(&device.memory).unwrap();
    assert_eq!((contents.log.published(), contents.plan.nodes().len()), (0, 0));
    assert!(device.mounted.lock().unwrap().is_empty(), "the stubs are taken back");
}

#[test]
fn a_thread_that_panics_ends_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<_> = (0..40).map(|number| dir.path().join(format!("f{number}"))).collect();
    for name in &names {
        fs::write(name, b"x").unwrap();
    }
    let device = Device::new(Failure::Nothing, false);
    let mut writer = Writer::open(&device, None).unwrap();
    let found = scan(&names, &Destination::Into(None), &sources::Options::default()).unwrap();
    let copy = Copy::prepare(found, &mut writer).unwrap();
    let how = How { threads: 2, verify: false };
    let error = copy.run(&device, &mut writer, &how, |_| panic!("as asked")).unwrap_err();
    assert!(error.to_string().contains("panicked (as asked)"), "{error}");
    drop(writer);
    judge(&device, &Promises::new(), "a panic");
    assert!(device.mounted.lock().unwrap().is_empty(), "the stubs are taken back");
}
