// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How signals treat a process that maps memory which may be poisoned.
#![allow(unsafe_code)]

use std::io;

/// Keeps the process alive when memory that it maps is found poisoned or goes away: the kernel then
/// sends SIGBUS as a notice, not because of an access. Touching the memory still ends the process,
/// because a signal that an access raises cannot be ignored.
pub fn ignore_poison_notices() -> io::Result<()> {
    // SAFETY: ignoring a signal runs no code of ours.
    let before = unsafe { libc::signal(libc::SIGBUS, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}
