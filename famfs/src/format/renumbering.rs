// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is on the media while the entries of a log are moved into slots without gaps, in the
//! superblock's 2 MiB behind the members; ours alone. All but the generation counts only as long as
//! the log's header begins with [`RENUMBERING_MAGIC`]; the last record stays, and tells what the
//! slots were before.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::format::extension::{EXTENSIONS_OFFSET, Extensions};
use crate::format::{ALLOC_UNIT, ENTRY_LEN, MAX_MEMBERS, MEMBERS_OFFSET, Member, crc64};

/// First bytes of a log's header while its entries move, and of a [`Renumbering`]: `FAMRENUM` as
/// text.
pub const RENUMBERING_MAGIC: u64 = u64::from_le_bytes(*b"FAMRENUM");
/// Device offset of two [`Renumbering`]s, of which the newer one counts.
pub const RENUMBERING_OFFSET: u64 = 0x7100;
/// Device offset of a bit for each slot, the lowest bit of a byte first: whether its entry counts.
pub const COUNTING_OFFSET: u64 = 0x30000;
/// Device offset of the entries that are about to be written into their new slots.
pub const BATCH_OFFSET: u64 = 0x10_0000;
/// Slots that there are bits for.
pub const MAX_SLOTS: u64 = (BATCH_OFFSET - COUNTING_OFFSET) * 8;
/// Entries of a batch.
pub const BATCH_ENTRIES: u64 = (ALLOC_UNIT - BATCH_OFFSET) / ENTRY_LEN;

/// How far the entries of a log have moved.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Renumbering {
    /// [`RENUMBERING_MAGIC`].
    pub magic: U64,
    /// One more than that of the other one.
    pub generation: U64,

    /// Slots that were published before.
    pub slots: U64,
    /// Entries that are in their new slots.
    pub moved: U64,

    /// Entries of the batch, which may be in their new slots in part.
    pub batch: U64,
    /// CRC-32 of the batch. Without a batch it is 0, and in the last record the generation of the
    /// first one.
    pub batch_crc: U64,

    /// CRC-32 of the bits.
    pub counting_crc: U64,
    /// CRC-32 of the bytes before this field.
    pub crc: U64,
}

const _: () = {
    assert!(size_of::<Renumbering>() == 64);
    assert!(offset_of!(Renumbering, crc) == 56);
    assert!(RENUMBERING_OFFSET >= EXTENSIONS_OFFSET + size_of::<Extensions>() as u64);
    assert!(RENUMBERING_OFFSET + 128 <= MEMBERS_OFFSET);
    assert!(COUNTING_OFFSET >= MEMBERS_OFFSET + MAX_MEMBERS * size_of::<Member>() as u64);
};

impl Renumbering {
    /// The record with its magic number and checksum.
    pub fn sealed(mut self) -> Self {
        self.magic = U64::new(RENUMBERING_MAGIC);
        self.crc = U64::new(self.checksum());
        self
    }

    /// Whether magic number and checksum are right.
    pub fn is_whole(&self) -> bool {
        self.magic.get() == RENUMBERING_MAGIC && self.crc.get() == self.checksum()
    }

    /// In the last record, the generation of the first one.
    pub fn first(&self) -> Option<u64> {
        let first = self.batch_crc.get();
        (self.batch.get() == 0 && first != 0).then_some(first)
    }

    fn checksum(&self) -> u64 {
        crc64(&self.as_bytes()[..offset_of!(Self, crc)])
    }
}

/// The checksum of bits or of a batch.
pub fn checksum(bytes: &[u8]) -> u64 {
    crc64(bytes)
}
