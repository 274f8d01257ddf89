// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What signals do to a process that has memory mapped which may be poisoned.
#![allow(unsafe_code)]

use std::io;

/// Lets the process live when memory that it has mapped turns out to be poisoned or goes away: the
/// kernel then sends SIGBUS to be told, not because the memory was touched. Touching it still ends
/// the process: the kernel does not let a signal be ignored that an access raises.
pub fn ignore_poison_notices() -> io::Result<()> {
    // SAFETY: to ignore a signal runs no code of ours.
    let before = unsafe { libc::signal(libc::SIGBUS, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}
