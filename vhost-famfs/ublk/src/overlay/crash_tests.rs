// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks what a power failure, or the death of the process, leaves in an overlay, at every point
//! of random work.
//!
//! The model's disk keeps everything that was synced. For each sector, it keeps any of the versions
//! written since then, chosen anew at each failure: writes arrive in any order, and may be torn.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use proptest::prelude::*;
use uuid::Uuid;

use super::format::Layout;
use super::*;

const SECTORS: u64 = 40;
const SIZE: u64 = SECTORS * SECTOR;
const LEN: usize = 512;

type Sector = [u8; LEN];

/// A disk; unwritten sectors are zero.
#[derive(Clone, Debug, Default)]
struct Disk {
    /// What programs read: the page cache.
    cached: BTreeMap<u64, Sector>,
    /// For each sector written since the last sync, all versions that the disk may hold.
    unsynced: BTreeMap<u64, Vec<Sector>>,
    /// From now on, syncs fail.
    broken: bool,
}

#[derive(Debug, Default)]
struct Model(Mutex<Disk>);

/// The sectors of a range: for each its number, the part of the sector, and the part of the range.
fn sectors_of(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = usize::try_from(at % SECTOR).unwrap();
        let count = (LEN - within).min(len - done);
        let part = done..done + count;
        done += count;
        (count > 0).then(|| (at / SECTOR, within..within + count, part))
    })
}

impl Disk {
    fn sector(&self, number: u64) -> Sector {
        self.cached.get(&number).copied().unwrap_or([0; LEN])
    }

    fn put(&mut self, number: u64, bytes: Sector) {
        let old = self.sector(number);
        self.unsynced.entry(number).or_insert_with(|| vec![old]).push(bytes);
        self.cached.insert(number, bytes);
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (number, within, part) in sectors_of(offset, bytes.len()) {
            let mut sector = self.sector(number);
            sector[within].copy_from_slice(&bytes[part]);
            self.put(number, sector);
        }
    }

    /// The disk after a power failure. `choose` selects one of a number of versions.
    fn after_failure(&self, mut choose: impl FnMut(usize) -> usize) -> Self {
        let mut cached = self.cached.clone();
        for (number, versions) in &self.unsynced {
            cached.insert(*number, versions[choose(versions.len())]);
        }
        Self { cached, ..Self::default() }
    }
}

impl Storage for Model {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let disk = self.0.lock().unwrap();
        for (number, within, part) in sectors_of(offset, buf.len()) {
            buf[part].copy_from_slice(&disk.sector(number)[within]);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().write(offset, buf);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_at(offset, &vec![0; usize::try_from(len).unwrap()])
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        self.punch(offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        if disk.broken {
            return Err(io::Error::other("broken"));
        }
        disk.unsynced.clear();
        Ok(())
    }
}

fn base_byte(sector: u64) -> u8 {
    0x80 | u8::try_from(sector).unwrap()
}

fn read_base(offset: u64, buf: &mut [u8]) -> io::Result<()> {
    for (at, byte) in (offset..).zip(buf) {
        *byte = base_byte(at / SECTOR);
    }
    Ok(())
}

fn open(disk: &Disk, boot: u128) -> Overlay<Model> {
    let model = Model(Mutex::new(disk.clone()));
    let header = read_header(&model, file_len(SIZE)).unwrap();
    Overlay::open(model, header.base().size, Uuid::from_u128(boot), true).unwrap()
}

/// The first byte of each sector of the device; all bytes of a sector have the same value.
fn contents(overlay: &Overlay<Model>) -> Vec<u8> {
    let mut buf = vec![0; usize::try_from(SIZE).unwrap()];
    overlay.read(0, &mut buf, read_base).unwrap();
    for sector in buf.chunks(LEN) {
        assert!(sector.iter().all(|byte| *byte == sector[0]), "a torn sector");
    }
    buf.iter().step_by(LEN).copied().collect()
}

/// A step of the work.
#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64, u8),
    Zero(u64, u64, bool),
    Discard(u64, u64),
    Flush,
    /// The server dies; the page cache survives.
    Kill,
    /// The power fails.
    Fail(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..SECTORS).prop_flat_map(|start| (Just(start), 1..=(SECTORS - start).min(9)));
    prop_oneof![
        6 => (range(), 1_u8..0x80).prop_map(|((start, len), value)| Step::Write(start, len, value)),
        1 => (range(), any::<bool>()).prop_map(|((start, len), keep)| Step::Zero(start, len, keep)),
        1 => range().prop_map(|(start, len)| Step::Discard(start, len)),
        2 => Just(Step::Flush),
        1 => Just(Step::Kill),
        1 => prop::collection::vec(any::<u8>(), 16).prop_map(Step::Fail),
    ]
}

/// The values that each sector may have.
struct Expected {
    /// The values that are read now.
    now: Vec<u8>,
    /// The values that a power failure may leave: the last flushed one, and all later ones.
    possible: Vec<BTreeSet<u8>>,
}

impl Expected {
    fn new(now: Vec<u8>) -> Self {
        let possible = now.iter().map(|byte| BTreeSet::from([*byte])).collect();
        Self { now, possible }
    }

    fn write(&mut self, sector: u64, value: u8) {
        let index = usize::try_from(sector).unwrap();
        self.now[index] = value;
        self.possible[index].insert(value);
    }
}

fn fresh_disk() -> Disk {
    let model = Model::default();
    format(&model, BaseIdentity { size: SIZE, digest: [0; 32] }, Uuid::from_u128(9)).unwrap();
    model.0.into_inner().unwrap()
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut boot = 1;
    let mut overlay = open(&fresh_disk(), boot);
    let mut expected = Expected::new((0..SECTORS).map(base_byte).collect());
    for step in steps {
        match step {
            Step::Write(start, len, value) => {
                let bytes = vec![*value; usize::try_from(len * SECTOR).unwrap()];
                overlay.write(start * SECTOR, &bytes).unwrap();
                (*start..start + len).for_each(|sector| expected.write(sector, *value));
            }
            Step::Zero(start, len, keep) => {
                overlay.write_zeros(start * SECTOR, len * SECTOR, *keep).unwrap();
                (*start..start + len).for_each(|sector| expected.write(sector, 0));
            }
            Step::Discard(start, len) => {
                overlay.discard(start * SECTOR, len * SECTOR).unwrap();
                for sector in *start..start + len {
                    // Sectors of the base have their own value, and keep it.
                    if expected.now[usize::try_from(sector).unwrap()] != base_byte(sector) {
                        expected.write(sector, 0);
                    }
                }
            }
            Step::Flush => {
                overlay.commit().unwrap();
                expected = Expected::new(expected.now);
            }
            Step::Kill => {
                let disk = overlay.storage.0.lock().unwrap().clone();
                overlay = open(&disk, boot);
            }
            Step::Fail(choices) => {
                let mut choices = choices.iter().cycle();
                let choose = |count| usize::from(*choices.next().unwrap()) % count;
                let disk = overlay.storage.0.lock().unwrap().after_failure(choose);
                boot += 1;
                overlay = open(&disk, boot);
                let found = contents(&overlay);
                for (sector, (found, possible)) in found.iter().zip(&expected.possible).enumerate()
                {
                    prop_assert!(
                        possible.contains(found),
                        "sector {sector} is {found:#x}, possible: {possible:x?}"
                    );
                }
                expected = Expected::new(found);
            }
        }
        prop_assert_eq!(&contents(&overlay), &expected.now, "after {:?}", step);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn nothing_flushed_is_lost_and_nothing_else_appears(
        steps in prop::collection::vec(step(), 1..50)
    ) {
        run(&steps)?;
    }
}

#[test]
fn the_model_loses_what_is_not_synced() {
    let overlay = open(&fresh_disk(), 1);
    overlay.write(0, &[7; LEN]).unwrap();
    let failed = overlay.storage.0.lock().unwrap().after_failure(|_| 0);
    assert_eq!(contents(&open(&failed, 2))[0], base_byte(0));
    overlay.commit().unwrap();
    let failed = overlay.storage.0.lock().unwrap().after_failure(|_| 0);
    assert_eq!(contents(&open(&failed, 2))[0], 7);
}

#[test]
fn the_death_of_the_process_loses_nothing_that_was_answered() {
    let overlay = open(&fresh_disk(), 1);
    overlay.write(SECTOR, &[7; LEN]).unwrap();
    overlay.write_zeros(3 * SECTOR, SECTOR, false).unwrap();
    let disk = overlay.storage.0.lock().unwrap().clone();
    let again = open(&disk, 1);
    assert_eq!(contents(&again)[..4], [base_byte(0), 7, base_byte(2), 0]);
    // The next flush also flushes what it finds, as if it had written that itself.
    again.commit().unwrap();
    let failed = again.storage.0.lock().unwrap().after_failure(|_| 0);
    assert_eq!(contents(&open(&failed, 2))[..4], [base_byte(0), 7, base_byte(2), 0]);
}

/// The data from an earlier boot is not what the sector holds, so its pending bit must not be
/// trusted again.
#[test]
fn pending_bits_of_an_earlier_boot_are_forgotten() {
    let overlay = open(&fresh_disk(), 1);
    overlay.write(0, &[7; LEN]).unwrap();
    let disk = overlay.storage.0.lock().unwrap().clone();
    let second = open(&disk, 2);
    assert_eq!(contents(&second)[0], base_byte(0));
    let layout = Layout::new(SIZE);
    let mut pending = vec![1; PAGE];
    second.storage.read_at(layout.pending(), &mut pending).unwrap();
    assert!(pending.iter().all(|byte| *byte == 0));
}

#[test]
fn a_failed_sync_is_not_forgotten() {
    let overlay = open(&fresh_disk(), 1);
    overlay.write(0, &[7; LEN]).unwrap();
    overlay.storage.0.lock().unwrap().broken = true;
    assert!(overlay.commit().is_err());
    overlay.storage.0.lock().unwrap().broken = false;
    assert!(overlay.commit().is_err(), "the kernel would report success");
    assert!(overlay.write(0, &[8; LEN]).is_err());
    assert_eq!(contents(&overlay)[0], 7, "reads still work");
}

#[test]
fn ranges_outside_of_the_device_are_refused() {
    let overlay = open(&fresh_disk(), 1);
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(overlay.write(SIZE, &[0; LEN])), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(overlay.write_zeros(0, u64::MAX, false)), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(overlay.discard(u64::MAX, 1)), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(overlay.write(1, &[0; LEN])), io::ErrorKind::InvalidInput);
    assert_eq!(kind(overlay.read(0, &mut [0; 1], read_base)), io::ErrorKind::InvalidInput);
}

#[test]
fn a_base_is_known_by_size_and_digest() {
    let header = Header::new(BaseIdentity { size: SIZE, digest: [1; 32] }, Uuid::nil());
    let check = |size, digest| check_base(&header, BaseIdentity { size, digest: [digest; 32] });
    assert!(check(SIZE, 1).is_ok());
    assert!(matches!(check(SIZE + SECTOR, 1), Err(OverlayError::BaseSize { .. })));
    assert!(matches!(check(SIZE, 2), Err(OverlayError::BaseDigest { .. })));
    let model = Model(Mutex::new(fresh_disk()));
    let short = read_header(&model, file_len(SIZE) - 1);
    assert!(matches!(short, Err(OverlayError::Truncated { .. })));
}
