// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Target: detecting a pool's view. Input: one byte (bit 0: correct the info block's checksum; the
//! rest chooses the pool's length), then the pool's bytes from 4 KiB on.
//!
//! Invariants:
//! * without the signature a pool is raw; with it, it is devdax or an error;
//! * the device of a devdax pool is the pool without its first 2 MiB, in whole units;
//! * an accepted info block is the one that we would have made.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use famfs::format::view::{INFO_BLOCK_LEN, INFO_BLOCK_OFFSET, InfoBlock, View};
use famfs::media::{Media, PoolFile};
use famfs::sys::dax::Access;
use rustix::fs::MemfdFlags;
use zerocopy::IntoBytes;

const SIGNATURE: &[u8; 16] = b"NVDIMM_DAX_INFO\0";
/// Lengths to choose from: whole units, not whole ones, too short ones.
const POOL_LENS: [u64; 8] = [1 << 33, 16 << 20, 4 << 20, (16 << 20) + 4096, 2 << 20, 8192, 4095, 0];

/// Runs the target.
///
/// # Panics
/// When an invariant does not hold, or the system has no memory for a sparse file.
pub fn run(data: &[u8]) {
    let (first, data) = data.split_first().unwrap_or((&0, &[]));
    let pool_len = POOL_LENS[usize::from(first >> 5)];
    let mut block = [0; INFO_BLOCK_LEN];
    let len = data.len().min(INFO_BLOCK_LEN);
    block[..len].copy_from_slice(&data[..len]);
    if first & 1 != 0 {
        let checksum = InfoBlock::checksum(&block);
        block[INFO_BLOCK_LEN - 8..].copy_from_slice(&checksum.to_le_bytes());
    }

    let pool = rustix::fs::memfd_create("pool", MemfdFlags::CLOEXEC).expect("no memory file");
    let pool = File::from(pool);
    pool.write_all_at(&block, INFO_BLOCK_OFFSET).expect("no memory for a page");
    pool.set_len(pool_len).expect("no memory for a hole");
    let whole = pool_len >= INFO_BLOCK_OFFSET + INFO_BLOCK_LEN as u64;
    let signed = whole && block.starts_with(SIGNATURE);

    let path = format!("/proc/self/fd/{}", pool.as_raw_fd());
    match PoolFile::open(Path::new(&path), Access::Read) {
        Ok(media) if media.view() == View::Raw => {
            assert!(!signed, "a pool with the signature is taken as raw");
            assert_eq!((media.origin(), media.len()), (0, pool_len));
        }
        Ok(media) => {
            assert!(signed);
            assert_eq!((media.origin(), media.len()), (2 << 20, pool_len - (2 << 20)));
            assert!(media.len() > 0 && media.len().is_multiple_of(2 << 20));
            let parsed = InfoBlock::parse(&block, pool_len).ok().flatten();
            let uuid = parsed.expect("the same bytes are no block now").uuid();
            let ours = InfoBlock::build(pool_len, uuid).expect("no block for this length");
            let differs = |at: &usize| ours.as_bytes()[*at] != block[*at];
            // Fields that the kernel ignores in this mode may differ.
            let free = |at: usize| (32..48).contains(&at) || at >= 84;
            let odd = (0..INFO_BLOCK_LEN).filter(differs).find(|at| !free(*at));
            assert_eq!(odd, None, "byte of the info block that we would not write");
        }
        Err(_) => assert!(signed, "a pool without the signature is an error"),
    }
}
