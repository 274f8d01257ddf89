// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The operation that needs `unsafe`: a system call on memory that others write.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use vm_memory::VolatileSlice;

/// pwrite(2) from memory that others may write at the same time: the kernel copies what it finds.
/// Returns how many bytes were written. Unmapped memory ends the write early; if the first bytes
/// are unmapped, that is an error.
pub fn write_volatile_at(
    fd: impl AsFd,
    bytes: &VolatileSlice<'_>,
    offset: u64,
) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (fd, start) = (fd.as_fd(), bytes.ptr_guard());
    // SAFETY: the kernel reads at most `bytes.len()` bytes from `start`, which a `VolatileSlice`
    // keeps mapped; where the file below has none it returns EFAULT or a smaller count. Nothing is
    // written.
    let count = unsafe { libc::pwrite(fd.as_raw_fd(), start.as_ptr().cast(), bytes.len(), offset) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
