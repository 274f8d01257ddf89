// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Mappings of memory that other systems read and write at the same time.
//!
//! No Rust reference into such a mapping is ever made: bytes are copied in and out.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{Ordering, fence};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::cache;

/// What a mapping is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing.
    Write,
}

/// A shared mapping of the first bytes of a file.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
    access: Access,
}

// SAFETY: the mapping is plain memory; every access goes through `range`, which needs no state.
unsafe impl Send for Mapping {}
// SAFETY: concurrent access is the normal case (other systems write the memory); there are only
// raw copies, and no result is trusted before it is checked.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of `file`, shared.
    pub fn new(file: &File, len: usize, access: Access) -> io::Result<Self> {
        let prot = match access {
            Access::Read => ProtFlags::READ,
            Access::Write => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe { mmap(ptr::null_mut(), len, prot, MapFlags::SHARED, file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len, access })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped; `mmap` refuses that, so never.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies bytes out of the mapping.
    pub fn read(&self, offset: usize, buf: &mut [u8]) -> io::Result<()> {
        let from = self.range(offset, buf.len())?;
        // SAFETY: `range` checked the source; `buf` is ours and overlaps no file mapping.
        unsafe { ptr::copy_nonoverlapping(from, buf.as_mut_ptr(), buf.len()) };
        Ok(())
    }

    /// Copies bytes into the mapping. Eight aligned bytes are one store, which every processor sees
    /// after all earlier stores.
    pub fn write(&self, offset: usize, buf: &[u8]) -> io::Result<()> {
        if self.access == Access::Read {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let to = self.range(offset, buf.len())?;
        match <[u8; 8]>::try_from(buf) {
            Ok(word) if to.addr() % 8 == 0 => {
                fence(Ordering::Release);
                // SAFETY: `range` checked the eight bytes, the guard their alignment.
                unsafe { to.cast::<u64>().write_volatile(u64::from_ne_bytes(word)) };
            }
            // SAFETY: `range` checked the destination; `buf` overlaps no mapping.
            _ => unsafe { ptr::copy_nonoverlapping(buf.as_ptr(), to, buf.len()) },
        }
        Ok(())
    }

    /// Reads `len` bytes from `from` of another file straight into the mapping. `EFAULT` means that
    /// the memory could not be written, [`io::ErrorKind::UnexpectedEof`] that the file is shorter.
    pub fn fill_from(&self, source: &File, from: u64, offset: usize, len: usize) -> io::Result<()> {
        if self.access == Access::Read {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.range(offset, len)?;
        let mut done = 0;
        while done < len {
            let to = self.range(offset + done, len - done)?;
            let at = libc::off_t::try_from(from + done as u64)
                .map_err(|_| io::ErrorKind::InvalidInput)?;
            // SAFETY: `range` checked the destination; the kernel writes it like another system.
            let read = unsafe { libc::pread(source.as_raw_fd(), to.cast(), len - done, at) };
            match usize::try_from(read) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes the cache lines of a range back to memory, before anything that is written later.
    pub fn write_back(&self, offset: usize, len: usize) -> io::Result<()> {
        let start = self.range(offset, len)?;
        // SAFETY: `range` checked that the bytes are mapped.
        unsafe { cache::write_back(start, len) };
        Ok(())
    }

    /// Drops the cache lines of a range, so that the next read sees the memory.
    pub fn invalidate(&self, offset: usize, len: usize) -> io::Result<()> {
        let start = self.range(offset, len)?;
        // SAFETY: `range` checked that the bytes are mapped.
        unsafe { cache::invalidate(start, len) };
        Ok(())
    }

    /// The address of a range inside the mapping.
    fn range(&self, offset: usize, len: usize) -> io::Result<*mut u8> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(self.start.as_ptr().wrapping_add(offset)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` made this mapping and no pointer into it outlives a method call.
        // It cannot fail: the range is exactly what mmap returned.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_through_a_shared_mapping() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let writer = Mapping::new(&file, 8192, Access::Write).unwrap();
        let reader = Mapping::new(&file, 8192, Access::Read).unwrap();
        writer.write(4090, b"across a page").unwrap();
        writer.write(8, &7_u64.to_ne_bytes()).unwrap();
        writer.write_back(0, 8192).unwrap();
        let (mut text, mut word) = ([0; 13], [0; 8]);
        reader.invalidate(0, 8192).unwrap();
        reader.read(4090, &mut text).unwrap();
        reader.read(8, &mut word).unwrap();
        assert_eq!((&text, u64::from_ne_bytes(word)), (b"across a page", 7));
    }

    #[test]
    fn is_filled_from_a_file() {
        let (file, source) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        file.set_len(8192).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&source, b"0123456789", 0).unwrap();
        let map = Mapping::new(&file, 8192, Access::Write).unwrap();
        map.fill_from(&source, 2, 4090, 8).unwrap();
        let mut found = [0; 8];
        map.read(4090, &mut found).unwrap();
        assert_eq!(&found, b"23456789");
        let short = map.fill_from(&source, 2, 0, 9).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        assert!(map.fill_from(&source, 0, 8190, 3).is_err(), "outside");
    }

    #[test]
    fn refuses_what_is_outside() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let map = Mapping::new(&file, 4096, Access::Read).unwrap();
        assert!(map.read(4090, &mut [0; 7]).is_err());
        assert!(map.read(usize::MAX, &mut [0; 2]).is_err());
        assert!(map.write(0, &[0]).is_err(), "a read-only mapping");
    }
}
