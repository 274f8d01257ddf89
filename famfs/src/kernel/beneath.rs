// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files and directories below an open root, and nowhere else: no symbolic link, mount or ".."
//! leads out, whatever others do to the directories meanwhile.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::format::path::RelPath;

/// With these flags no link and no ".." leads out.
const BELOW: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// With these flags nothing but the file system itself is reached.
const INSIDE: ResolveFlags = BELOW.union(ResolveFlags::NO_XDEV);

/// A directory that no operation leaves.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    resolve: ResolveFlags,
}

impl Root {
    /// Uses an open directory as root; what is mounted below it is not reached.
    pub fn new(dir: OwnedFd) -> Self {
        Self { dir, resolve: INSIDE }
    }

    /// Uses an open directory of the user's as root; what the user mounted below it is reached.
    pub fn with_mounts(dir: OwnedFd) -> Self {
        Self { dir, resolve: BELOW }
    }

    /// Opens what is at a path. `mode` applies to a file that is made.
    pub fn open(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        rustix::fs::openat2(&self.dir, path, flags | OFlags::CLOEXEC, mode, self.resolve)
    }

    /// Opens the directory that a path's last name is in.
    pub fn open_parent(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        Ok(match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                self.open(parent, flags, Mode::empty())?
            }
            _ => self.dir.try_clone()?,
        })
    }

    /// Opens what is at a name of an open directory below the root.
    pub fn open_in(
        &self,
        dir: impl AsFd,
        name: &[u8],
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd, Errno> {
        rustix::fs::openat2(dir, name, flags | OFlags::CLOEXEC, mode, self.resolve)
    }

    /// Removes a file or an empty directory.
    pub fn remove(&self, path: &RelPath, is_dir: bool) -> io::Result<()> {
        self.remove_at(path.as_path(), is_dir)
    }

    /// The same for a path that need not be one of the log.
    pub fn remove_at(&self, path: &Path, is_dir: bool) -> io::Result<()> {
        let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let name = path.file_name().unwrap_or_default();
        Ok(rustix::fs::unlinkat(self.open_parent(path)?, name, flags)?)
    }

    /// Removes what could not be completed; the user must learn why it could not, and no more.
    pub fn discard(&self, path: &RelPath, is_dir: bool) {
        let _ = self.remove(path, is_dir);
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(dir: &Path) -> Root {
        Root::new(File::open(dir).unwrap().into())
    }

    fn path(path: &str) -> RelPath {
        RelPath::new(path.as_bytes()).unwrap()
    }

    #[test]
    fn a_link_leads_nowhere() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = root(inside.path());
        symlink(outside.path(), inside.path().join("link")).unwrap();
        fs::write(outside.path().join("file"), "").unwrap();
        assert!(root.remove(&path("link/file"), false).is_err());
        assert!(root.open(Path::new("link/file"), OFlags::RDONLY, Mode::empty()).is_err());
        let inner = File::open(inside.path()).unwrap();
        assert!(root.open_in(&inner, b"link", OFlags::RDONLY, Mode::empty()).is_err());
        assert!(root.open_parent(Path::new("link/file")).is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}
