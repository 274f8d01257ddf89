// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A decoder of the media, written from `docs/reference/format.md` alone: it uses nothing of the
//! library, so that the two tell each other's faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const UNIT: u64 = 2 << 20;
const PAGE: u64 = 4096;
const ENTRY: usize = 544;
const MARK: u64 = 0x6000;

/// The root where a directory's slot is expected, and none elsewhere.
pub const NONE: u64 = u64::MAX;

/// A log entry whose sequence number and checksum are right.
#[derive(Clone)]
pub struct Entry {
    pub slot: u64,
    pub kind: u32,
    pub body: Vec<u8>,
}

/// A file of type 0.
#[derive(Clone, Debug)]
pub struct Conventional {
    pub path: Vec<u8>,
    pub size: u64,
    /// Extents or strips: offset and length.
    pub memory: Vec<(u64, u64)>,
    /// Bytes before the next strip, of an interleaved file.
    pub chunk: Option<u64>,
}

/// A pool that has passed the checks that the reference makes, too.
pub struct Media {
    path: PathBuf,
    pub len: u64,
    pub log_len: u64,
    pub entries: Vec<Entry>,
    pub marked: bool,
}

/// A field of some bytes.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// A field of some bytes.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Bytes up to the first NUL.
pub fn text_at(bytes: &[u8], at: usize, room: usize) -> Vec<u8> {
    let bytes = &bytes[at..at + room];
    bytes[..bytes.iter().position(|byte| *byte == 0).expect("a NUL")].to_vec()
}

/// A type of four letters.
pub const fn letters(name: [u8; 4]) -> u32 {
    u32::from_le_bytes(name)
}

/// CRC-32 as zlib has it, one bit after the other.
fn crc(bytes: &[u8]) -> u64 {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            0 => crc >> 1,
            _ => (crc >> 1) ^ 0xedb8_8320,
        })
    });
    u64::from(!crc)
}

impl Media {
    /// Reads superblock, log and mark.
    pub fn read(pool: &Path) -> Self {
        let file = File::open(pool).unwrap();
        let len = file.metadata().unwrap().len();
        let get = |at, len| {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, at).unwrap();
            bytes
        };
        let superblock = get(0, 200);
        let fields = [0, 8, 16, 32].map(|at| u64_at(&superblock, at));
        assert_eq!(fields, [0x87b2_82ff, 48, UNIT, UNIT]);
        assert_eq!((u32_at(&superblock, 40), u32_at(&superblock, 44)), (2, 2));
        assert_eq!(u64_at(&superblock, 96), crc(&superblock[..96]));
        assert_eq!(u64_at(&superblock, 112), len);
        let log_len = u64_at(&superblock, 24);

        let header = get(UNIT, 48);
        let last = (log_len - 48) / ENTRY as u64 - 1;
        let fields = [0, 8, 16, 24].map(|at| u64_at(&header, at));
        assert_eq!(fields, [0xbad_cafe_f00d, log_len, last, crc(&header[..24])]);
        let (next_seqnum, next_index) = (u64_at(&header, 32), u64_at(&header, 40));
        assert!(next_seqnum == next_index && next_index <= last + 1, "{next_seqnum} {next_index}");
        let entries = (0..next_index).map(|slot| {
            let bytes = get(UNIT + 48 + ENTRY as u64 * slot, ENTRY);
            assert_eq!(u64_at(&bytes, 0), slot, "sequence number");
            assert_eq!(u64_at(&bytes, 536), crc(&bytes[..536]), "checksum of slot {slot}");
            Entry { slot, kind: u32_at(&bytes, 8), body: bytes[16..536].to_vec() }
        });
        let entries = entries.collect();
        let mark = get(MARK, 40);
        let marked = mark[..8] == *b"FAMFSEXT";
        match marked {
            true => assert_eq!(
                (u32_at(&mark, 8), &mark[16..32], u64_at(&mark, 32)),
                (1, &superblock[48..64], crc(&mark[..32]))
            ),
            false => assert!(mark.iter().all(|byte| *byte == 0), "a part of a mark"),
        }
        Self { path: pool.into(), len, log_len, entries, marked }
    }

    /// Bytes of the device. It is not kept open: `compact` refuses a pool that others may read.
    pub fn bytes(&self, at: u64, buf: &mut [u8]) {
        File::open(&self.path).unwrap().read_exact_at(buf, at).unwrap();
    }

    /// The types of entries, letters as text, others as numbers.
    pub fn kinds(&self) -> BTreeSet<String> {
        let name = |entry: &Entry| match entry.kind {
            number @ 0..=4 => number.to_string(),
            letters => String::from_utf8_lossy(&letters.to_le_bytes()).into_owned(),
        };
        self.entries.iter().map(name).collect()
    }

    /// The files of type 0, by slot. What is behind their last field is zero.
    pub fn files(&self) -> BTreeMap<u64, Conventional> {
        let files = self.entries.iter().filter(|entry| entry.kind == 0);
        files.map(|entry| (entry.slot, conventional(&entry.body))).collect()
    }

    /// What a reader that knows only types 0 and 1 finds: files that lie in the device, in units
    /// that nobody else has, below directories that come before them. Returns the units in use.
    pub fn reference_view(&self) -> u64 {
        let mut bitmap = vec![false; usize::try_from(self.len / UNIT).unwrap()];
        let taken = (UNIT + self.log_len) / UNIT;
        bitmap[..usize::try_from(taken).unwrap()].fill(true);
        let mut names = BTreeSet::from([Vec::new()]);
        for entry in &self.entries {
            let path = match entry.kind {
                0 => {
                    let file = conventional(&entry.body);
                    let needed = file.size.div_ceil(UNIT);
                    let mut held = 0;
                    for (offset, len) in file.memory {
                        assert!(offset % UNIT == 0 && len % UNIT == 0 && len > 0, "{offset:#x}");
                        assert!(offset + len <= self.len, "slot {} is outside", entry.slot);
                        for unit in offset / UNIT..(offset + len) / UNIT {
                            let bit = &mut bitmap[usize::try_from(unit).unwrap()];
                            assert!(!*bit, "slot {}: unit {unit} is taken", entry.slot);
                            *bit = true;
                        }
                        held += len / UNIT;
                    }
                    assert!(held >= needed, "slot {}: too short", entry.slot);
                    file.path
                }
                1 => text_at(&entry.body, 12, 80),
                // Skipped, as any type that it does not know.
                _ => continue,
            };
            assert!(!path.is_empty() && path[0] != b'/', "slot {}", entry.slot);
            let parent = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            assert!(names.contains(&path[..parent]), "slot {} has no directory", entry.slot);
            names.insert(path);
        }
        bitmap.iter().filter(|used| **used).count() as u64 - taken
    }

    /// Checks that everything that extension entries hold is in files of the store, and that no two
    /// of them hold the same page. Returns the number of these pages.
    pub fn store_pages(&self) -> u64 {
        let files = self.files();
        let mut held = BTreeSet::new();
        for (_, pieces) in self.pieces() {
            for piece in pieces {
                let store = files.get(&piece.slot).expect("a file that holds the bytes");
                assert!(store.path.starts_with(b".famfs/"), "{store:?}");
                let end = (piece.page + piece.pages) * PAGE;
                assert!(piece.pages > 0 && end <= store.size.next_multiple_of(PAGE), "{store:?}");
                for page in piece.page..piece.page + piece.pages {
                    assert!(held.insert((piece.slot, page)), "page {page} of {store:?} twice");
                }
            }
        }
        held.len() as u64
    }

    /// The pieces of each name that is a file, by slot.
    pub fn pieces(&self) -> BTreeMap<u64, Vec<Piece>> {
        let (mut found, mut lists) = (BTreeMap::new(), Vec::new());
        for entry in &self.entries {
            if entry.kind == letters(*b"LIST") {
                lists.push(entry.body[..512].to_vec());
                continue;
            }
            let before = std::mem::take(&mut lists);
            if entry.kind == letters(*b"NAME") && u32_at(&entry.body, 28) == 1 {
                let raw = tail(&entry.body, &before, 32);
                found.insert(entry.slot, raw.chunks(32).map(Piece::of).collect());
            }
        }
        found
    }
}

/// What is in a name or in the `LIST` entries right before it: `count` times so many bytes.
pub fn tail(body: &[u8], before: &[Vec<u8>], width: usize) -> Vec<u8> {
    let len = width * u32_at(body, 48) as usize;
    match u32_at(body, 44) {
        0 => body[312..312 + len].to_vec(),
        _ => {
            let needed = len.div_ceil(512);
            let mut bytes = before[before.len() - needed..].concat();
            assert!(bytes[len..].iter().all(|byte| *byte == 0), "a list with more in it");
            bytes.truncate(len);
            bytes
        }
    }
}

/// The body of an entry of type 0.
pub fn conventional(body: &[u8]) -> Conventional {
    let (size, path) = (u64_at(body, 0), text_at(body, 24, 80));
    assert!(size > 0 && u32_at(body, 8) == 2);
    let extent = |at: usize| {
        assert_eq!(u64_at(body, at), 0, "device");
        (u64_at(body, at + 8), u64_at(body, at + 16))
    };
    // The map is at 112.
    let (count, first, chunk) = match u32_at(body, 104) {
        0 => (u64::from(u32_at(body, 112)), 120, None),
        1 => {
            assert_eq!(u32_at(body, 112), 1);
            (u64_at(body, 120), 136, Some(u64_at(body, 128)))
        }
        other => panic!("map of type {other}"),
    };
    assert!((1..=16).contains(&count));
    let memory = (0..usize::try_from(count).unwrap()).map(|n| extent(first + 24 * n)).collect();
    Conventional { path, size, memory, chunk }
}

/// Pages of a file of the store as part of another file.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub slot: u64,
    pub page: u64,
    pub at: u64,
    pub pages: u64,
}

impl Piece {
    pub fn of(raw: &[u8]) -> Self {
        let [slot, page, at, pages] = [0, 8, 16, 24].map(|field| u64_at(raw, field));
        Self { slot, page, at, pages }
    }
}

impl Conventional {
    /// Where a byte of the file is, and how many bytes go on from there.
    pub fn place(&self, at: u64) -> (u64, u64) {
        if let Some(chunk) = self.chunk {
            let (number, strips) = (at / chunk, self.memory.len() as u64);
            let strip = self.memory[usize::try_from(number % strips).unwrap()];
            return (strip.0 + number / strips * chunk + at % chunk, chunk - at % chunk);
        }
        let mut before = 0;
        for (offset, len) in &self.memory {
            if at < before + len {
                return (offset + at - before, before + len - at);
            }
            before += len;
        }
        panic!("{at} is behind the end of {self:?}");
    }
}
