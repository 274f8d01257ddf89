// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The on-disk format of the overlay file; docs/reference/formats.md has a picture of the whole
//! file.
//!
//! ```text
//! 0        header      what the overlay is of: size and digest of the base
//! 4096     session     which boot of which machine the second map belongs to
//! 8192     durable     a bit for each sector that is in the data for good
//! ...      pending     the same, for as long as this boot lasts
//! ...      data        the sectors, each at its own place
//! ```

use sha2::{Digest, Sha256};
use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First bytes of an overlay file.
const MAGIC: [u8; 8] = *b"FAMFSOVL";
/// First bytes of the session block.
const SESSION_MAGIC: [u8; 8] = *b"FAMFSSES";
/// The only version.
const VERSION: u32 = 1;

/// The unit in which an overlay takes over data from its base, in bytes: the smallest block of a
/// device.
pub const SECTOR: u64 = 512;
/// The alignment of the file's parts, and the unit of writes to a map.
pub const PAGE: usize = 4096;
const PAGE_LEN: u64 = 4096;

const SESSION_OFFSET: u64 = PAGE_LEN;
const DURABLE_OFFSET: u64 = 2 * PAGE_LEN;
/// The alignment of the data, so that its pages are pages of the file.
const DATA_ALIGNMENT: u64 = 1 << 20;

/// Largest device in bytes. Its map takes 1 GiB of memory if every part of the device is written.
pub const MAX_SIZE: u64 = 4 << 40;

/// Identifies a base: its size in bytes, and the SHA-256 of its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseIdentity {
    /// Size in bytes.
    pub size: u64,
    /// SHA-256.
    pub digest: [u8; 32],
}

/// The first page of an overlay file; all integers are little-endian.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// `FAMFSOVL`.
    magic: [u8; 8],
    /// Version of this layout: 1.
    version: U32,
    /// Bytes per bit of a map: 512.
    sector_size: U32,

    /// Identity of the overlay, in RFC 4122 byte order.
    uuid: [u8; 16],

    /// Size of the device and of the base in bytes.
    size: U64,
    /// Size of each of the two maps in bytes.
    map_len: U64,

    /// File offset of the pending map; the durable map begins at 8192.
    pending_offset: U64,
    /// File offset of the data.
    data_offset: U64,

    /// SHA-256 of the base.
    base_digest: [u8; 32],

    /// Zero.
    reserved: [u8; 3996],
    /// CRC-32 of all preceding bytes.
    checksum: U32,
}

/// The second page: identifies the boot in which the pending map was written.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Session {
    /// `FAMFSSES`.
    magic: [u8; 8],
    /// Zero.
    reserved: [u8; 8],

    /// The kernel's random boot identity.
    boot: [u8; 16],

    /// Zero.
    padding: [u8; 4060],
    /// CRC-32 of all preceding bytes.
    checksum: U32,
}

const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<Header>() == PAGE);
    assert!(offset_of!(Header, uuid) == 16);
    assert!(offset_of!(Header, size) == 32);
    assert!(offset_of!(Header, pending_offset) == 48);
    assert!(offset_of!(Header, base_digest) == 64);
    assert!(offset_of!(Header, checksum) == 4092);
    assert!(size_of::<Session>() == PAGE);
    assert!(offset_of!(Session, boot) == 16);
    assert!(offset_of!(Session, checksum) == 4092);
};

/// Why the first page of a file is not a header.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// All zero: the file is new, or its creation was interrupted.
    #[error("its header is empty, as after an interrupted creation; remove it and try again")]
    Empty,
    /// It begins with something else.
    #[error("is not an overlay: its first bytes are {found:02x?}, expected {MAGIC:02x?}")]
    Magic {
        /// The first bytes.
        found: [u8; 8],
    },
    /// It is damaged.
    #[error("header checksum {found:#010x}, expected {expected:#010x}: the overlay is damaged")]
    Checksum {
        /// The stored checksum.
        found: u32,
        /// The checksum of the bytes.
        expected: u32,
    },
    /// It was written by a later version of the program.
    #[error("overlay of version {0}, but this program supports only version {VERSION}")]
    Version(u32),
    /// A field does not match the size.
    #[error("header field {field} is {found}, expected {expected}")]
    Field {
        /// Its name.
        field: &'static str,
        /// The stored checksum.
        found: u64,
        /// The correct value.
        expected: u64,
    },
}

/// The positions of the parts of an overlay file. They follow from the size of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Size of the device in bytes.
    pub size: u64,
    /// Size of a map in bytes.
    pub map_len: u64,
}

impl Layout {
    /// The layout for a device of `size` bytes: a multiple of [`SECTOR`], at most [`MAX_SIZE`].
    pub fn new(size: u64) -> Self {
        Self { size, map_len: size.div_ceil(SECTOR * 8).next_multiple_of(PAGE_LEN) }
    }

    /// File offset of the session block.
    pub fn session(self) -> u64 {
        SESSION_OFFSET
    }

    /// File offset of the durable map.
    pub fn durable(self) -> u64 {
        DURABLE_OFFSET
    }

    /// File offset of the pending map.
    pub fn pending(self) -> u64 {
        DURABLE_OFFSET + self.map_len
    }

    /// File offset of the data.
    pub fn data(self) -> u64 {
        (self.pending() + self.map_len).next_multiple_of(DATA_ALIGNMENT)
    }

    /// Size of the file in bytes.
    pub fn file_len(self) -> u64 {
        self.data() + self.size
    }
}

fn checksum(page: &[u8]) -> u32 {
    crc32fast::hash(&page[..PAGE - 4])
}

impl Header {
    /// The header of a new overlay over that base.
    pub fn new(base: BaseIdentity, uuid: Uuid) -> Self {
        let layout = Layout::new(base.size);
        let mut header = Self {
            magic: MAGIC,
            version: VERSION.into(),
            sector_size: 512.into(),
            uuid: uuid.into_bytes(),
            size: base.size.into(),
            map_len: layout.map_len.into(),
            pending_offset: layout.pending().into(),
            data_offset: layout.data().into(),
            base_digest: base.digest,
            reserved: [0; 3996],
            checksum: 0.into(),
        };
        header.checksum = checksum(header.as_bytes()).into();
        header
    }

    /// Whether a page begins like a header.
    pub fn is_overlay(page: &[u8]) -> bool {
        page.starts_with(&MAGIC)
    }

    /// Checks a page read from a file.
    pub fn parse(page: [u8; PAGE]) -> Result<Self, HeaderError> {
        let header: Self = zerocopy::transmute!(page);
        if page.iter().all(|byte| *byte == 0) {
            return Err(HeaderError::Empty);
        }
        if header.magic != MAGIC {
            return Err(HeaderError::Magic { found: header.magic });
        }
        let (found, expected) = (header.checksum.get(), checksum(&page));
        if found != expected {
            return Err(HeaderError::Checksum { found, expected });
        }
        if header.version.get() != VERSION {
            return Err(HeaderError::Version(header.version.get()));
        }
        header.check_fields()?;
        Ok(header)
    }

    fn check_fields(&self) -> Result<(), HeaderError> {
        let size = self.size.get();
        let whole = size - size % SECTOR;
        let expect = |field, found, expected| {
            if found == expected {
                Ok(())
            } else {
                Err(HeaderError::Field { field, found, expected })
            }
        };
        expect("size", size, whole.clamp(SECTOR, MAX_SIZE))?;
        let layout = Layout::new(size);
        expect("sector_size", self.sector_size.get().into(), SECTOR)?;
        expect("map_len", self.map_len.get(), layout.map_len)?;
        expect("pending_offset", self.pending_offset.get(), layout.pending())?;
        expect("data_offset", self.data_offset.get(), layout.data())?;
        let reserved = self.reserved.iter().find(|byte| **byte != 0);
        expect("reserved", reserved.copied().unwrap_or(0).into(), 0)
    }

    /// The base that the overlay belongs to.
    pub fn base(&self) -> BaseIdentity {
        BaseIdentity { size: self.size.get(), digest: self.base_digest }
    }

    /// The overlay's identity.
    pub fn uuid(&self) -> Uuid {
        Uuid::from_bytes(self.uuid)
    }
}

impl Session {
    /// The block for that boot.
    pub fn new(boot: Uuid) -> Self {
        let mut session = Self {
            magic: SESSION_MAGIC,
            reserved: [0; 8],
            boot: boot.into_bytes(),
            padding: [0; 4060],
            checksum: 0.into(),
        };
        session.checksum = checksum(session.as_bytes()).into();
        session
    }

    /// Whether a page is the block of that boot. A damaged block belongs to no boot: what depends
    /// on it was never flushed.
    pub fn is_of(page: &[u8; PAGE], boot: Uuid) -> bool {
        page == Self::new(boot).as_bytes()
    }
}

/// The first 16 digits of a digest, for people to compare.
pub fn short_digest(digest: &[u8; 32]) -> String {
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A SHA-256 that is computed incrementally.
#[derive(Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes added so far.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header::new(BaseIdentity { size: 5 << 20, digest: [7; 32] }, Uuid::from_u128(3))
    }

    /// A header with one byte changed and, if requested, a matching checksum.
    fn damaged(at: usize, with_checksum: bool) -> Result<Header, HeaderError> {
        let mut page: [u8; PAGE] = header().as_bytes().try_into().unwrap();
        page[at] ^= 1;
        if with_checksum {
            let sum = checksum(&page).to_le_bytes();
            page[PAGE - 4..].copy_from_slice(&sum);
        }
        Header::parse(page)
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let page: [u8; PAGE] = header().as_bytes().try_into().unwrap();
        let parsed = Header::parse(page).unwrap();
        assert_eq!(parsed.base(), BaseIdentity { size: 5 << 20, digest: [7; 32] });
        assert_eq!(parsed.uuid(), Uuid::from_u128(3));
    }

    #[test]
    fn the_bytes_of_version_1_do_not_change() {
        let page = header();
        assert_eq!(&page.as_bytes()[..16], b"FAMFSOVL\x01\0\0\0\0\x02\0\0");
        assert_eq!(page.as_bytes()[32..40], (5_u64 << 20).to_le_bytes());
        assert_eq!(page.as_bytes()[48..56], 12_288_u64.to_le_bytes());
        assert_eq!(page.as_bytes()[56..64], (1_u64 << 20).to_le_bytes());
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        for at in 0..PAGE {
            assert!(damaged(at, false).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_field_is_checked_by_itself() {
        for (at, field) in
            [(12, "sector_size"), (32, "size"), (40, "map_len"), (48, "pending_offset")]
        {
            let found = damaged(at, true).err();
            assert!(
                matches!(found, Some(HeaderError::Field { field: f, .. }) if f == field),
                "{field}: {found:?}"
            );
        }
        assert_eq!(damaged(8, true).err(), Some(HeaderError::Version(0)));
        assert!(matches!(damaged(0, true), Err(HeaderError::Magic { .. })));
        assert!(matches!(damaged(2000, true), Err(HeaderError::Field { field: "reserved", .. })));
        assert_eq!(Header::parse([0; PAGE]).err(), Some(HeaderError::Empty));
    }

    #[test]
    fn parts_do_not_overlap() {
        for size in [SECTOR, 4096, 5 << 20, (3 << 30) + SECTOR, MAX_SIZE] {
            let layout = Layout::new(size);
            assert!(layout.map_len * 8 * SECTOR >= size);
            assert_eq!(layout.pending() - layout.durable(), layout.map_len);
            assert!(layout.data() >= layout.pending() + layout.map_len);
            assert_eq!(layout.data() % DATA_ALIGNMENT, 0);
        }
    }

    #[test]
    fn a_session_is_of_one_boot() {
        let page: [u8; PAGE] = Session::new(Uuid::from_u128(1)).as_bytes().try_into().unwrap();
        assert!(Session::is_of(&page, Uuid::from_u128(1)));
        assert!(!Session::is_of(&page, Uuid::from_u128(2)));
        assert!(!Session::is_of(&[0; PAGE], Uuid::nil()));
    }
}
