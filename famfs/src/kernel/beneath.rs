// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files and directories below an open root, and nowhere else: no symbolic link, mount or ".."
//! leads out, whatever others do to the directories meanwhile.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::format::path::RelPath;
use crate::replay::Owner;

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

    /// Type and size of what is at a path; `None` if nothing is.
    pub fn existing(&self, path: &RelPath) -> io::Result<Option<(bool, u64)>> {
        match self.open(path.as_path(), OFlags::PATH, Mode::empty()) {
            Ok(found) => {
                let metadata = File::from(found).metadata()?;
                Ok(Some((metadata.is_dir(), metadata.len())))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(err) => Err(err.into()),
        }
    }

    /// Makes a directory with exactly this owner and mode; removes it if that fails.
    pub fn make_dir(&self, path: &RelPath, owner: Owner) -> io::Result<()> {
        let parent = self.parent(path)?;
        rustix::fs::mkdirat(&parent, last_name(path), Mode::from_raw_mode(0o700))?;
        self.open(path.as_path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|dir| set_owner(&dir, owner))
            .inspect_err(|_| self.discard(path, true))
    }

    /// Makes a file with exactly this owner and mode, after `fill` has given the empty file its
    /// bytes; removes it if that fails, because a stub would look like a file of the log.
    pub fn make_file(
        &self,
        path: &RelPath,
        owner: Owner,
        fill: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let stub = self.open(path.as_path(), flags, Mode::from_raw_mode(0o600))?;
        fill(stub.as_fd())
            .and_then(|()| set_owner(&stub, owner))
            .inspect_err(|_| self.discard(path, false))?;
        Ok(File::from(stub))
    }

    /// Removes a file or an empty directory.
    pub fn remove(&self, path: &RelPath, is_dir: bool) -> io::Result<()> {
        let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        Ok(rustix::fs::unlinkat(self.parent(path)?, last_name(path), flags)?)
    }

    /// Removes what could not be completed; the user must learn why it could not, and no more.
    pub fn discard(&self, path: &RelPath, is_dir: bool) {
        let _ = self.remove(path, is_dir);
    }

    fn parent(&self, path: &RelPath) -> io::Result<OwnedFd> {
        self.open_parent(path.as_path())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

fn last_name(path: &RelPath) -> &Path {
    path.as_path().file_name().map_or(path.as_path(), Path::new)
}

/// Sets owner and mode whatever the umask is; the mode last, because chown clears bits of it.
fn set_owner(fd: impl AsFd, owner: Owner) -> io::Result<()> {
    let user = rustix::fs::Uid::from_raw(owner.uid);
    let group = rustix::fs::Gid::from_raw(owner.gid);
    rustix::fs::fchown(&fd, Some(user), Some(group))?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(owner.mode))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(dir: &Path) -> Root {
        Root::new(File::open(dir).unwrap().into())
    }

    /// This process's own user and group, which it may set without privileges.
    fn owner(mode: u32) -> Owner {
        let uid = rustix::process::geteuid().as_raw();
        Owner { uid, gid: rustix::process::getegid().as_raw(), mode }
    }

    fn path(path: &str) -> RelPath {
        RelPath::new(path.as_bytes()).unwrap()
    }

    #[test]
    fn a_link_leads_nowhere() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = root(inside.path());
        symlink(outside.path(), inside.path().join("link")).unwrap();
        assert!(root.make_dir(&path("link/dir"), owner(0o755)).is_err());
        assert!(root.make_file(&path("link/file"), owner(0o644), |_| Ok(())).is_err());
        assert!(root.existing(&path("link/file")).is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_completed_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = root(dir.path());
        let fail = |_: BorrowedFd<'_>| Err(io::ErrorKind::StorageFull.into());
        assert!(root.make_file(&path("file"), owner(0o644), fail).is_err());
        assert_eq!(root.existing(&path("file")).unwrap(), None);
        root.make_file(&path("file"), owner(0o644), |_| Ok(())).unwrap();
        assert_eq!(root.existing(&path("file")).unwrap(), Some((false, 0)));
    }
}
