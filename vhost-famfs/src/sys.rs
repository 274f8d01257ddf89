// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What needs `unsafe`: taking over descriptors that nobody owns, the memory policy of a mapping,
//! and that of the heap.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use vm_memory::MmapRegion;

/// Takes ownership of the inherited descriptor `number`.
///
/// Call it once per number, before the process opens anything of its own: that is what makes
/// the descriptor the parent's. Standard input, output and error are refused.
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    if (0..=2).contains(&number) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "0, 1 and 2 are standard input, output and error",
        ));
    }
    if std::fs::read_link(format!("/proc/self/fd/{number}")).is_err() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no such descriptor is open; the parent process must pass it without close-on-exec",
        ));
    }
    // SAFETY: the lookup above found the descriptor open, and by this function's contract it
    // was open before the process opened anything, so nothing else in the process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes a descriptor that a library gave up without closing it.
///
/// Call it only for a number that `into_raw_fd` returned and that nothing uses any more.
pub fn close_abandoned(number: RawFd) {
    // SAFETY: by this function's contract `into_raw_fd` gave the ownership up and nobody took it.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
}

/// Lets all threads allocate from one heap. glibc gives each thread one of its own otherwise, which
/// costs memory and, when a VM connects, time; the threads of a back-end rarely allocate.
///
/// Call it before the process starts a thread. That it has no effect is no error.
pub fn share_one_heap() {
    // SAFETY: mallopt(3) takes two numbers and is not called by another thread, by this function's contract.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// `MPOL_BIND` of `linux/mempolicy.h`.
const MPOL_BIND: libc::c_long = 2;
/// Highest NUMA node that can be named; the kernel's own limit is 1024.
pub const MAX_NODE: u32 = 1023;

/// Binds the pages of a shared mapping of tmpfs or hugetlbfs to a NUMA node. The policy belongs
/// to the file: it holds for every later fault of every process, until the file is gone.
pub fn bind_to_node(mapping: &MmapRegion, node: u32) -> io::Result<()> {
    const BITS: u32 = libc::c_ulong::BITS;
    let mut mask: [libc::c_ulong; (MAX_NODE / BITS + 1) as usize] = [0; _];
    let word = usize::try_from(node / BITS).map_err(io::Error::other)?;
    let Some(word) = mask.get_mut(word) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    *word |= 1 << (node % BITS);
    // The kernel reads one bit less than it is told.
    let bits = libc::c_ulong::from(MAX_NODE) + 2;
    let flags: libc::c_uint = 0;
    // SAFETY: `mapping` is mapped for as long as it is borrowed, `mask` has at least `bits - 1`
    // bits, and the call changes neither the mapping's addresses nor its contents.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            mapping.as_ptr(),
            mapping.size(),
            MPOL_BIND,
            mask.as_ptr(),
            bits,
            flags,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_open() {
        for number in [1_000_000, -1] {
            assert_eq!(inherited_fd(number).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert_eq!(inherited_fd(1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
