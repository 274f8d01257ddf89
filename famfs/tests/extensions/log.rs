// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes logs with extension entries, right ones and wrong ones.

use famfs::format::extension::{
    AttrBody, GroupBody, KIND_DIR, KIND_FILE, KIND_SYMLINK, LIST_LEN, LinkBody, ListBody, MoveBody,
    NO_ENTRY, NameBody, PLACE_LIST, RawPiece, RemoveBody, TAIL_LEN,
};
use famfs::format::map::{Extent, FileMap};
use famfs::format::piece::Piece;
use famfs::format::{ALLOC_UNIT, Body, DeleteBody, EntryKind, FileBody, LOG_OFFSET, MkdirBody};
use famfs::media::Media;
use famfs::media::in_memory::InMemory;
use famfs::replay::Contents;
use famfs::store::log::Log;
use famfs::store::mkfs::mkfs;

use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use crate::formatting;

/// Size of the device.
pub const DEVICE_LEN: u64 = 256 << 20;
/// Pages of an allocation unit.
pub const UNIT_PAGES: u64 = 512;

/// A file system with extensions, whose log is being written.
pub struct ExtendedLog {
    pub media: InMemory,
    pub log_len: u64,
    /// Where the next conventional file begins.
    pub free: u64,
    /// Number of entries.
    pub next: u64,
}

impl ExtendedLog {
    /// An empty file system, with or without the mark.
    pub fn new(marked: bool) -> Self {
        let media = InMemory::new(DEVICE_LEN);
        let made = mkfs(&media, &formatting::options(marked)).unwrap();
        Self { media, log_len: made.log_len, free: made.data_start(), next: 0 }
    }

    /// Reads it as every reader does.
    pub fn contents(&self) -> Contents<'_> {
        Contents::read(&self.media).unwrap()
    }

    /// Shows only the first entries to readers.
    pub fn cut(&self, entries: u64) {
        let word = entries.to_le_bytes();
        for offset in [32, 40] {
            self.media.write_at(LOG_OFFSET + offset, &word).unwrap();
        }
    }

    /// Appends an entry; its slot.
    pub fn push(&mut self, kind: EntryKind, body: &[u8]) -> u64 {
        let body: Body = body.try_into().unwrap();
        let mut log = Log::open(&self.media, self.log_len).unwrap();
        log.append(&[(kind as u32, body)]).unwrap();
        self.next += 1;
        self.next - 1
    }

    /// Appends several entries at once.
    pub fn append(&mut self, entries: &[(u32, Body)]) {
        let mut log = Log::open(&self.media, self.log_len).unwrap();
        log.append(entries).unwrap();
        self.next += entries.len() as u64;
    }

    /// Appends a conventional directory.
    pub fn mkdir(&mut self, path: &str) -> u64 {
        let mut body = MkdirBody::new_zeroed();
        body.mode = U32::new(0o755);
        body.path[..path.len()].copy_from_slice(path.as_bytes());
        self.push(EntryKind::Mkdir, body.as_bytes())
    }

    /// Appends a conventional file of some units, simple or interleaved.
    pub fn file(&mut self, path: &str, units: u64, strips: u64) -> u64 {
        let len = units * ALLOC_UNIT;
        let extent = |n: u64| Extent { offset: self.free + n * len, len };
        let map = match strips {
            0 => FileMap::Simple(extent(0).into()),
            _ => FileMap::Interleaved {
                chunk_size: ALLOC_UNIT,
                strips: (0..strips).map(extent).collect(),
            },
        };
        self.free += len * strips.max(1);
        let mut body = FileBody::new_zeroed();
        body.size = U64::new(len * strips.max(1));
        body.flags = U32::new(2);
        body.mode = U32::new(0o644);
        body.path[..path.len()].copy_from_slice(path.as_bytes());
        map.encode(&mut body);
        self.push(EntryKind::File, body.as_bytes())
    }

    /// Appends a deletion of what a conventional entry made.
    pub fn delete(&mut self, slot: u64, path: &str) -> u64 {
        let mut body = DeleteBody::new_zeroed();
        body.slot = U64::new(slot);
        body.path[..path.len()].copy_from_slice(path.as_bytes());
        self.push(EntryKind::Delete, body.as_bytes())
    }

    /// Appends the directory of the store.
    pub fn store(&mut self) -> u64 {
        self.mkdir(".famfs")
    }

    /// Appends a name.
    pub fn name(&mut self, body: &NameBody) -> u64 {
        self.push(EntryKind::Name, body.as_bytes())
    }

    /// Appends what does not fit into the name behind it; the slot of the last of these entries.
    pub fn lists(&mut self, bytes: &[u8]) -> u64 {
        for part in bytes.chunks(LIST_LEN) {
            self.push(EntryKind::List, list(part).as_bytes());
        }
        self.next - 1
    }
}

/// A name without contents.
fn name_body(parent: u64, name: &[u8], kind: u32) -> NameBody {
    let mut body = NameBody::new_zeroed();
    body.parent = U64::new(parent);
    body.kind = U32::new(kind);
    body.uid = U32::new(1000);
    body.gid = U32::new(100);
    body.mode = U32::new(0o750);
    body.mtime_sec = I64::new(-5);
    body.mtime_nsec = U32::new(999_999_999);
    body.name[..name.len()].copy_from_slice(name);
    body
}

/// A directory.
pub fn dir(parent: u64, name: &[u8]) -> NameBody {
    name_body(parent, name, KIND_DIR)
}

/// A file with its pieces in the entry.
pub fn file(parent: u64, name: &[u8], size: u64, pieces: &[Piece]) -> NameBody {
    let mut body = name_body(parent, name, KIND_FILE);
    body.size = U64::new(size);
    body.count = U32::new(u32::try_from(pieces.len()).unwrap());
    let raw: Vec<RawPiece> = pieces.iter().map(|piece| piece.to_raw()).collect();
    body.tail[..32 * raw.len()].copy_from_slice(raw.as_bytes());
    body
}

/// A symbolic link with its target in the entry.
pub fn symlink(parent: u64, name: &[u8], target: &[u8]) -> NameBody {
    let mut body = name_body(parent, name, KIND_SYMLINK);
    body.size = U64::new(target.len() as u64);
    body.count = U32::new(u32::try_from(target.len()).unwrap());
    body.tail[..target.len()].copy_from_slice(target);
    body
}

/// The same name with its pieces or target in entries before it.
pub fn listed(mut body: NameBody, count: u32) -> NameBody {
    body.place = U32::new(PLACE_LIST);
    body.count = U32::new(count);
    body.tail = [0; TAIL_LEN];
    body
}

/// The same symbolic link with a target of so many bytes in entries before it.
pub fn far(mut body: NameBody, len: u32) -> NameBody {
    body.size = U64::new(len.into());
    listed(body, len)
}

/// An entry with pieces or a part of a target.
pub fn list(bytes: &[u8]) -> ListBody {
    let mut body = ListBody::new_zeroed();
    body.bytes[..bytes.len()].copy_from_slice(bytes);
    body
}

/// A hard link.
pub fn link(target: u64, parent: u64, name: &[u8]) -> LinkBody {
    let mut body = LinkBody::new_zeroed();
    body.target = U64::new(target);
    body.parent = U64::new(parent);
    body.name[..name.len()].copy_from_slice(name);
    body
}

/// A change of attributes.
pub fn attributes(target: u64, mask: u32, number: u32) -> AttrBody {
    let mut body = AttrBody::new_zeroed();
    body.target = U64::new(target);
    body.mask = U32::new(mask);
    body.mode = U32::new(number % 0o10000);
    body.uid = U32::new(number + 1);
    body.gid = U32::new(number + 2);
    body.mtime_sec = I64::new(number.into());
    body.mtime_nsec = U32::new(number % 1_000_000_000);
    body
}

/// A move, which replaces what a slot made if that is not none.
pub fn moved(name_slot: u64, parent: u64, name: &[u8], replaces: Option<u64>) -> MoveBody {
    let mut body = MoveBody::new_zeroed();
    body.name_slot = U64::new(name_slot);
    body.parent = U64::new(parent);
    body.replaces = U64::new(replaces.unwrap_or(NO_ENTRY));
    body.name[..name.len()].copy_from_slice(name);
    body
}

/// A removal.
pub fn removal(name_slot: u64) -> RemoveBody {
    let mut body = RemoveBody::new_zeroed();
    body.name_slot = U64::new(name_slot);
    body
}

/// The head of a group.
pub fn group(count: u64) -> GroupBody {
    let mut body = GroupBody::new_zeroed();
    body.count = U64::new(count);
    body
}
