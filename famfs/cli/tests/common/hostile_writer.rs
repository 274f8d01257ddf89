// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plays a hostile guest that owns a pool's memory: it keeps changing superblock, log, lease and
//! data of a file system that others read and write, with right checksums as often as with wrong
//! ones.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use famfs::format::extension::EXTENSIONS_OFFSET;
use famfs::format::{
    ALLOC_UNIT, Body, EXT_INTERLEAVED, EXT_SIMPLE, Entry, EntryKind, FileBody, InterleavedMap,
    LEASE_OFFSET, LOG_OFFSET, MkdirBody, RawExtent, SUPERBLOCK_COPY_OFFSET, SimpleMap, slot_offset,
};
use famfs::write::prng::SeededBytes;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// Device offset of the log's next sequence number; the next index follows.
const COUNTERS: u64 = LOG_OFFSET + 32;
/// Number of entries in the log after which it starts again.
const MOST_ENTRIES: u64 = 3000;
/// What is restored now and then: everything before the lease's end, and the first entries.
const SAVED_HEAD: usize = 0x6000;
const SAVED_SLOTS: u64 = 64;

/// The writer.
pub struct HostileWriter {
    file: File,
    /// Where the device begins in the pool.
    origin: u64,
    /// Where data begins and ends on the device.
    data: (u64, u64),
    random: SeededBytes,
    /// A directory that names try to reach.
    target: String,
    head: Vec<u8>,
    log: Vec<u8>,
    next: u64,
    writes: u64,
}

impl HostileWriter {
    /// For a pool whose device begins at `origin`. Names that it makes up lead into `target` too.
    pub fn new(pool: &Path, origin: u64, target: &Path, seed: u32) -> Self {
        let file = OpenOptions::new().read(true).write(true).open(pool).unwrap();
        let len = file.metadata().unwrap().len() - origin;
        let read = |at: u64, count: usize| {
            let mut bytes = vec![0; count];
            file.read_exact_at(&mut bytes, origin + at).unwrap();
            bytes
        };
        let log_len = u64::from_le_bytes(read(24, 8).try_into().unwrap());
        let log = read(LOG_OFFSET, usize::try_from(slot_offset(SAVED_SLOTS) - LOG_OFFSET).unwrap());
        let next = u64::from_le_bytes(log[40..48].try_into().unwrap());
        Self {
            head: read(0, SAVED_HEAD),
            data: (LOG_OFFSET + log_len, len),
            random: SeededBytes::new(seed),
            target: target.to_str().unwrap().to_owned(),
            file,
            origin,
            log,
            next,
            writes: 0,
        }
    }

    /// How often it has written.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Does something, and pauses now and then.
    pub fn step(&mut self) {
        match self.below(100) {
            0..80 => self.append(),
            80..86 => {
                // The counters go back and forth.
                let next = self.edge();
                self.set_next(next);
                std::thread::sleep(Duration::from_millis(10));
                self.set_next(self.next);
            }
            86..92 => {
                // A bit of the log's header or of an entry.
                let at = LOG_OFFSET + self.below(48 + 544 * 20);
                self.flip(at, Duration::from_millis(5), false);
            }
            92..97 => {
                // Superblock, its copy, the lease, the mark of extensions.
                let parts = [0, LEASE_OFFSET, SUPERBLOCK_COPY_OFFSET, EXTENSIONS_OFFSET];
                let at = parts[self.pick(4)] + self.below(200);
                self.flip(at, Duration::from_millis(10), true);
            }
            _ => self.restore(),
        }
        self.writes += 1;
        if self.writes.is_multiple_of(50) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Restores the contents of the beginning.
    pub fn restore(&self) {
        self.put(0, &self.head);
        self.put(LOG_OFFSET, &self.log);
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, self.origin + at).unwrap();
    }

    fn set_next(&self, next: u64) {
        self.put(COUNTERS, [U64::new(next); 2].as_bytes());
    }

    fn flip(&mut self, at: u64, time: Duration, back: bool) {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, self.origin + at).unwrap();
        let flipped = byte[0] ^ (1 << self.below(8));
        self.put(at, &[flipped]);
        std::thread::sleep(time);
        if back {
            self.put(at, &byte);
        }
    }

    fn append(&mut self) {
        let mut counters = [0; 16];
        self.file.read_exact_at(&mut counters, self.origin + COUNTERS).unwrap();
        let next = u64::from_le_bytes(counters[8..].try_into().unwrap());
        if next > MOST_ENTRIES {
            return self.set_next(self.next);
        }
        let (kind, body) = self.entry();
        self.put(slot_offset(next), Entry::new(next, kind, body).as_bytes());
        self.set_next(next + 1);
    }

    fn entry(&mut self) -> (u32, Body) {
        let path = self.path();
        match self.below(20) {
            0..12 => (EntryKind::File as u32, self.file_body(path)),
            12..16 => {
                let mut body = MkdirBody::new_zeroed();
                body.path = path;
                body.mode = U32::new([0, 0o755, 0o7777, u32::MAX][self.pick(4)]);
                (EntryKind::Mkdir as u32, body.as_bytes().try_into().unwrap())
            }
            16..19 => {
                let mut body = [0; size_of::<Body>()];
                body[..8].copy_from_slice(&self.edge().to_le_bytes());
                body[8..88].copy_from_slice(&path);
                (EntryKind::Delete as u32, body)
            }
            _ => {
                let mut body = [0; size_of::<Body>()];
                self.random.fill(&mut body);
                let kind = EntryKind::ALL.get(self.pick(EntryKind::ALL.len() + 1));
                (kind.map_or(99, |kind| *kind as u32), body)
            }
        }
    }

    fn file_body(&mut self, path: [u8; 80]) -> Body {
        let mut body = FileBody::new_zeroed();
        body.path = path;
        body.size = U64::new(self.edge());
        body.uid = U32::new([0, 1000, u32::MAX][self.pick(3)]);
        body.mode = U32::new([0, 0o644, 0o6777, 0o177_777][self.pick(4)]);
        let mut extents = [RawExtent::new_zeroed(); 16];
        for extent in &mut extents {
            extent.offset = U64::new(self.offset());
            extent.len = U64::new([ALLOC_UNIT, 2 * ALLOC_UNIT, self.edge()][self.pick(3)]);
        }
        if self.below(3) > 0 {
            let mut map = SimpleMap::new_zeroed();
            map.count = U32::new([0, 1, 1, 1, 2, 16, 17, u32::MAX][self.pick(8)]);
            map.extents = extents;
            body.ext_type = U32::new(EXT_SIMPLE);
            body.map = map.as_bytes().try_into().unwrap();
        } else {
            let mut map = InterleavedMap::new_zeroed();
            map.count = U32::new([0, 1, 1, 1, 2, 1 << 31][self.pick(6)]);
            map.nstrips = U64::new([0, 1, 2, 16, 17, u64::MAX][self.pick(6)]);
            map.chunk_size = U64::new([0, 1, ALLOC_UNIT, self.edge()][self.pick(4)]);
            map.strips = extents;
            body.ext_type = U32::new(EXT_INTERLEAVED);
            body.map = map.as_bytes().try_into().unwrap();
        }
        body.as_bytes().try_into().unwrap()
    }

    /// A possible path, or an impossible one.
    fn path(&mut self) -> [u8; 80] {
        let usual = match self.below(3) {
            0 => format!("f{}", self.below(50)),
            1 => format!("d{}", self.below(5)),
            _ => format!("d{}/f{}", self.below(5), self.below(50)),
        };
        let (outside, long) = (format!("{}/escaped", self.target), "x".repeat(80));
        let bad: [&[u8]; 16] = [
            b"../escaped",
            b"../../escaped",
            outside.as_bytes(),
            b"d1/../../../escaped",
            b".meta/.log",
            b".meta/x",
            long.as_bytes(),
            &long.as_bytes()[..79],
            b"",
            b".",
            b"..",
            b"a\nb",
            b"\xff\xfe",
            b"a\x1b[2J",
            b"...",
            b"a/.meta/b",
        ];
        let name = if self.below(3) > 0 { usual.as_bytes() } else { bad[self.pick(16)] };
        let mut path = [0; 80];
        let length = name.len().min(80);
        path[..length].copy_from_slice(&name[..length]);
        path
    }

    /// An offset on the device, more often inside the data area than not.
    fn offset(&mut self) -> u64 {
        let (begin, end) = self.data;
        let unit = ALLOC_UNIT * self.below(24);
        [begin + unit, begin + unit, begin + unit, 0, end - ALLOC_UNIT, end, 1 << 63][self.pick(7)]
    }

    /// A number at an edge of its range.
    fn edge(&mut self) -> u64 {
        let edges = [0, 1, 4096, ALLOC_UNIT, ALLOC_UNIT + 1, self.next, 1 << 32, 1 << 62, u64::MAX];
        edges[self.pick(edges.len())]
    }

    fn below(&mut self, end: u64) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        u64::from_le_bytes(bytes) % end
    }

    fn pick(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).unwrap()
    }
}
