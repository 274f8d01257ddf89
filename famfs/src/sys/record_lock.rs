// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Locks of a whole file by fcntl(2), which belong to the open file as those of flock(2) do, but
//! are apart from them. rustix has only those that belong to the process.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Takes the exclusive lock of a file that is open for writing, if it is free; returns whether it
/// was. It ends with the last descriptor of the open file.
///
/// # Errors
/// The file system has no locks, or the file is not open for writing.
#[allow(clippy::cast_possible_truncation, reason = "the constants are 1 and 0")]
pub fn take(file: impl AsFd) -> io::Result<bool> {
    // A length of 0 is the whole file, however long it gets.
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let file = file.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open as long as `file` is borrowed, and `lock` lives past the call,
    // which only reads it.
    let result = unsafe { libc::fcntl(file, libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        err if err.kind() == io::ErrorKind::WouldBlock => Ok(false),
        // Some file systems say it like this (fcntl(2)).
        err if err.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        err => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{FlockOperation, flock};

    use super::*;

    #[test]
    fn it_is_one_open_files_and_apart_from_flock() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let [first, second] =
            [(); 2].map(|()| File::options().write(true).open(file.path()).unwrap());
        flock(&second, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(take(&first).unwrap() && take(&first).unwrap());
        assert!(!take(&second).unwrap());
        let clone = first.try_clone().unwrap();
        drop(first);
        assert!(!take(&second).unwrap(), "another descriptor of the file has it");
        drop(clone);
        assert!(take(&second).unwrap());
        take(File::open(file.path()).unwrap()).unwrap_err();
    }
}
