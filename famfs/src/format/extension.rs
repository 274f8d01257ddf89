// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The extensions of the format: long names, links, times, moves, and files of any size in pieces
//! of 4 KiB. They are entry types of their own in the slots of the log, which the reference's
//! tools skip; `docs/reference/format.md` has the rules.
//!
//! An extension entry never owns space. The bytes of extended files lie in file entries with short
//! paths below [`STORE_DIR`], so that a reader that knows nothing of extensions still knows what
//! is taken.

use std::mem::offset_of;

use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::format::{ALLOC_UNIT, Body, SUPERBLOCK_COPY_OFFSET, Superblock, crc64};

/// Unit of a file's pieces in bytes: a page.
pub const PAGE: u64 = 4096;
/// Directory of the file entries that hold the bytes of extended files. It and all that is in it
/// has no place in the tree.
pub const STORE_DIR: &str = ".famfs";
/// Longest component of a path in bytes: `NAME_MAX` of POSIX systems.
pub const MAX_COMPONENT: usize = 255;
/// Longest path in bytes: `PATH_MAX` without its NUL.
pub const MAX_LONG_PATH: usize = 4095;
/// Longest target of a symbolic link in bytes, for the same reason.
pub const MAX_TARGET: u32 = 4095;
/// Most pieces of a file.
pub const MAX_PIECES: u32 = 65_536;
/// Most pieces in the name's entry itself.
pub const ENTRY_PIECES: usize = 6;
/// Pieces in a [`ListBody`].
pub const LIST_PIECES: u32 = 16;
/// Stands for the slot of the root directory, which has no entry, and for no slot at all.
pub const NO_ENTRY: u64 = u64::MAX;

/// Device offset of [`Extensions`], behind the lease and the copy of the superblock.
pub const EXTENSIONS_OFFSET: u64 = 0x6000;
/// First bytes of [`Extensions`]: `FAMFSEXT` as text.
pub const EXTENSIONS_MAGIC: u64 = u64::from_le_bytes(*b"FAMFSEXT");
/// The version of the extensions that this file describes.
pub const EXTENSIONS_VERSION: u32 = 1;

/// Says that a file system has extensions, at [`EXTENSIONS_OFFSET`]; ours alone. Without it, the
/// kinds of entries whose bodies are here are unknown ones.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Extensions {
    /// [`EXTENSIONS_MAGIC`].
    pub magic: U64,
    /// [`EXTENSIONS_VERSION`]; readers refuse any other one.
    pub version: U32,
    /// Zero.
    pub pad: U32,

    /// Identity of the file system: what an earlier one left does not count.
    pub fs_uuid: [u8; 16],

    /// CRC-32 of the bytes before this field.
    pub crc: U64,
}

/// Body of a new name and what it names.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NameBody {
    /// Slot of the directory that it is in; [`NO_ENTRY`] is the root.
    pub parent: U64,
    /// Size of a file in bytes; of a symbolic link, bytes of its target; zero of a directory.
    pub size: U64,

    /// Time of the last change of its contents: seconds since 1970.
    pub mtime_sec: I64,
    /// Nanoseconds of it, below 10^9.
    pub mtime_nsec: U32,
    /// [`KIND_FILE`], [`KIND_DIR`] or [`KIND_SYMLINK`].
    pub kind: U32,

    /// Owner.
    pub uid: U32,
    /// Group.
    pub gid: U32,
    /// Permission bits (`07777`).
    pub mode: U32,
    /// [`PLACE_ENTRY`] or [`PLACE_LIST`]: where pieces or target are.
    pub place: U32,

    /// Pieces of a file, or bytes of a target; zero of a directory.
    pub count: U32,
    /// Zero.
    pub pad: U32,

    /// The component, NUL-terminated, zero behind it.
    pub name: [u8; MAX_COMPONENT + 1],

    /// [`PiecesTail`] or the target; zero behind it.
    pub tail: [u8; TAIL_LEN],
}

/// Bytes of [`NameBody::tail`]; a target of so many bytes is in the entry.
pub const TAIL_LEN: usize = 208;

/// [`NameBody::kind`] of a file.
pub const KIND_FILE: u32 = 1;
/// [`NameBody::kind`] of a directory.
pub const KIND_DIR: u32 = 2;
/// [`NameBody::kind`] of a symbolic link.
pub const KIND_SYMLINK: u32 = 3;

/// [`NameBody::place`]: pieces or target are in the tail.
pub const PLACE_ENTRY: u32 = 0;
/// [`NameBody::place`]: pieces or target are in the [`ListBody`]s right before this entry.
pub const PLACE_LIST: u32 = 1;

/// A piece of a file. What no piece holds reads as zeros.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RawPiece {
    /// Slot of the file entry that holds the bytes.
    pub slot: U64,
    /// First page of that entry's file.
    pub page: U64,

    /// First page of the file that the piece belongs to.
    pub at: U64,
    /// Number of pages.
    pub pages: U64,
}

/// Tail of a file with few pieces.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PiecesTail {
    /// The pieces in the order of the file.
    pub pieces: [RawPiece; ENTRY_PIECES],
    /// Zero.
    pub rest: [u8; 16],
}

/// Body of an entry with pieces or a part of a target, for the name behind it. All that belong to a
/// name are in the slots right before it, and full except for the last one.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListBody {
    /// An array of [`RawPiece`], or a part of a target; zero behind the last one.
    pub bytes: ListBytes,
    /// Zero.
    pub rest: [u8; 8],
}

/// Bytes of [`ListBody::bytes`].
pub const LIST_LEN: usize = 512;
/// What a [`ListBody`] holds.
pub type ListBytes = [u8; LIST_LEN];
/// Most [`ListBody`]s of a name.
pub const MAX_LISTS: usize = (MAX_PIECES / LIST_PIECES) as usize;

/// Body of a hard link.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LinkBody {
    /// Slot that made the file.
    pub target: U64,
    /// Slot of the directory that the new name is in; [`NO_ENTRY`] is the root.
    pub parent: U64,

    /// The component, NUL-terminated, zero behind it.
    pub name: [u8; MAX_COMPONENT + 1],
    /// Zero.
    pub rest: [u8; 248],
}

/// Body of a change of attributes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AttrBody {
    /// Slot that made what is changed; [`NO_ENTRY`] is the root.
    pub target: U64,
    /// Which of the following count: `SET_*`.
    pub mask: U32,
    /// Permission bits (`07777`).
    pub mode: U32,

    /// Owner.
    pub uid: U32,
    /// Group.
    pub gid: U32,
    /// Seconds of the time of the last change.
    pub mtime_sec: I64,

    /// Nanoseconds of it, below 10^9.
    pub mtime_nsec: U32,
    /// Zero.
    pub pad: U32,
    /// Zero.
    pub rest: [u8; 480],
}

/// [`AttrBody::mask`]: the mode counts.
pub const SET_MODE: u32 = 1;
/// [`AttrBody::mask`]: the owner counts.
pub const SET_UID: u32 = 2;
/// [`AttrBody::mask`]: the group counts.
pub const SET_GID: u32 = 4;
/// [`AttrBody::mask`]: the time counts.
pub const SET_MTIME: u32 = 8;

/// Body of a move.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MoveBody {
    /// Slot that made the name.
    pub name_slot: U64,
    /// Slot of the directory that it moves to; [`NO_ENTRY`] is the root.
    pub parent: U64,

    /// Slot that made the name that it takes the place of; [`NO_ENTRY`] if there is none.
    pub replaces: U64,
    /// The new component, NUL-terminated, zero behind it.
    pub name: [u8; MAX_COMPONENT + 1],
    /// Zero.
    pub rest: [u8; 240],
}

/// Body of a removal.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RemoveBody {
    /// Slot that made the name.
    pub name_slot: U64,
    /// Zero.
    pub rest: [u8; 512],
}

/// Body of the entry before a group.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GroupBody {
    /// Number of entries that follow and count together, or not at all.
    pub count: U64,
    /// Zero.
    pub rest: [u8; 512],
}

const _: () = {
    assert!(size_of::<Extensions>() == 40);
    assert!(offset_of!(Extensions, fs_uuid) == 16);
    assert!(offset_of!(Extensions, crc) == 32);
    assert!(EXTENSIONS_OFFSET >= SUPERBLOCK_COPY_OFFSET + size_of::<Superblock>() as u64);
    assert!(EXTENSIONS_OFFSET + 40 < ALLOC_UNIT);
    assert!(size_of::<NameBody>() == size_of::<Body>());
    assert!(offset_of!(NameBody, mtime_sec) == 16);
    assert!(offset_of!(NameBody, kind) == 28);
    assert!(offset_of!(NameBody, mode) == 40);
    assert!(offset_of!(NameBody, count) == 48);
    assert!(offset_of!(NameBody, name) == 56);
    assert!(offset_of!(NameBody, tail) == 312);
    assert!(size_of::<RawPiece>() == 32);
    assert!(size_of::<PiecesTail>() == TAIL_LEN);
    assert!(offset_of!(PiecesTail, rest) == 192);
    assert!(size_of::<ListBody>() == size_of::<Body>());
    assert!(offset_of!(ListBody, rest) == LIST_LEN);
    assert!(LIST_PIECES as usize * size_of::<RawPiece>() == LIST_LEN);
    assert!(MAX_LISTS * LIST_LEN >= MAX_TARGET as usize);
    assert!(size_of::<LinkBody>() == size_of::<Body>());
    assert!(offset_of!(LinkBody, name) == 16);
    assert!(size_of::<AttrBody>() == size_of::<Body>());
    assert!(offset_of!(AttrBody, mask) == 8);
    assert!(offset_of!(AttrBody, mtime_sec) == 24);
    assert!(size_of::<MoveBody>() == size_of::<Body>());
    assert!(offset_of!(MoveBody, name) == 24);
    assert!(size_of::<RemoveBody>() == size_of::<Body>());
    assert!(size_of::<GroupBody>() == size_of::<Body>());
};

impl Extensions {
    /// The mark of a file system.
    pub fn new(fs_uuid: [u8; 16]) -> Self {
        let mut mark = Self::new_zeroed();
        mark.magic = U64::new(EXTENSIONS_MAGIC);
        mark.version = U32::new(EXTENSIONS_VERSION);
        mark.fs_uuid = fs_uuid;
        mark.crc = U64::new(mark.checksum());
        mark
    }

    /// The checksum that belongs into [`Extensions::crc`].
    pub fn checksum(&self) -> u64 {
        crc64(&self.as_bytes()[..offset_of!(Self, crc)])
    }
}
