// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The famfs on-media format: superblock version 48, on-media format 2.2.
//!
//! Device map: `[0, 2 MiB)` superblock, `[2 MiB, 2 MiB + log length)` log, then data. Integers are
//! little-endian, UUIDs are in RFC 4122 byte order, a checksum is a zlib CRC-32 in 64 bits.
//! This file declares the bytes and computes their checksums. Whether they make sense is decided in
//! [`crate::store::superblock`], [`crate::store::log`] and [`crate::format::map`].

pub mod component;
pub mod extension;
pub mod fields;
pub mod map;
pub mod path;
pub mod piece;
pub mod references;
pub mod renumbering;
pub mod report;
mod short;
pub mod view;

use std::mem::offset_of;
use std::ops::Range;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The allocation unit in bytes: the size of a PMD mapping, and of the superblock's area.
pub const ALLOC_UNIT: u64 = 2 << 20;
/// Device offset of the log, a constant of the format.
pub const LOG_OFFSET: u64 = ALLOC_UNIT;
/// First bytes of a superblock.
pub const SUPERBLOCK_MAGIC: u64 = 0x87b2_82ff;
/// The only superblock version for which media of this format exist.
pub const SUPERBLOCK_VERSION: u64 = 48;
/// On-media format, major part; a different one may mean anything.
pub const OMF_MAJOR: u32 = 2;
/// On-media format, minor part; a higher one only adds entry types.
pub const OMF_MINOR: u32 = 2;
/// First bytes of a log.
pub const LOG_MAGIC: u64 = 0x0bad_cafe_f00d;
/// Longest path in an entry, in bytes, without its NUL.
pub const MAX_PATH: usize = 79;
/// Highest number of extents of a simple file and of strips of an interleaved one (array sizes).
pub const MAX_EXTENTS: usize = 16;
/// `flags` of every file entry: bit 1, "read-write on all hosts"; readers ignore it.
pub const FILE_FLAGS: u32 = 2;

/// The superblock, at device offset 0.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Superblock {
    /// [`SUPERBLOCK_MAGIC`]; zero after `mkfs --force --kill`.
    pub magic: U64,
    /// [`SUPERBLOCK_VERSION`].
    pub version: U64,

    /// [`LOG_OFFSET`].
    pub log_offset: U64,
    /// Length of the log in bytes, its header included.
    pub log_len: U64,

    /// [`ALLOC_UNIT`].
    pub alloc_unit: U64,
    /// [`OMF_MAJOR`].
    pub omf_major: U32,
    /// [`OMF_MINOR`].
    pub omf_minor: U32,

    /// Identity of the file system.
    pub fs_uuid: [u8; 16],

    /// Identity of the device.
    pub dev_uuid: [u8; 16],

    /// Identity of the system that made the file system: its master.
    pub system_uuid: [u8; 16],

    /// CRC-32 of the bytes before this field. What follows is not protected.
    pub crc: U64,
    /// Primary and secondary marks: defined, unused, and left unwritten by the reference's mkfs.
    pub flags: U32,
    /// Padding, possibly garbage.
    pub pad: U32,

    /// Size of the device in bytes.
    pub dev_size: U64,
    /// Never written by the reference, possibly garbage.
    pub dd_uuid: [u8; 16],
    /// Path of the device as given to mkfs, NUL-padded; without a NUL if it has 64 bytes.
    pub dev_name: [u8; 64],
}

/// Device offset of the [`Lease`]: in the superblock's 2 MiB, after the superblock, where the
/// reference neither reads nor writes, and after everything that block devices are probed for.
pub const LEASE_OFFSET: u64 = 0x4000;
/// First bytes of a lease: `FAMLEASE` as text.
pub const LEASE_MAGIC: u64 = u64::from_le_bytes(*b"FAMLEASE");

/// Which running system holds the master's role, at [`LEASE_OFFSET`]; not in the reference's
/// format.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Lease {
    /// [`LEASE_MAGIC`].
    pub magic: U64,
    /// Zero.
    pub pad: U64,

    /// Identity of the file system: a lease of an earlier one does not count.
    pub fs_uuid: [u8; 16],

    /// System UUID of the holder.
    pub system_uuid: [u8; 16],

    /// Machine UUID of the holder from its firmware, or zero.
    pub machine_uuid: [u8; 16],

    /// Which run of the holder: clones of one machine have different ones.
    pub boot_id: [u8; 16],

    /// CRC-32 of the bytes before this field.
    pub crc: U64,
    /// Zero; keeps the heartbeat out of the identity's cache line.
    pub rest: [u8; 40],

    /// Changes with every beat; zero if the lease is free. Not in the checksum: it is one store.
    pub heartbeat: U64,
}

/// Device offset of a number that is not zero while the host asks for the lease; not in the
/// reference's format. It has a cache line of its own.
pub const LEASE_REQUEST_OFFSET: u64 = LEASE_OFFSET + 192;

/// Device offset of the first [`Member`]; not in the reference's format.
pub const MEMBERS_OFFSET: u64 = 0x8000;
/// Number of members that there is room for.
pub const MAX_MEMBERS: u64 = 1024;
/// First bytes of a member: `FAMMEMBR` as text.
pub const MEMBER_MAGIC: u64 = u64::from_le_bytes(*b"FAMMEMBR");

/// What the second half of a member says, and how: its system follows entries into other slots.
pub const MEMBER_VERSION: u64 = 2;

/// A running system that follows the log, in the table at [`MEMBERS_OFFSET`]. Only that system
/// writes it: who it is in one cache line, and how far it has come in another.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Member {
    /// [`MEMBER_MAGIC`]; anything else if the place is free.
    pub magic: U64,
    /// System UUID.
    pub system_uuid: [u8; 16],
    /// Machine UUID from the firmware, or zero.
    pub machine_uuid: [u8; 16],
    /// Which run of it.
    pub boot_id: [u8; 16],
    /// CRC-32 of the file system's UUID and the bytes before this field: a member of an earlier
    /// file system does not count.
    pub crc: U64,

    /// Zero. Tools that do not follow entries into other slots have what is now `applied` here.
    pub old_applied: U64,
    /// Another number with each beat.
    pub heartbeat: U64,

    /// Zero. The same for `released`.
    pub old_released: U64,
    /// [`MEMBER_VERSION`]; what is below counts only then.
    pub version: U64,

    /// Its mount shows every entry below this slot: a [`numbered`] slot.
    pub applied: U64,
    /// Nothing there has a file open, mapped or pinned whose last name an entry below this slot
    /// removed: a [`numbered`] slot.
    pub released: U64,

    /// Zero.
    pub rest: [u8; 16],
}

/// A slot with the numbering that it is of, in one word, so that no store separates the two: the
/// low half of the numbering, then the slot. 0 if there are more slots than that.
pub fn numbered(numbering: u64, slot: u64) -> U64 {
    let slot = u32::try_from(slot).unwrap_or(0);
    U64::new(numbering << 32 | u64::from(slot))
}

/// The slot, if it is of a numbering.
pub fn slot_in(word: U64, numbering: u64) -> Option<u64> {
    let (found, slot) = (word.get() >> 32, word.get() & u64::from(u32::MAX));
    (found == numbering & u64::from(u32::MAX)).then_some(slot)
}

/// Device offset of a number of 8 bytes that changes whenever published entries become void; not
/// in the reference's format. It is odd while they do.
pub const VOIDED_OFFSET: u64 = 0x7000;

/// Device offset of a copy of the superblock that exists while the master changes; not in the
/// reference's format.
pub const SUPERBLOCK_COPY_OFFSET: u64 = 0x5000;

/// The log's header, at [`LOG_OFFSET`].
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LogHeader {
    /// [`LOG_MAGIC`].
    pub magic: U64,
    /// Length of the log in bytes, this header included.
    pub len: U64,

    /// Index of the last slot.
    pub last_index: U64,
    /// CRC-32 of the bytes before this field. What follows changes with every append.
    pub crc: U64,

    /// Sequence number of the next entry.
    pub next_seqnum: U64,
    /// Slot of the next entry; the entries below it are published.
    pub next_index: U64,
}

/// The body of a log entry, as bytes.
pub type Body = [u8; 520];

/// A log entry; see [`slot_offset`].
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Entry {
    /// Equal to the slot's index.
    pub seqnum: U64,
    /// An [`EntryKind`]; readers skip types they do not know.
    pub kind: U32,
    /// Zero.
    pub pad: U32,

    /// The body that the kind says, then zeros.
    pub body: Body,
    /// CRC-32 of the bytes before this field, padding included.
    pub crc: U64,
}

/// What a log entry is: [`Entry::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EntryKind {
    /// A file; its body is a [`FileBody`].
    File = 0,
    /// A directory; its body is a [`MkdirBody`].
    Mkdir = 1,
    /// A deletion. The reference reserves the number but defines no body; ours is [`DeleteBody`].
    /// The reference's tools skip the entry and keep showing the file.
    Delete = 2,
    /// A further device of the file system; its body is a [`DaxdevBody`].
    Daxdev = 3,
    /// An entry that no longer counts, "VOID" as text. `famfs compact` turns the entries of deleted
    /// files and their deletions into it. Every reader skips it as an unknown type.
    Void = u32::from_le_bytes(*b"VOID"),
    /// A name with a new file, directory or symbolic link; its body is an [`extension::NameBody`].
    /// This and the kinds below are known only in a file system that has [extensions](extension).
    Name = u32::from_le_bytes(*b"NAME"),
    /// A further name of a file; its body is an [`extension::LinkBody`].
    Link = u32::from_le_bytes(*b"LINK"),
    /// A change of attributes; its body is an [`extension::AttrBody`].
    Attr = u32::from_le_bytes(*b"ATTR"),
    /// A move of a name; its body is an [`extension::MoveBody`].
    Move = u32::from_le_bytes(*b"MOVE"),
    /// A removal of a name; its body is an [`extension::RemoveBody`].
    Remove = u32::from_le_bytes(*b"RMOV"),
    /// The head of entries that count together; its body is an [`extension::GroupBody`].
    Group = u32::from_le_bytes(*b"GRUP"),
    /// What does not fit into the name behind it; its body is an [`extension::ListBody`].
    List = u32::from_le_bytes(*b"LIST"),
}

impl EntryKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::File,
        Self::Mkdir,
        Self::Delete,
        Self::Daxdev,
        Self::Void,
        Self::Name,
        Self::Link,
        Self::Attr,
        Self::Move,
        Self::Remove,
        Self::Group,
        Self::List,
    ];

    /// The kind of an entry; `None` if later versions of the format have added it.
    pub fn of(entry: &Entry) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == entry.kind.get())
    }
}

/// The map of a file, as bytes.
pub type Map = [u8; 408];

/// Body of a file entry.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FileBody {
    /// Size in bytes, not zero.
    pub size: U64,
    /// [`FILE_FLAGS`].
    pub flags: U32,
    /// Owner.
    pub uid: U32,

    /// Group.
    pub gid: U32,
    /// Permission bits (`07777`).
    pub mode: U32,

    /// Path below the mount point, NUL-terminated.
    pub path: [u8; MAX_PATH + 1],

    /// [`EXT_SIMPLE`] or [`EXT_INTERLEAVED`].
    pub ext_type: U32,
    /// Zero.
    pub pad: U32,

    /// [`SimpleMap`] or [`InterleavedMap`].
    pub map: Map,
}

/// [`FileBody::ext_type`] of a list of extents.
pub const EXT_SIMPLE: u32 = 0;
/// [`FileBody::ext_type`] of a file striped over several ranges.
pub const EXT_INTERLEAVED: u32 = 1;

/// A range of a device.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RawExtent {
    /// Device: 0 is the primary one.
    pub devindex: U64,
    /// Offset in bytes.
    pub offset: U64,
    /// Length in bytes.
    pub len: U64,
}

/// A file's contents as extents, one after the other.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SimpleMap {
    /// Extents in use, 1 to 16.
    pub count: U32,
    /// Zero.
    pub pad: U32,
    /// The extents in file order.
    pub extents: [RawExtent; MAX_EXTENTS],
    /// Zero.
    pub rest: [u8; 16],
}

/// A file's contents in chunks, in turn over the strips.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InterleavedMap {
    /// Interleaved extents: 1.
    pub count: U32,
    /// Zero.
    pub pad: U32,
    /// Strips in use, 1 to 16.
    pub nstrips: U64,
    /// Bytes that go to one strip before the next strip.
    pub chunk_size: U64,
    /// The strips in data order, all of one length.
    pub strips: [RawExtent; MAX_EXTENTS],
}

/// Body of a directory entry.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MkdirBody {
    /// Owner.
    pub uid: U32,
    /// Group.
    pub gid: U32,
    /// Permission bits (`07777`).
    pub mode: U32,
    /// Path below the mount point, NUL-terminated.
    pub path: [u8; MAX_PATH + 1],
    /// Zero.
    pub rest: [u8; 428],
}

/// Body of a deletion. It names its target by slot and path, so that it cannot hit anything else if
/// a path is used again or a log is moved.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DeleteBody {
    /// Slot of the entry of the file or directory.
    pub slot: U64,
    /// Path of it, NUL-terminated.
    pub path: [u8; MAX_PATH + 1],
    /// Zero.
    pub rest: [u8; 432],
}

/// Body of an entry that adds a device; nothing reads it yet.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DaxdevBody {
    /// Size of the device in bytes.
    pub size: U64,
    /// Identity of the device.
    pub uuid: [u8; 16],
    /// Index that extents use for it, from 1.
    pub index: U32,
    /// Zero.
    pub pad: U32,
    /// Zero.
    pub rest: [u8; 488],
}

/// A superblock, as bytes.
pub type SuperblockBytes = [u8; size_of::<Superblock>()];
/// Size in bytes of a log header.
pub const LOG_HEADER_LEN: u64 = size_of::<LogHeader>() as u64;
/// Size in bytes of a log entry.
pub const ENTRY_LEN: u64 = size_of::<Entry>() as u64;

const _: () = {
    assert!(size_of::<Superblock>() == 200);
    assert!(offset_of!(Superblock, fs_uuid) == 48);
    assert!(offset_of!(Superblock, crc) == 96);
    assert!(offset_of!(Superblock, dev_size) == 112);
    assert!(offset_of!(Superblock, dev_name) == 136);
    assert!(size_of::<Lease>() == 136);
    assert!(offset_of!(Lease, system_uuid) == 32);
    assert!(offset_of!(Lease, crc) == 80);
    assert!(offset_of!(Lease, heartbeat) == 128);
    assert!(
        LEASE_OFFSET.is_multiple_of(64) && LEASE_OFFSET + (size_of::<Lease>() as u64) < ALLOC_UNIT
    );
    assert!(size_of::<LogHeader>() == 48);
    assert!(offset_of!(LogHeader, crc) == 24);
    assert!(offset_of!(LogHeader, next_index) == 40);
    assert!(size_of::<Entry>() == 544);
    assert!(offset_of!(Entry, body) == 16);
    assert!(offset_of!(Entry, crc) == 536);
    assert!(size_of::<FileBody>() == size_of::<Body>());
    assert!(offset_of!(FileBody, path) == 24);
    assert!(offset_of!(FileBody, ext_type) == 104);
    assert!(offset_of!(FileBody, map) == 112);
    assert!(size_of::<RawExtent>() == 24);
    assert!(size_of::<SimpleMap>() == size_of::<Map>());
    assert!(offset_of!(SimpleMap, extents) == 8);
    assert!(size_of::<InterleavedMap>() == size_of::<Map>());
    assert!(offset_of!(InterleavedMap, strips) == 24);
    assert!(size_of::<MkdirBody>() == size_of::<Body>());
    assert!(offset_of!(MkdirBody, path) == 12);
    assert!(size_of::<DeleteBody>() == size_of::<Body>());
    assert!(offset_of!(DeleteBody, path) == 8);
    assert!(size_of::<DaxdevBody>() == size_of::<Body>());
};

/// Whether all bytes are zero. It looks at all of them, because that is faster than to stop at each
/// to find out.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |any, byte| any | byte) == 0
}

/// The format's checksum of `bytes`.
fn crc64(bytes: &[u8]) -> u64 {
    crc32fast::hash(bytes).into()
}

impl Superblock {
    /// The bytes in which the superblocks of two masters differ: system UUID and checksum.
    pub const OF_MASTER: Range<usize> = offset_of!(Self, system_uuid)..offset_of!(Self, flags);

    /// The right value of [`Superblock::crc`].
    pub fn checksum(&self) -> u64 {
        crc64(&self.as_bytes()[..offset_of!(Self, crc)])
    }
}

impl Lease {
    /// The right value of [`Lease::crc`].
    pub fn checksum(&self) -> u64 {
        crc64(&self.as_bytes()[..offset_of!(Self, crc)])
    }
}

impl Member {
    /// The right value of [`Member::crc`] in a file system.
    pub fn checksum(&self, fs_uuid: &[u8; 16]) -> u64 {
        let mut bytes = fs_uuid.to_vec();
        bytes.extend_from_slice(&self.as_bytes()[..offset_of!(Self, crc)]);
        crc64(&bytes)
    }
}

impl LogHeader {
    /// The right value of [`LogHeader::crc`].
    pub fn checksum(&self) -> u64 {
        crc64(&self.as_bytes()[..offset_of!(Self, crc)])
    }
}

impl Entry {
    /// The bytes of `kind` and `pad`, one aligned word.
    pub const KIND_AND_PAD: Range<usize> = offset_of!(Self, kind)..offset_of!(Self, body);

    /// An entry with its checksum.
    pub fn new(seqnum: u64, kind: u32, body: Body) -> Self {
        let mut entry = Self {
            seqnum: U64::new(seqnum),
            kind: U32::new(kind),
            pad: U32::ZERO,
            body,
            crc: U64::ZERO,
        };
        entry.crc = U64::new(entry.checksum());
        entry
    }

    /// The right value of [`Entry::crc`].
    pub fn checksum(&self) -> u64 {
        crc64(&self.as_bytes()[..offset_of!(Self, crc)])
    }

    /// `kind` and `pad` that make the entry void and keep its checksum right: one store of eight
    /// bytes, and so atomic.
    ///
    /// Four bytes after a change can undo its effect on a CRC-32, because the register takes them
    /// by exclusive or. So the padding becomes the difference of the registers before it.
    pub fn voided(&self) -> [u8; 8] {
        let mut void = *self;
        void.kind = U32::new(EntryKind::Void as u32);
        let before = |entry: &Self| crc32fast::hash(&entry.as_bytes()[..offset_of!(Self, pad)]);
        void.pad = U32::new(before(self) ^ before(&void) ^ self.pad.get());
        let mut word = [0; 8];
        word.copy_from_slice(&void.as_bytes()[Self::KIND_AND_PAD]);
        word
    }
}

/// Number of slots in a log of `log_len` bytes.
pub fn slots(log_len: u64) -> u64 {
    log_len.saturating_sub(LOG_HEADER_LEN) / ENTRY_LEN
}

/// Device offset of log slot `index`.
pub fn slot_offset(index: u64) -> u64 {
    LOG_OFFSET + LOG_HEADER_LEN + ENTRY_LEN * index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_void_entry_keeps_its_checksum() {
        for seqnum in [0, 1, u64::MAX] {
            for kind in [EntryKind::File as u32, EntryKind::Delete as u32, 77] {
                let body: Body = [kind.to_le_bytes()[0]; size_of::<Body>()];
                let mut entry = Entry::new(seqnum, kind, body);
                let word = entry.voided();
                entry.as_mut_bytes()[Entry::KIND_AND_PAD].copy_from_slice(&word);
                assert_eq!(EntryKind::of(&entry), Some(EntryKind::Void));
                assert_eq!(entry.checksum(), entry.crc.get());
            }
        }
    }

    #[test]
    fn last_slot_of_each_log_length() {
        let mib = 1 << 20;
        for (len, last_index) in [
            (8, 15419),
            (16, 30839),
            (32, 61679),
            (64, 123_360),
            (128, 246_722),
            (256, 493_446),
            (512, 986_893),
            (1024, 1_973_789),
        ] {
            assert_eq!(slots(len * mib), last_index + 1, "{len} MiB");
        }
        assert_eq!(slots(0), 0);
    }
}
