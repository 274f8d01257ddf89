// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Changing the attributes of one mount: mount_setattr(2), which rustix does not have.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// What a mount can refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Writing: `ro`.
    Writing,
    /// Running programs: `noexec`.
    Running,
}

/// Makes a mount refuse something, or allow it, through an open directory that is its root.
pub fn set(root: impl AsFd, refusal: Refusal, on: bool) -> io::Result<()> {
    let flag = match refusal {
        Refusal::Writing => libc::MOUNT_ATTR_RDONLY,
        Refusal::Running => libc::MOUNT_ATTR_NOEXEC,
    };
    let (attr_set, attr_clr) = if on { (flag, 0) } else { (0, flag) };
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
    fn a_mount_refuses_and_allows_again() {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let own = match open_tree(CWD, "/", flags) {
            Err(err) if !rustix::process::geteuid().is_root() => {
                return assert_eq!(err, Errno::PERM);
            }
            own => own.unwrap(),
        };
        for (refusal, flag) in [
            (Refusal::Writing, StatVfsMountFlags::RDONLY),
            (Refusal::Running, StatVfsMountFlags::NOEXEC),
        ] {
            for on in [true, false] {
                set(&own, refusal, on).unwrap();
                assert_eq!(fstatvfs(&own).unwrap().f_flag.contains(flag), on, "{refusal:?}");
            }
        }
    }
}
