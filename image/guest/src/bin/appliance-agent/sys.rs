// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A system call that the compiler cannot check.
#![allow(unsafe_code)]

use rustix::io;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Gives the calling thread name spaces of its own for mounts and for the network.
pub fn enter_name_spaces() -> io::Result<()> {
    // SAFETY: without `UnshareFlags::FILES`, every thread still sees the descriptors of all others.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }
}
