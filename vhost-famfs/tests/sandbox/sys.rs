// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The one deed that Rust counts as unsafe.
#![allow(unsafe_code)]

use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Maps a page that programs may run from; it goes with the process. Returns its address.
///
/// # Errors
/// What mmap(2) says.
pub fn map_executable_page() -> rustix::io::Result<usize> {
    let protection = ProtFlags::READ | ProtFlags::EXEC;
    // SAFETY: the address is null, so the mapping is a new one and replaces nothing.
    let page = unsafe { mmap_anonymous(ptr::null_mut(), 4096, protection, MapFlags::PRIVATE) };
    page.map(|page| page.addr())
}
