// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reading, checking and building the superblock.

use std::mem::offset_of;
use std::ops::Range;

use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes, transmute};

use crate::format::SuperblockBytes;
use crate::format::extension::{
    EXTENSIONS_MAGIC, EXTENSIONS_OFFSET, EXTENSIONS_VERSION, Extensions,
};
use crate::format::map::DataArea;
use crate::format::{self, ALLOC_UNIT, ENTRY_LEN, LOG_HEADER_LEN, LOG_OFFSET, OMF_MAJOR};
use crate::format::{SUPERBLOCK_COPY_OFFSET, SUPERBLOCK_MAGIC, SUPERBLOCK_VERSION};
use crate::media::{Media, MediaError};

/// Smallest device that can hold superblock, log and one allocation unit of data, with room to
/// be of use.
pub const MIN_DEVICE_LEN: u64 = 14 << 20;
/// Largest device in bytes: 64 TiB, all that an x86-64 CPU with four-level paging can address. No
/// guest could map a larger sparse file as memory.
pub const MAX_DEVICE_LEN: u64 = 1 << 46;
/// Shortest log: below the reference's 8 MiB, so that a small pool has room for data.
pub const MIN_LOG_LEN: u64 = ALLOC_UNIT;
/// Log length that the reference's mkfs picks, and ours for a file system without extensions on
/// all but small devices.
pub const REFERENCE_LOG_LEN: u64 = 8 << 20;
/// Longest log that mkfs picks: 1.97 million entries. Data of larger devices is more likely in
/// larger files than in more.
pub const MAX_DEFAULT_LOG_LEN: u64 = 1 << 30;
/// Part of a device that mkfs gives the log at most. It is what ext4 gives its inodes, 256 bytes
/// for each 16 KiB, and enough for files of 68 KiB on average, even if the log's length had to be
/// rounded down to half of that.
const LOG_SHARE: u64 = 64;

/// The way out of damage that no command mends.
pub(super) const RESTORE: &str = "restore the pool from a copy; `famfs dump` shows what is there";

/// A superblock that passed all checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Length of the log in bytes, its header included.
    pub log_len: u64,
    /// Minor part of the on-media format.
    pub omf_minor: u32,
    /// Identity of the file system.
    pub fs_uuid: Uuid,
    /// Identity of the device.
    pub dev_uuid: Uuid,
    /// Identity of the master.
    pub system_uuid: Uuid,
    /// Size of the device in bytes as mkfs saw it; no checksum protects it.
    pub dev_size: u64,
    /// Device path as given to mkfs.
    pub dev_name: String,
}

/// Why there is no usable superblock.
#[derive(Debug, thiserror::Error)]
pub enum SuperblockError {
    /// The bytes cannot be accessed.
    #[error("cannot read the superblock")]
    Media(#[from] MediaError),
    /// The magic number is missing: never formatted, or killed.
    #[error(
        "no famfs superblock: magic {found:#x} at offset {offset:#x}, expected {SUPERBLOCK_MAGIC:#x}; \
         the device was never formatted, or was wiped; `famfs mkfs` makes an empty file system, \
         and erases what may be left of an old one"
    )]
    Magic {
        /// What is there.
        found: u64,
        /// Offset in the device or pool.
        offset: u64,
    },
    /// A field has a value other than its only legal one.
    #[error("superblock: {field} is {found}, expected {expected}; {RESTORE}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Value on the media.
        found: u64,
        /// The legal value, or a description of the legal values.
        expected: String,
    },
    /// The checksum does not match the bytes.
    #[error("superblock: checksum {found:#x}, expected {expected:#x}; {RESTORE}")]
    Checksum {
        /// Checksum on the media.
        found: u64,
        /// Checksum of the bytes.
        expected: u64,
    },
    /// The log reaches past the end of the device.
    #[error("superblock: the log ends at {log_end}, but the device has only {device_len} bytes")]
    Truncated {
        /// First byte after the log.
        log_end: u64,
        /// Size of the device in bytes.
        device_len: u64,
    },
    /// The mark of extensions is damaged, so it is unknown which entries count.
    #[error(
        "mark of extensions at {offset:#x}: checksum {found:#x}, expected {expected:#x}; `famfs \
         upgrade` restores the mark, if the log is good"
    )]
    ExtensionsChecksum {
        /// Offset in the device or pool.
        offset: u64,
        /// Checksum on the media.
        found: u64,
        /// Checksum of the bytes.
        expected: u64,
    },
    /// The extensions are of a version that this one does not know.
    #[error(
        "the file system has extensions of version {found}, expected {EXTENSIONS_VERSION}; use \
         newer tools"
    )]
    ExtensionsVersion {
        /// Version on the media.
        found: u32,
    },
}

impl Superblock {
    /// Reads the superblock of a device and checks it against the device's size.
    pub fn read(media: &dyn Media) -> Result<Self, SuperblockError> {
        let mut bytes = [0; size_of::<format::Superblock>()];
        media.read_at(0, &mut bytes)?;
        let superblock = match Self::parse(&bytes, media.origin()) {
            Err(err @ SuperblockError::Checksum { .. }) => {
                Self::read_copy(media, &bytes)?.ok_or(err)?
            }
            parsed => parsed?,
        };
        let log_end = superblock.data_start();
        if log_end > media.len() {
            return Err(SuperblockError::Truncated { log_end, device_len: media.len() });
        }
        Ok(superblock)
    }

    /// The copy that an interrupted takeover leaves: equal except for master and checksum.
    fn read_copy(
        media: &dyn Media,
        bytes: &SuperblockBytes,
    ) -> Result<Option<Self>, SuperblockError> {
        let mut copy = [0; size_of::<format::Superblock>()];
        if media.len() < SUPERBLOCK_COPY_OFFSET + copy.len() as u64 {
            return Ok(None);
        }
        media.read_at(SUPERBLOCK_COPY_OFFSET, &mut copy)?;
        let Range { start, end } = format::Superblock::OF_MASTER;
        let same = copy[..start] == bytes[..start] && copy[end..] == bytes[end..];
        Ok(if same { Self::parse(&copy, media.origin()).ok() } else { None })
    }

    /// The copy that an interrupted takeover left, and whether it is used because the superblock
    /// itself is invalid.
    pub fn left_by_takeover(media: &dyn Media) -> Result<Option<(Self, bool)>, SuperblockError> {
        let mut bytes = [0; size_of::<format::Superblock>()];
        media.read_at(0, &mut bytes)?;
        let used = Self::parse(&bytes, media.origin()).is_err();
        Ok(Self::read_copy(media, &bytes)?.map(|copy| (copy, used)))
    }

    /// Whether the file system has extensions. A mark that another file system left is none.
    pub fn has_extensions(&self, media: &dyn Media) -> Result<bool, SuperblockError> {
        let mut bytes = [0; size_of::<Extensions>()];
        media.read_at(EXTENSIONS_OFFSET, &mut bytes)?;
        let mark: Extensions = transmute!(bytes);
        if mark.magic.get() != EXTENSIONS_MAGIC || Uuid::from_bytes(mark.fs_uuid) != self.fs_uuid {
            return Ok(false);
        }
        let (found, expected) = (mark.crc.get(), mark.checksum());
        if found != expected {
            let offset = EXTENSIONS_OFFSET + media.origin();
            return Err(SuperblockError::ExtensionsChecksum { offset, found, expected });
        }
        match mark.version.get() {
            EXTENSIONS_VERSION => Ok(true),
            found => Err(SuperblockError::ExtensionsVersion { found }),
        }
    }

    /// Checks a superblock's bytes, found at `offset` of the device or pool.
    pub fn parse(bytes: &SuperblockBytes, offset: u64) -> Result<Self, SuperblockError> {
        let raw: format::Superblock = transmute!(*bytes);
        if raw.magic.get() != SUPERBLOCK_MAGIC {
            return Err(SuperblockError::Magic { found: raw.magic.get(), offset });
        }
        expect("version", raw.version.get(), SUPERBLOCK_VERSION)?;
        let (found, expected) = (raw.crc.get(), raw.checksum());
        if found != expected {
            return Err(SuperblockError::Checksum { found, expected });
        }
        expect("allocation unit", raw.alloc_unit.get(), ALLOC_UNIT)?;
        expect("on-media format (major)", raw.omf_major.get().into(), OMF_MAJOR.into())?;
        expect("log offset", raw.log_offset.get(), LOG_OFFSET)?;
        let log_len = raw.log_len.get();
        if !is_log_len(log_len) {
            let expected = "a power of two from 2 MiB to the size of the device".to_owned();
            return Err(SuperblockError::Field { field: "log length", found: log_len, expected });
        }
        let name_len = raw.dev_name.iter().position(|&b| b == 0).unwrap_or(raw.dev_name.len());
        Ok(Self {
            log_len,
            omf_minor: raw.omf_minor.get(),
            fs_uuid: Uuid::from_bytes(raw.fs_uuid),
            dev_uuid: Uuid::from_bytes(raw.dev_uuid),
            system_uuid: Uuid::from_bytes(raw.system_uuid),
            dev_size: raw.dev_size.get(),
            dev_name: String::from_utf8_lossy(&raw.dev_name[..name_len]).into_owned(),
        })
    }

    /// The superblock's bytes with checksum; every byte that has no meaning is zero.
    pub fn encode(&self) -> SuperblockBytes {
        let mut raw = format::Superblock::new_zeroed();
        raw.magic = U64::new(SUPERBLOCK_MAGIC);
        raw.version = U64::new(SUPERBLOCK_VERSION);
        raw.log_offset = U64::new(LOG_OFFSET);
        raw.log_len = U64::new(self.log_len);
        raw.alloc_unit = U64::new(ALLOC_UNIT);
        raw.omf_major = U32::new(OMF_MAJOR);
        raw.omf_minor = U32::new(self.omf_minor);
        raw.fs_uuid = self.fs_uuid.into_bytes();
        raw.dev_uuid = self.dev_uuid.into_bytes();
        raw.system_uuid = self.system_uuid.into_bytes();
        raw.dev_size = U64::new(self.dev_size);
        let name = self.dev_name.as_bytes();
        let name_len = name.len().min(raw.dev_name.len());
        raw.dev_name[..name_len].copy_from_slice(&name[..name_len]);
        raw.crc = U64::new(raw.checksum());
        let mut bytes: SuperblockBytes = [0; size_of::<SuperblockBytes>()];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Device offset of the first byte after the log.
    pub fn data_start(&self) -> u64 {
        LOG_OFFSET + self.log_len
    }

    /// Bytes that files may use, from the device's start: whole units, within the real `device_len`
    /// and within the size that mkfs recorded.
    pub fn capacity(&self, device_len: u64) -> u64 {
        let known = if self.dev_size == 0 { device_len } else { self.dev_size };
        let len = known.min(device_len).min(MAX_DEVICE_LEN);
        len - len % ALLOC_UNIT
    }

    /// The part of the device that files may use now: it may have grown since the superblock was
    /// read. Read it after the number of published entries, so that none of them lies outside.
    ///
    /// # Errors
    /// The media cannot be read.
    pub fn area_now(&self, media: &dyn Media) -> Result<DataArea, MediaError> {
        let (offset, mut bytes) = (offset_of!(format::Superblock, dev_size) as u64, [0; 8]);
        media.refresh(offset, 8)?;
        media.read_at(offset, &mut bytes)?;
        let now = Self { dev_size: u64::from_le_bytes(bytes), ..self.clone() };
        Ok(now.data_area(media.len()))
    }

    /// The part of a device of `device_len` bytes that files may use.
    pub fn data_area(&self, device_len: u64) -> DataArea {
        let start = self.data_start();
        DataArea { start, end: self.capacity(device_len).max(start) }
    }

    /// What is odd about the device size, which no checksum protects.
    pub fn size_problem(&self, device_len: u64) -> Option<SuperblockError> {
        let fits = self.dev_size <= device_len && self.dev_size > self.data_start();
        (!fits).then(|| SuperblockError::Field {
            field: "device size",
            found: self.dev_size,
            expected: format!("the real size {device_len} or less, and more than the log's end"),
        })
    }
}

fn expect(field: &'static str, found: u64, expected: u64) -> Result<(), SuperblockError> {
    if found == expected {
        return Ok(());
    }
    Err(SuperblockError::Field { field, found, expected: expected.to_string() })
}

/// Whether a log may have this length.
pub fn is_log_len(len: u64) -> bool {
    len.is_power_of_two() && (MIN_LOG_LEN..=MAX_DEVICE_LEN).contains(&len)
}

/// The shortest log with slots for so many entries.
pub fn log_len_for(entries: u64) -> u64 {
    let bytes = entries.saturating_mul(ENTRY_LEN).saturating_add(LOG_HEADER_LEN);
    bytes.clamp(MIN_LOG_LEN, MAX_DEVICE_LEN).next_power_of_two()
}

/// The log length that mkfs picks: the largest power of two within 1/64 of the device, but no less
/// than [`reference_log_len`] and no more than [`MAX_DEFAULT_LOG_LEN`].
pub fn default_log_len(device_len: u64) -> u64 {
    let share = 1 << (device_len / LOG_SHARE).max(MIN_LOG_LEN).ilog2();
    reference_log_len(device_len).max(share).min(MAX_DEFAULT_LOG_LEN)
}

/// The log length that mkfs picks without extensions: the reference's 8 MiB, or the largest power
/// of two within a sixteenth of a small device.
pub fn reference_log_len(device_len: u64) -> u64 {
    let sixteenth = (device_len / 16).max(MIN_LOG_LEN);
    (1 << sixteenth.ilog2()).min(REFERENCE_LOG_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::OMF_MINOR;

    fn sample() -> Superblock {
        Superblock {
            log_len: REFERENCE_LOG_LEN,
            omf_minor: OMF_MINOR,
            fs_uuid: Uuid::from_u128(1),
            dev_uuid: Uuid::from_u128(2),
            system_uuid: Uuid::from_u128(3),
            dev_size: 1 << 30,
            dev_name: "/dev/dax0.0".into(),
        }
    }

    #[test]
    fn survives_a_round_trip() {
        assert_eq!(Superblock::parse(&sample().encode(), 0).unwrap(), sample());
    }

    #[test]
    fn every_flipped_bit_is_refused_or_in_the_unprotected_part() {
        for bit in 0..size_of::<SuperblockBytes>() * 8 {
            let mut bytes = sample().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let refused = Superblock::parse(&bytes, 0).is_err();
            assert_eq!(refused, bit / 8 < format::Superblock::OF_MASTER.end, "bit {bit}");
        }
    }

    #[test]
    fn a_long_device_name_is_cut_as_in_the_reference() {
        let long = Superblock { dev_name: "x".repeat(70), ..sample() };
        assert_eq!(Superblock::parse(&long.encode(), 0).unwrap().dev_name, "x".repeat(64));
    }

    #[test]
    fn log_length_follows_the_device() {
        let mib = 1 << 20;
        for (device, log) in [(14, 2), (16, 2), (64, 4), (126, 4), (128, 8), (8192, 8)] {
            assert_eq!(reference_log_len(device * mib), log * mib, "{device} MiB");
        }
        let larger = [(1023, 8), (1024, 16), (8190, 64), (8192, 128), (1 << 16, 1024)];
        let small = [(14, 2), (16, 2), (64, 4), (126, 4), (128, 8)];
        for (device, log) in [&small[..], &larger, &[(1 << 26, 1024)]].concat() {
            assert_eq!(default_log_len(device * mib), log * mib, "{device} MiB");
        }
    }

    #[test]
    fn the_shortest_log_for_so_many_entries() {
        for entries in [0, 1, 3855, 3856, 15_420, 15_421, 1 << 32] {
            let len = log_len_for(entries);
            assert!(is_log_len(len) && format::slots(len) >= entries, "{entries}");
            assert!(len == MIN_LOG_LEN || format::slots(len / 2) < entries, "{entries}");
        }
        assert_eq!(log_len_for(u64::MAX), MAX_DEVICE_LEN);
    }

    #[test]
    fn device_size_is_doubted() {
        let with = |dev_size| Superblock { dev_size, ..sample() };
        assert!(with(1 << 30).size_problem(1 << 30).is_none());
        assert!(with(1 << 30).size_problem(1 << 31).is_none(), "a device that has grown");
        assert!(with(1 << 30).size_problem(1 << 29).is_some(), "a device that was cut");
        assert!(with(0).size_problem(1 << 30).is_some());
        assert_eq!(with(u64::MAX).capacity((1 << 30) + 5), 1 << 30);
    }
}
