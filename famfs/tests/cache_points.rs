// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When cache lines are written back and dropped: exactly what has changed, in an order that is
//! right on memory that is not coherent between hosts.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod common;
#[path = "common/formatting.rs"]
mod formatting;

use std::mem::offset_of;
use std::sync::Mutex;

use common::Pool;
use famfs::format::renumbering::RENUMBERING_OFFSET;
use famfs::format::{
    Body, ENTRY_LEN, EntryKind, LOG_OFFSET, Superblock, VOIDED_OFFSET, slot_offset,
};
use famfs::media::{Media, MediaError, PoolFile};
use famfs::replay::Contents;
use famfs::replay::compact::compact;
use famfs::store::log::Log;
use famfs::store::mkfs::{self, kill, mkfs};
use famfs::sys::dax::Access;

const MIB: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Store(u64, u64),
    WriteBack(u64, u64),
    Drop(u64, u64),
}
use Event::{Drop, Store, WriteBack};

/// An entry with any contents.
const EMPTY: (u32, Body) = (EntryKind::Mkdir as u32, [0; size_of::<Body>()]);

/// A pool file that records what is done to it.
struct Recorder {
    pool: PoolFile,
    events: Mutex<Vec<Event>>,
}

impl Recorder {
    fn note(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn taken(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock().unwrap())
    }
}

impl Media for Recorder {
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
        self.note(Store(offset, buf.len() as u64));
        self.pool.write_at(offset, buf)
    }

    fn persist(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        self.note(WriteBack(offset, len));
        self.pool.persist(offset, len)
    }

    fn refresh(&self, offset: u64, len: u64) -> Result<(), MediaError> {
        self.note(Drop(offset, len));
        self.pool.refresh(offset, len)
    }
}

fn formatted() -> (Pool, Recorder) {
    let pool = Pool::new(&[], 64 * MIB);
    let file = PoolFile::open(&pool.path, Access::Write).unwrap();
    let recorder = Recorder { pool: file, events: Mutex::default() };
    let options = mkfs::Options { log_len: Some(4 * MIB), ..formatting::options(true) };
    mkfs(&recorder, &options).unwrap();
    (pool, recorder)
}

#[test]
fn mkfs_writes_back_the_log_and_then_the_superblock() {
    let (_pool, recorder) = formatted();
    let events = recorder.taken();
    let at = |event| events.iter().rposition(|found| *found == event).unwrap();
    let (log, header) = (at(WriteBack(LOG_OFFSET, 4 * MIB)), at(WriteBack(LOG_OFFSET, 48)));
    let superblock = at(WriteBack(0, 2 * MIB));
    assert!(log < header && header < superblock, "{events:?}");
    let is_drop = |event: &Event| matches!(event, Drop(..));
    assert!(events[superblock + 1..].iter().all(is_drop), "nothing is stored behind it");
    kill(&recorder).unwrap();
    assert_eq!(recorder.taken(), [Store(0, 8), WriteBack(0, 8)]);
}

#[test]
fn an_append_writes_back_its_entries_and_then_the_index() {
    let (_pool, recorder) = formatted();
    let mut log = Log::open(&recorder, 4 * MIB).unwrap();
    recorder.taken();
    log.append(&[EMPTY, EMPTY]).unwrap();
    let entries = (slot_offset(0), 2 * ENTRY_LEN);
    let (seqnum, index) = (LOG_OFFSET + 32, LOG_OFFSET + 40);
    assert_eq!(
        recorder.taken(),
        [
            Store(entries.0, entries.1),
            WriteBack(entries.0, entries.1),
            Store(seqnum, 8),
            Store(index, 8),
            WriteBack(seqnum, 16),
        ]
    );
}

#[test]
fn a_bad_entry_is_dropped_from_the_cache_and_read_once_more() {
    let (_pool, recorder) = formatted();
    let mut log = Log::open(&recorder, 4 * MIB).unwrap();
    log.append(&[EMPTY, EMPTY]).unwrap();
    recorder.write_at(slot_offset(1) + 100, &[1]).unwrap();
    recorder.taken();
    assert!(Contents::read(&recorder).unwrap().plan.stopped.is_some());
    // Whether entries move: around the header, after the entries, and after the bad one. How large
    // the file system is: after the header. Whether published entries become void: around all.
    let (voided, moved) = (Drop(VOIDED_OFFSET, 8), Drop(RENUMBERING_OFFSET, 128));
    let size = Drop(offset_of!(Superblock, dev_size) as u64, 8);
    let bad = Drop(slot_offset(1), ENTRY_LEN);
    assert_eq!(recorder.taken(), [moved, moved, size, voided, moved, bad, moved, voided]);
}

#[test]
fn a_void_entry_is_one_store_that_is_written_back() {
    let (_pool, recorder) = formatted();
    let mut log = Log::open(&recorder, 4 * MIB).unwrap();
    log.append(&[EMPTY]).unwrap();
    recorder.taken();
    log.void(0).unwrap();
    let word = slot_offset(0) + 8;
    let written = || {
        let mut events = recorder.taken();
        events.retain(|event| !matches!(event, Drop(..)));
        events
    };
    assert_eq!(written(), [Store(word, 8), WriteBack(word, 8)]);
    assert_eq!(compact(&recorder, true).unwrap().slots, 1);
    assert_eq!(written(), [], "a dry run changes nothing");
}
