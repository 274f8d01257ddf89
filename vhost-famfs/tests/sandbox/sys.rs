// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The one action that needs `unsafe`.
#![allow(unsafe_code)]

use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Maps a page of executable memory, which lasts as long as the process. Returns its address.
///
/// # Errors
/// The error of mmap(2).
pub fn map_executable_page() -> rustix::io::Result<usize> {
    let protection = ProtFlags::READ | ProtFlags::EXEC;
    // SAFETY: the address is null, so the mapping is a new one and replaces nothing.
    let page = unsafe { mmap_anonymous(ptr::null_mut(), 4096, protection, MapFlags::PRIVATE) };
    page.map(|page| page.addr())
}
