// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Maps a file in memory, so that one system call copies from it to the pages of a request.
//!
//! Reads from a file in tmpfs always block: io_uring hands each one to a thread, and waking two
//! threads takes about as long as the copy. A file on storage is not mapped: io_uring reads it at
//! once if it is in the page cache, and waits elsewhere if it is not, while a page fault would
//! block all requests of a queue.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// The unit of `st_blocks` (stat(2)).
const BLOCK: u64 = 512;

/// All bytes of a file, mapped for reading. Others may write to them, and truncating the file
/// removes them. So only the kernel may access them: it returns an error if they are missing.
#[derive(Debug)]
pub struct Mapped(MmapRegion);

impl Mapped {
    /// Maps the first `size` bytes of a file if it is in tmpfs and has no holes: reading a hole
    /// through a mapping allocates a page.
    pub fn of(file: &File, size: u64) -> Option<Self> {
        let meta = file.metadata().ok().filter(|meta| meta.is_file())?;
        if meta.blocks().saturating_mul(BLOCK) < size || !is_in_tmpfs(file) {
            return None;
        }
        let size = usize::try_from(size).ok()?;
        let start = FileOffset::new(file.try_clone().ok()?, 0);
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // If it cannot be mapped, the file is read.
        MmapRegion::build(Some(start), size, libc::PROT_READ, flags).map(Self).ok()
    }

    /// A range of the file.
    pub fn bytes(&self, offset: u64, len: u64) -> Option<VolatileSlice<'_>> {
        let (offset, len) = (usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
        self.0.get_slice(offset, len).ok()
    }
}

/// Whether a file, or the node of a device, is in tmpfs. If that cannot be determined, it is not.
fn is_in_tmpfs(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| stat.f_type == libc::TMPFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    use rustix::fs::MemfdFlags;

    const SIZE: u64 = 1 << 20;

    /// What the kernel reads at an offset of a mapping.
    fn look(mapped: &Mapped, offset: u64, len: u64) -> std::io::Result<Vec<u8>> {
        let copy = tempfile::tempfile()?;
        let bytes = mapped.bytes(offset, len).unwrap();
        let count = crate::sys::write_volatile_at(&copy, &bytes, 0)?;
        let mut buf = vec![0; count];
        copy.read_exact_at(&mut buf, 0)?;
        Ok(buf)
    }

    fn in_memory() -> File {
        rustix::fs::memfd_create("image", MemfdFlags::CLOEXEC).unwrap().into()
    }

    #[test]
    fn a_file_in_memory_is_seen_as_it_is() {
        let file = in_memory();
        file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
        let mapped = Mapped::of(&file, SIZE).unwrap();
        file.write_all_at(&[2; 512], 4096).unwrap();
        let found = look(&mapped, 3584, 1536).unwrap();
        assert_eq!(found, [[1; 512], [2; 512], [1; 512]].concat());
        for (offset, len) in [(SIZE - 512, 1024), (SIZE, 1), (u64::MAX, 2), (0, u64::MAX)] {
            assert!(mapped.bytes(offset, len).is_none(), "{offset} {len}");
        }
    }

    #[test]
    fn what_is_cut_off_is_an_error_of_the_system_call() {
        let file = in_memory();
        file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
        let mapped = Mapped::of(&file, SIZE).unwrap();
        file.set_len(512 << 10).unwrap();
        assert_eq!(look(&mapped, 508 << 10, 8 << 10).unwrap(), vec![1; 4 << 10]);
        let err = look(&mapped, 512 << 10, 4096).unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::EFAULT));
    }

    #[test]
    fn only_files_in_memory_without_holes_are_mapped() {
        let file = in_memory();
        file.set_len(SIZE).unwrap();
        assert!(Mapped::of(&file, SIZE).is_none());
        file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
        assert!(Mapped::of(&file, SIZE).is_some());
        assert!(Mapped::of(&file, 2 * SIZE).is_none());
        // A file elsewhere, and a device node, which is in a tmpfs but has its data elsewhere.
        for path in ["/proc/version", "/dev/null"] {
            assert!(Mapped::of(&File::open(path).unwrap(), 0).is_none(), "{path}");
        }
    }
}
