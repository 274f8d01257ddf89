// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The two views of a pool, and the libnvdimm info block that tells them apart.
//!
//! A pool with an info block is in the *devdax view*: a guest's nd_pmem driver finds the block
//! and offers `/dev/dax0.0`, whose byte 0 is pool byte 2 MiB. A pool without one is in the *raw
//! view*: guests see `/dev/pmem0`, and famfs starts at pool byte 0.
//!
//! The block is `struct nd_pfn_sb` of the kernel's `drivers/nvdimm/pfn.h`, in the form that a
//! label-less namespace (virtio-pmem) uses: no parent, struct pages in the guest's RAM.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::text::units::human;

/// Bytes before the data in the devdax view (libnvdimm's `dataoff`); also the size of a PMD
/// mapping, so that the data stays 2 MiB aligned.
pub const DEVDAX_DATA_OFFSET: u64 = 2 << 20;
/// Pool offset of the info block (libnvdimm looks for it at 4 KiB in every namespace).
pub const INFO_BLOCK_OFFSET: u64 = 4096;
/// Size of the info block in bytes; the checksum covers all of it.
pub const INFO_BLOCK_LEN: usize = 4096;

/// `DAX_SIG` of the kernel's `drivers/nvdimm/pfn.h`, 16 bytes with its NUL.
const SIGNATURE: [u8; 16] = *b"NVDIMM_DAX_INFO\0";
const VERSION_MAJOR: u16 = 1;
/// Minor 4 is the first with the `page_size` and `page_struct_size` fields.
const VERSION_MINOR: u16 = 4;
/// `PFN_MODE_RAM`: the guest keeps struct pages in its own RAM. The other mode would put them
/// into the pool, which several guests share.
const MODE_RAM: u32 = 1;
const PAGE_SIZE: u64 = 4096;
/// `sizeof(struct page)` on x86-64; a guest built with another size refuses the block.
const STRUCT_PAGE_SIZE: u16 = 64;

/// The info block as it lies on the media, 4 KiB long; all integers are little-endian.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InfoBlock {
    /// `NVDIMM_DAX_INFO` and a NUL.
    signature: [u8; 16],

    /// Identity of this block, RFC 4122 byte order.
    uuid: [u8; 16],

    /// Identity of the namespace below; zero, because a virtio-pmem namespace has none.
    parent_uuid: [u8; 16],

    /// No flag is defined.
    flags: U32,
    /// Version of this layout, major part.
    version_major: U16,
    /// Version of this layout, minor part.
    version_minor: U16,
    /// Offset in bytes of the data from the start of the namespace.
    dataoff: U64,

    /// Number of 4 KiB pages of data.
    npfns: U64,
    /// Where struct pages live: 1 = guest RAM, 2 = the namespace itself.
    mode: U32,
    /// Bytes skipped at the start of the namespace.
    start_pad: U32,

    /// Bytes left out at the end of the namespace.
    end_trunc: U32,
    /// Alignment in bytes of mappings.
    align: U32,
    /// Page size in bytes that the block was made for.
    page_size: U32,
    /// Size in bytes of a struct page that the block was made for.
    page_struct_size: U16,

    /// Zero.
    padding: [u8; 3994],

    /// Fletcher-64 over the whole block with this field taken as zero.
    checksum: U64,
}

const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<InfoBlock>() == INFO_BLOCK_LEN);
    assert!(offset_of!(InfoBlock, parent_uuid) == 32);
    assert!(offset_of!(InfoBlock, flags) == 48);
    assert!(offset_of!(InfoBlock, dataoff) == 56);
    assert!(offset_of!(InfoBlock, npfns) == 64);
    assert!(offset_of!(InfoBlock, mode) == 72);
    assert!(offset_of!(InfoBlock, end_trunc) == 80);
    assert!(offset_of!(InfoBlock, page_size) == 88);
    assert!(offset_of!(InfoBlock, page_struct_size) == 92);
    assert!(offset_of!(InfoBlock, padding) == 94);
    assert!(offset_of!(InfoBlock, checksum) == 4088);
};

/// Why an info block cannot be built or trusted.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The pool cannot hold an info area and data of whole 2 MiB units.
    #[error(
        "pool of {pool_len} bytes cannot have a devdax view: \
         expected a multiple of 2 MiB, at least 4 MiB"
    )]
    PoolLength {
        /// Length of the pool in bytes.
        pool_len: u64,
    },
    /// The signature is present, but the checksum is wrong.
    #[error(
        "devdax info block at pool offset {INFO_BLOCK_OFFSET}: checksum {found:#x}, expected \
         {expected:#x}"
    )]
    Checksum {
        /// Checksum stored in the block.
        found: u64,
        /// Checksum of the block's bytes.
        expected: u64,
    },
    /// A field has a value that a guest would refuse or that would misplace the data.
    #[error(
        "devdax info block at pool offset {INFO_BLOCK_OFFSET}: {field} is {found}, expected {expected}"
    )]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Value on the media.
        found: u64,
        /// Value that this version of the tools writes and understands.
        expected: u64,
    },
    /// The block is that of a pool of another size.
    #[error(
        "its devdax info block is for {}, but the pool has {}: if a resize was interrupted, run \
         the same `vhost-famfs pool resize` again; else something else cut or extended the file",
        human(*.found), human(*.pool_len)
    )]
    OtherLength {
        /// Length in bytes of the pool that the block is for.
        found: u64,
        /// Length in bytes of this pool.
        pool_len: u64,
    },
    /// The pool could not be read.
    #[error("cannot read the devdax info block at pool offset {INFO_BLOCK_OFFSET}")]
    Read(#[source] io::Error),
}

/// How guests see a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// No info block: `/dev/pmem0`, data at pool offset 0.
    Raw,
    /// An info block at 4 KiB: `/dev/dax0.0`, data at pool offset 2 MiB.
    Devdax,
}

impl View {
    /// Pool offset in bytes of the guest device's first byte, where famfs starts.
    pub fn data_offset(self) -> u64 {
        match self {
            Self::Raw => 0,
            Self::Devdax => DEVDAX_DATA_OFFSET,
        }
    }

    /// The view's name as the tools print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Devdax => "devdax",
        }
    }

    /// Detects the view of a pool file of `pool_len` bytes.
    ///
    /// A block with the signature but wrong contents is an error, not the raw view: a file system
    /// in the raw view would overwrite the info area.
    pub fn detect(pool: &File, pool_len: u64) -> Result<Self, ViewError> {
        let mut bytes = [0; INFO_BLOCK_LEN];
        match pool.read_exact_at(&mut bytes, INFO_BLOCK_OFFSET) {
            Ok(()) => {}
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(Self::Raw),
            Err(err) => return Err(ViewError::Read(err)),
        }
        Ok(match InfoBlock::parse(&bytes, pool_len)? {
            Some(_) => Self::Devdax,
            None => Self::Raw,
        })
    }
}

impl InfoBlock {
    /// The block for a pool of `pool_len` bytes; write it at [`INFO_BLOCK_OFFSET`].
    pub fn build(pool_len: u64, uuid: Uuid) -> Result<Self, ViewError> {
        let data_len = data_len(pool_len)?;
        let mut block = Self {
            signature: SIGNATURE,
            uuid: uuid.into_bytes(),
            parent_uuid: [0; 16],
            flags: U32::ZERO,
            version_major: U16::new(VERSION_MAJOR),
            version_minor: U16::new(VERSION_MINOR),
            dataoff: U64::new(DEVDAX_DATA_OFFSET),
            npfns: U64::new(data_len / PAGE_SIZE),
            mode: U32::new(MODE_RAM),
            start_pad: U32::ZERO,
            end_trunc: U32::ZERO,
            align: U32::new(2 << 20),
            page_size: U32::new(4096),
            page_struct_size: U16::new(STRUCT_PAGE_SIZE),
            padding: [0; 3994],
            checksum: U64::ZERO,
        };
        block.checksum = U64::new(fletcher64(block.as_bytes()));
        Ok(block)
    }

    /// The length of the pool that a block claims to be made for; `None` without the signature.
    pub fn claimed_len(bytes: &[u8; INFO_BLOCK_LEN]) -> Option<u64> {
        let block: Self = zerocopy::transmute!(*bytes);
        let data_len = block.npfns.get().checked_mul(PAGE_SIZE)?;
        (block.signature == SIGNATURE).then(|| data_len.checked_add(DEVDAX_DATA_OFFSET))?
    }

    /// Parses a block from the media's bytes: `None` without the signature; an error if the
    /// signature is there but the block does not fit a pool of `pool_len` bytes.
    pub fn parse(bytes: &[u8; INFO_BLOCK_LEN], pool_len: u64) -> Result<Option<Self>, ViewError> {
        if bytes[..SIGNATURE.len()] != SIGNATURE {
            return Ok(None);
        }
        let block: Self = zerocopy::transmute!(*bytes);
        let found = block.checksum.get();
        let expected = Self::checksum(bytes);
        if found != expected {
            return Err(ViewError::Checksum { found, expected });
        }
        let fields: [(&'static str, u64, u64); 8] = [
            ("flags", block.flags.get().into(), 0),
            ("major version", block.version_major.get().into(), VERSION_MAJOR.into()),
            ("minor version", block.version_minor.get().into(), VERSION_MINOR.into()),
            ("mode", block.mode.get().into(), MODE_RAM.into()),
            ("start_pad", block.start_pad.get().into(), 0),
            ("end_trunc", block.end_trunc.get().into(), 0),
            ("page size", block.page_size.get().into(), PAGE_SIZE),
            ("data offset", block.dataoff.get(), DEVDAX_DATA_OFFSET),
        ];
        let data_len = data_len(pool_len)?;
        let found = fields.into_iter().find(|(_, found, expected)| found != expected);
        if let Some((field, found, expected)) = found {
            return Err(ViewError::Field { field, found, expected });
        }
        let claimed = block.npfns.get().saturating_mul(PAGE_SIZE);
        if claimed != data_len {
            let found = claimed.saturating_add(DEVDAX_DATA_OFFSET);
            return Err(ViewError::OtherLength { found, pool_len });
        }
        Ok(Some(block))
    }

    /// The right value for the last eight bytes of a block.
    pub fn checksum(bytes: &[u8; INFO_BLOCK_LEN]) -> u64 {
        fletcher64(bytes)
    }

    /// Identity of the block.
    pub fn uuid(&self) -> Uuid {
        Uuid::from_bytes(self.uuid)
    }
}

/// Bytes of data in the devdax view of a pool of `pool_len` bytes.
fn data_len(pool_len: u64) -> Result<u64, ViewError> {
    match pool_len.checked_sub(DEVDAX_DATA_OFFSET) {
        Some(len) if len > 0 && len.is_multiple_of(DEVDAX_DATA_OFFSET) => Ok(len),
        _ => Err(ViewError::PoolLength { pool_len }),
    }
}

/// libnvdimm's Fletcher-64 over little-endian 32-bit words; the block's last eight bytes, the
/// checksum itself, count as zero.
fn fletcher64(block: &[u8]) -> u64 {
    let (mut lo, mut hi) = (0_u32, 0_u64);
    for (at, word) in block.chunks_exact(4).enumerate() {
        let in_checksum = at * 4 >= INFO_BLOCK_LEN - 8;
        let word =
            if in_checksum { 0 } else { u32::from_le_bytes([word[0], word[1], word[2], word[3]]) };
        lo = lo.wrapping_add(word);
        hi = hi.wrapping_add(lo.into());
    }
    hi << 32 | u64::from(lo)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    const POOL_LEN: u64 = 8 << 30;
    /// The block that ndctl 81 wrote into an 8 GiB pool; bytes not given are zero.
    const NDCTL_UUID: &str = "a258f04e-69b4-46ad-af4f-bb0f41ba4f12";
    const NDCTL_FIELDS: [u8; 48] = [
        0, 0, 0, 0, 1, 0, 4, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, //
        0, 0xfe, 0x1f, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, //
        0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0x10, 0, 0, 0x40, 0, 0, 0,
    ];
    const NDCTL_CHECKSUM: [u8; 8] = [0x67, 0x67, 0xf8, 0xf5, 0xf2, 0xa6, 0x47, 0x86];

    fn ndctl_block() -> [u8; INFO_BLOCK_LEN] {
        let mut bytes = [0; INFO_BLOCK_LEN];
        bytes[..16].copy_from_slice(b"NVDIMM_DAX_INFO\0");
        bytes[16..32].copy_from_slice(NDCTL_UUID.parse::<Uuid>().unwrap().as_bytes());
        bytes[48..96].copy_from_slice(&NDCTL_FIELDS);
        bytes[4088..].copy_from_slice(&NDCTL_CHECKSUM);
        bytes
    }

    #[test]
    fn builds_what_ndctl_writes() {
        let block = InfoBlock::build(POOL_LEN, NDCTL_UUID.parse().unwrap()).unwrap();
        assert_eq!(block.as_bytes(), ndctl_block());
    }

    #[test]
    fn reads_what_ndctl_writes() {
        let block = InfoBlock::parse(&ndctl_block(), POOL_LEN).unwrap().unwrap();
        assert_eq!(block.uuid().to_string(), NDCTL_UUID);
    }

    #[test]
    fn refuses_every_flipped_bit_behind_the_signature() {
        for bit in 16 * 8..INFO_BLOCK_LEN * 8 {
            let mut bytes = ndctl_block();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let err = InfoBlock::parse(&bytes, POOL_LEN).err();
            assert!(matches!(err, Some(ViewError::Checksum { .. })), "bit {bit}: {err:?}");
        }
    }

    #[test]
    fn refuses_a_block_of_another_pool_size() {
        let err = InfoBlock::parse(&ndctl_block(), POOL_LEN / 2).err().unwrap();
        assert_eq!(
            err.to_string(),
            "its devdax info block is for 8.00 GiB, but the pool has 4.00 GiB: if a resize was \
             interrupted, run the same `vhost-famfs pool resize` again; else something else cut \
             or extended the file"
        );
    }

    #[test]
    fn refuses_a_pool_that_cannot_hold_data() {
        for pool_len in [0, 4096, 2 << 20, (4 << 20) + 4096] {
            assert!(InfoBlock::build(pool_len, Uuid::nil()).is_err(), "{pool_len}");
        }
    }

    #[test]
    fn detects_both_views() {
        let pool = tempfile::tempfile().unwrap();
        assert_eq!(View::detect(&pool, 0).unwrap(), View::Raw, "an empty file");
        pool.set_len(16 << 20).unwrap();
        assert_eq!(View::detect(&pool, 16 << 20).unwrap(), View::Raw, "an empty pool");
        let block = InfoBlock::build(16 << 20, Uuid::nil()).unwrap();
        pool.write_all_at(block.as_bytes(), INFO_BLOCK_OFFSET).unwrap();
        let view = View::detect(&pool, 16 << 20).unwrap();
        assert_eq!((view, view.data_offset()), (View::Devdax, 2 << 20));
    }
}
