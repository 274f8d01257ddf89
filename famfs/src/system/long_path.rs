// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Paths of any length: the system takes at most 4,095 bytes in one call.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

/// Bytes that one call gets, with room for the name of a file behind them.
const STEP: usize = 3800;

/// A path as a directory that was opened on the way, and the rest.
pub struct LongPath<'p> {
    dir: Option<OwnedFd>,
    rest: &'p Path,
}

impl<'p> LongPath<'p> {
    /// Opens the directories on the way to a path that is too long for one call.
    pub fn new(path: &'p Path) -> io::Result<Self> {
        let mut dir: Option<OwnedFd> = None;
        let mut rest = path.as_os_str().as_bytes();
        while rest.len() > STEP {
            // A name has at most 255 bytes: without a slash the system says so itself.
            let Some(slash) = rest[..STEP].iter().rposition(|&byte| byte == b'/') else { break };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let from = dir.as_ref().map_or(CWD, AsFd::as_fd);
            let start = OsStr::from_bytes(&rest[..=slash]);
            dir = Some(openat(from, start, flags, Mode::empty())?);
            let next = rest[slash..].iter().take_while(|&&byte| byte == b'/').count();
            rest = &rest[slash + next..];
        }
        Ok(Self { dir, rest: Path::new(OsStr::from_bytes(rest)) })
    }

    /// The directory from which [`LongPath::rest`] is looked up.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_ref().map_or(CWD, AsFd::as_fd)
    }

    /// The path from there; not empty unless the whole path is.
    pub fn rest(&self) -> &Path {
        if self.dir.is_some() && self.rest.as_os_str().is_empty() {
            return Path::new(".");
        }
        self.rest
    }
}

/// Opens a file or directory.
pub fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let long = LongPath::new(path)?;
    Ok(openat(long.dir(), long.rest(), flags | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_have_any_length() {
        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().to_owned();
        let mut at = open(&path, OFlags::DIRECTORY).unwrap();
        for _ in 0..30 {
            let name = "d".repeat(255);
            rustix::fs::mkdirat(&at, &*name, Mode::RWXU).unwrap();
            path.push(&name);
            at = open(&path, OFlags::DIRECTORY).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        openat(&at, "f", flags, Mode::RUSR).unwrap();
        assert!(std::fs::metadata(path.join("f")).is_err(), "too long for one call");
        open(&path.join("f"), OFlags::RDONLY).unwrap();
        open(&path.join("."), OFlags::DIRECTORY).unwrap();
        let none = open(&path.join("none"), OFlags::RDONLY).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
    }
}
