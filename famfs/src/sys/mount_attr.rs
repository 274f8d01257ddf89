// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Changing the attributes of one mount: mount_setattr(2), which rustix does not have.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Makes a mount read-only, or writable, through an open directory that is its root.
pub fn set_read_only(root: impl AsFd, read_only: bool) -> io::Result<()> {
    let (attr_set, attr_clr) = match read_only {
        true => (libc::MOUNT_ATTR_RDONLY, 0),
        false => (0, libc::MOUNT_ATTR_RDONLY),
    };
    let attr = libc::mount_attr { attr_set, attr_clr, propagation: 0, userns_fd: 0 };
    let root = root.as_fd().as_raw_fd();
    // SAFETY: the path is empty and ends with a NUL; `attr` lives past the call, and its size is
    // the size passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            root,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, StatVfsMountFlags, fstatvfs};
    use rustix::io::Errno;
    use rustix::mount::{OpenTreeFlags, open_tree};

    use super::*;

    /// Uses a private copy of a mount, which root may make; other users are refused even that.
    #[test]
    fn a_mount_becomes_read_only_and_back() {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let own = match open_tree(CWD, "/", flags) {
            Err(err) if !rustix::process::geteuid().is_root() => {
                return assert_eq!(err, Errno::PERM);
            }
            own => own.unwrap(),
        };
        for read_only in [true, false] {
            set_read_only(&own, read_only).unwrap();
            let found = fstatvfs(&own).unwrap().f_flag.contains(StatVfsMountFlags::RDONLY);
            assert_eq!(found, read_only);
        }
    }
}
