// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A file system as the input of a target: one byte of choices ([`Choices`]), a superblock (200
//! bytes), a log header (48 bytes), and log entries (544 bytes each). Missing bytes are zero.

use famfs::format::extension::{EXTENSIONS_OFFSET, Extensions};
use famfs::format::{ENTRY_LEN, Entry, LOG_OFFSET, LogHeader, Superblock, slot_offset};
use famfs::media::Media;
use famfs::media::in_memory::InMemory;
use zerocopy::little_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

/// Bytes of an entry.
const ENTRY: usize = size_of::<Entry>();

/// The first byte of the input.
#[derive(Clone, Copy, Debug)]
pub struct Choices(u8);

impl Choices {
    /// Correct the superblock's checksum.
    pub const SUPERBLOCK: u8 = 1;
    /// Correct the log header's checksum.
    pub const HEADER: u8 = 2;
    /// Correct the entries' sequence numbers and checksums: what a hostile master can do.
    pub const ENTRIES: u8 = 4;
    /// For the target to use.
    pub const EXTRA: u8 = 8;
    /// Mark the file system as one with extensions.
    pub const EXTENSIONS: u8 = 16;

    /// Whether a choice was made.
    pub fn has(self, choice: u8) -> bool {
        self.0 & choice != 0
    }

    /// Size of the device in bytes: the three highest bits.
    pub fn device_len(self) -> u64 {
        let mib = 1 << 20;
        [64 << 30, 16 * mib, (16 * mib) - 1, 8 * mib, 1 << 40, 1 << 46, 4 * mib, 200]
            [usize::from(self.0 >> 5)]
    }
}

/// A device with the file system that the input describes.
pub fn parse(data: &[u8]) -> (InMemory, Choices) {
    let (first, data) = data.split_first().unwrap_or((&0, &[]));
    let choices = Choices(*first);
    let media = InMemory::new(choices.device_len());

    let mut superblock = Superblock::new_zeroed();
    let data = fill(superblock.as_mut_bytes(), data);
    if choices.has(Choices::SUPERBLOCK) {
        superblock.crc = U64::new(superblock.checksum());
    }
    put(&media, 0, superblock.as_bytes());
    if choices.has(Choices::EXTENSIONS) {
        put(&media, EXTENSIONS_OFFSET, Extensions::new(superblock.fs_uuid).as_bytes());
    }

    let mut header = LogHeader::new_zeroed();
    let data = fill(header.as_mut_bytes(), data);
    if choices.has(Choices::HEADER) {
        header.crc = U64::new(header.checksum());
    }
    put(&media, LOG_OFFSET, header.as_bytes());

    for (bytes, slot) in data.chunks(ENTRY).zip(0..) {
        let mut entry = Entry::new_zeroed();
        fill(entry.as_mut_bytes(), bytes);
        if choices.has(Choices::ENTRIES) {
            entry = Entry::new(slot, entry.kind.get(), entry.body);
        }
        put(&media, slot_offset(slot), entry.as_bytes());
    }
    (media, choices)
}

/// The input for a device: `first` byte, superblock, log header and `entries` entries.
pub fn build(first: u8, media: &dyn Media, entries: u64) -> Vec<u8> {
    let mut data = vec![first];
    let log_bytes = 48 + ENTRY_LEN * entries;
    for (offset, len) in [(0, 200), (LOG_OFFSET, log_bytes)] {
        let start = data.len();
        data.resize(start + usize::try_from(len).unwrap_or(0), 0);
        // A device that was cut has zeros there.
        let _ = media.read_at(offset, &mut data[start..]);
    }
    data
}

/// The same file system with this number of entries on a device of `len` bytes.
pub fn copy(media: &InMemory, len: u64, entries: u64) -> InMemory {
    let copy = InMemory::new(len);
    let log_bytes = 48 + ENTRY_LEN * entries;
    let mark = (EXTENSIONS_OFFSET, size_of::<Extensions>() as u64);
    for (offset, wanted) in [(0, 200), mark, (LOG_OFFSET, log_bytes)] {
        let there = media.len().min(len).saturating_sub(offset).min(wanted);
        let mut bytes = vec![0; usize::try_from(there).unwrap_or(0)];
        // Both devices have this range.
        let _ = media.read_at(offset, &mut bytes).and_then(|()| copy.write_at(offset, &bytes));
    }
    copy
}

/// Copies bytes as far as they reach; returns the rest.
fn fill<'d>(to: &mut [u8], data: &'d [u8]) -> &'d [u8] {
    let (head, rest) = data.split_at(data.len().min(to.len()));
    to[..head.len()].copy_from_slice(head);
    rest
}

/// Writes as much as the device has room for.
fn put(media: &InMemory, offset: u64, bytes: &[u8]) {
    let room = usize::try_from(media.len().saturating_sub(offset)).unwrap_or(usize::MAX);
    // Within the device, where memory takes everything.
    let _ = media.write_at(offset, &bytes[..room.min(bytes.len())]);
}
