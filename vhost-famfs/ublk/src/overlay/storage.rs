// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The operations that an overlay needs on its file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Where holes cannot be made, zeros are written in chunks of this size.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A file that keeps everything that was written before a sync, and without a sync any part of it.
pub trait Storage: Send + Sync {
    /// Fills `buf` from `offset`; fails if the file ends before `buf` is full.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `buf` to `offset`.
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()>;
    /// Makes a range read as zeros, and frees its space where possible.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes a range read as zeros, and keeps its space.
    fn zero(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Returns once all previous writes are on disk.
    fn sync(&self) -> io::Result<()>;
}

impl Storage for File {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write_all_at(buf, offset)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        allocate(self, flags, offset, len)
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        allocate(self, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// fallocate(2), or writing zeros if the file system does not support these flags.
fn allocate(file: &File, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, flags, offset, len) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, offset, len),
        result => Ok(result?),
    }
}

fn write_zeros(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let end = offset + len;
    let mut at = offset;
    while at < end {
        let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_all_at(&ZEROS[..count], at)?;
        at += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_by_hole_by_range_and_by_hand() {
        let file = tempfile::tempfile().unwrap();
        for name in ["punch", "zero", "write"] {
            file.write_all_at(&[1; 200_000], 0).unwrap();
            let zeroed = match name {
                "punch" => file.punch(1000, 150_000),
                "zero" => file.zero(1000, 150_000),
                _ => write_zeros(&file, 1000, 150_000),
            };
            zeroed.unwrap();
            let mut found = vec![9; 200_000];
            Storage::read_at(&file, 0, &mut found).unwrap();
            let zeros = found.iter().filter(|byte| **byte == 0).count();
            assert_eq!((zeros, found[999], found[151_000]), (150_000, 1, 1), "{name}");
        }
        assert_eq!(file.metadata().unwrap().len(), 200_000);
    }
}
