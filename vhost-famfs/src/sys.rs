// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The one place that needs `unsafe`: taking over a descriptor that a parent process passed.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

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
