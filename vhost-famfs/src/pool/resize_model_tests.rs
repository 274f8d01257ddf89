// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests a model of a pool in use: files are copied into it and deleted, the log is compacted and
//! the pool resized, in any order, and the host crashes in the middle of any of these. Everything
//! that was reported as done must be there afterwards, and each refusal must name a way out that
//! works.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use famfs::format::ALLOC_UNIT;
use famfs::format::path::RelPath;
use famfs::media::{MediaError, PoolFile};
use famfs::replay::Owner;
use famfs::replay::compact::compact;
use famfs::replay::fsck::check;
use famfs::replay::tree::object::ObjectKind;
use famfs::sys::dax::Access;
use famfs::write::volume::{OfflineVolume, Volume};
use famfs::write::writer::{WriteError, Writer};
use proptest::prelude::*;

use super::*;
use crate::pool::{CreateOptions, create};

const MIB: u64 = 1 << 20;
const OWNER: Owner = Owner { uid: 0, gid: 0, mode: 0o644 };

#[derive(Clone, Debug)]
enum Action {
    /// Copy a file with that many units, replacing an existing one.
    Copy(u8, u64),
    Remove(u8),
    Compact,
    /// Resize to that many MiB.
    Resize(u64),
}

/// An action, and the number of stores after which the host crashes.
type Step = (Action, Option<u64>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let action = prop_oneof![
        4 => (0..6_u8, 1..5_u64).prop_map(|(name, units)| Action::Copy(name, units)),
        3 => (0..6_u8).prop_map(Action::Remove),
        1 => Just(Action::Compact),
        4 => (8..24_u64).prop_map(|units| Action::Resize(2 * units)),
    ];
    let crash = prop_oneof![2 => Just(None), 1 => (0..8_u64).prop_map(Some)];
    prop::collection::vec((action, crash), 1..24)
}

/// Does something again while other tests of this process start programs: until such a program
/// runs, its process has what this one maps.
fn alone<T>(mut work: impl FnMut() -> Result<T, ResizeError>) -> Result<T, ResizeError> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match work() {
            Err(ResizeError::Held { .. }) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

/// A pool whose host crashes after a given number of stores.
struct Host {
    pool: PoolFile,
    left: AtomicU64,
}

impl Host {
    fn open(path: &Path, crash: Option<u64>) -> Self {
        let pool = PoolFile::open(path, Access::Write).unwrap();
        Self { pool, left: AtomicU64::new(crash.unwrap_or(u64::MAX)) }
    }

    fn alive(&self) -> Result<(), MediaError> {
        let next = |left: u64| Some(left.saturating_sub(1));
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(0) => Err(MediaError::Io {
                action: "write",
                offset: 0,
                len: 0,
                path: "pool".into(),
                source: io::Error::other("crashed"),
            }),
            _ => Ok(()),
        }
    }
}

impl Media for Host {
    fn len(&self) -> u64 {
        self.pool.len()
    }

    fn origin(&self) -> u64 {
        self.pool.origin()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
        self.pool.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), MediaError> {
        self.alive()?;
        self.pool.write_at(offset, buf)
    }

    fn persist(&self, _offset: u64, _len: u64) -> Result<(), MediaError> {
        self.alive()
    }

    fn refresh(&self, _offset: u64, _len: u64) -> Result<(), MediaError> {
        Ok(())
    }
}

fn name(number: u8) -> RelPath {
    RelPath::new(format!("f{number}").as_bytes()).unwrap()
}

/// A pool and its expected contents.
struct Model {
    path: PathBuf,
    /// Units and mark of each file that was reported as copied.
    files: BTreeMap<u8, (u64, u8)>,
    /// A file that was not reported as copied, because a crash came first.
    unsure: Option<u8>,
    marks: u8,
}

impl Model {
    fn act(&mut self, (action, crash): &Step) {
        match action {
            Action::Copy(number, units) => {
                if self.files.contains_key(number) {
                    self.remove(*number, None);
                }
                self.copy(*number, *units, *crash);
            }
            Action::Remove(number) if self.files.contains_key(number) => {
                self.remove(*number, *crash);
            }
            Action::Remove(_) => {}
            Action::Compact => {
                let compacted = compact(&Host::open(&self.path, *crash), false);
                assert!(crash.is_some() || compacted.is_ok(), "{compacted:?}");
            }
            Action::Resize(mib) => self.resize(*mib * MIB, *crash),
        }
        self.look();
    }

    fn copy(&mut self, number: u8, units: u64, crash: Option<u64>) {
        let host = OfflineVolume::new(Host::open(&self.path, crash));
        let Ok(mut writer) = Writer::open(&host, None) else {
            return assert!(crash.is_some(), "the file system cannot be written");
        };
        let size = units * ALLOC_UNIT;
        let Ok(map) = writer.allocate(&name(number), size) else { return };
        self.marks = self.marks.wrapping_add(1).max(1);
        let mark = self.marks;
        let made = writer.create(&name(number), OWNER, map, |file| {
            for at in [0, size - 1] {
                file.write(at, &[mark]).map_err(|source| WriteError::Volume {
                    action: "write",
                    path: name(number),
                    source,
                })?;
            }
            Ok::<_, WriteError>(())
        });
        match made.and_then(|()| writer.commit()) {
            Ok(()) => drop(self.files.insert(number, (units, mark))),
            Err(_) => {
                assert!(crash.is_some());
                self.files.insert(number, (units, mark));
                self.unsure = Some(number);
            }
        }
    }

    fn remove(&mut self, number: u8, crash: Option<u64>) {
        let host = OfflineVolume::new(Host::open(&self.path, crash));
        let Ok(mut writer) = Writer::open(&host, None) else {
            return assert!(crash.is_some(), "the file system cannot be written");
        };
        let removed = writer.delete(&name(number)).and_then(|()| writer.commit());
        match removed {
            Ok(()) => drop(self.files.remove(&number)),
            Err(_) => {
                assert!(crash.is_some());
                self.unsure = Some(number);
            }
        }
    }

    fn resize(&mut self, size: u64, crash: Option<u64>) {
        let of = |size| ResizeOptions { path: self.path.clone(), size, owners: Owners::Trusted };
        let options = of(size);
        let to = |size| alone(|| resize(&of(size), &mut |_, _| ()));
        let before = inspect(&self.path).unwrap().size;
        let places = crash.and_then(|crash| usize::try_from(crash % 4).ok());
        let to_place = places.unwrap_or(usize::MAX);
        let least = match alone(|| change(&options, &mut |_, _| (), to_place)) {
            Ok(()) => {
                // After a crash in between: the same command repairs what looks damaged.
                let report = inspect(&self.path).unwrap();
                if report.damage.is_some() {
                    assert!(places.is_some());
                    to(size).unwrap();
                }
                return;
            }
            Err(ResizeError::Data { least, .. }) => least,
            Err(ResizeError::Deleted { least, .. }) => {
                compact(&Host::open(&self.path, None), false).unwrap();
                least
            }
            Err(err) => panic!("{err}"),
        };
        assert_eq!(inspect(&self.path).unwrap().size, before, "a refusal changes nothing");
        assert!(least.0 <= before);
        to(least.0).unwrap();
    }

    /// Checks everything that was reported as done.
    fn look(&mut self) {
        let volume = OfflineVolume::new(Host::open(&self.path, None));
        self.look_at(volume.media());
        if let Some(number) = self.unsure.take() {
            // From now on the file exists, or it does not: an interrupted append is completed
            // first.
            drop(Writer::open(&volume, None).unwrap());
            let contents = Contents::read(volume.media()).unwrap();
            if contents.plan.tree().get(&name(number)).is_none() {
                self.files.remove(&number);
            }
            self.look_at(volume.media());
        }
    }

    fn look_at(&self, host: &dyn Media) {
        let contents = Contents::read(host).unwrap();
        let report = check(host, &contents);
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        for (number, (units, mark)) in &self.files {
            let tree = contents.plan.tree();
            let Some(listed) = tree.get(&name(*number)) else {
                assert_eq!(self.unsure, Some(*number), "a file that was reported is gone");
                continue;
            };
            let ObjectKind::File { size, bytes } = &listed.object.kind else { panic!("no file") };
            assert_eq!(*size, units * ALLOC_UNIT);
            let extents = tree.extents(bytes, *size);
            assert_eq!(extents.iter().map(|(_, extent)| extent.len).sum::<u64>(), *size);
            // Only the first and the last byte were written.
            let ends = [extents.first(), extents.last()].map(|extent| extent.unwrap().1);
            for at in [ends[0].offset, ends[1].offset + ends[1].len - 1] {
                let mut found = [0];
                host.read_at(at, &mut found).unwrap();
                assert_eq!(found, [*mark], "file {number} at {at}");
            }
        }
        let all = contents.plan.tree().counts().files + u64::from(self.unsure.is_some());
        let expected = self.files.len() as u64;
        assert!(all >= expected && all <= expected + 1);
    }
}

fn run(view: View, steps: &[Step]) {
    // Memory without durability: nothing here asks for it.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = dir.path().join("pool");
    let options = CreateOptions { mkfs: true, ..CreateOptions::new(path.clone(), 32 * MIB, view) };
    create(&options, &mut |_, _| ()).unwrap();
    let mut model = Model { path, files: BTreeMap::new(), unsure: None, marks: 0 };
    for step in steps {
        model.act(step);
    }
}

#[test]
fn a_shrink_keeps_what_was_deleted_until_it_is_compacted() {
    use Action::{Compact, Copy, Remove, Resize};
    let steps = [Copy(0, 1), Copy(1, 8), Remove(1), Resize(16), Copy(2, 1), Compact, Resize(64)];
    for view in [View::Devdax, View::Raw] {
        run(view, &steps.clone().map(|action| (action, None)));
    }
}

#[test]
fn a_file_that_an_append_left_unpublished_is_not_cut_off() {
    // After how many stores it is complete but not published is internal to the log.
    for crash in 0..12 {
        let steps = [
            (Action::Copy(0, 8), Some(crash)),
            (Action::Resize(16), None),
            (Action::Copy(1, 1), None),
        ];
        run(View::Devdax, &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn nothing_that_was_reported_is_lost(steps in steps(), raw in any::<bool>()) {
        run(if raw { View::Raw } else { View::Devdax }, &steps);
    }
}
