// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes files, directories and links below a directory.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::contents::{bytes, seed};
use crate::tree::{Time, names};

/// The first day of the times that entries get: 1 January 2020.
const EARLIEST: i64 = 1_577_836_800;

/// A tree that is being made. Paths are relative to its root and may have up to 4,095 bytes,
/// wherever the root is; directories on the way are made.
///
/// Every entry gets a modification time that follows from its path, unless [`Self::time`] sets one.
#[derive(Debug)]
pub struct Plant {
    path: PathBuf,
    root: OwnedFd,
    /// What [`Self::finish`] sets, when nothing is made any more.
    times: RefCell<Vec<(Vec<u8>, Time)>>,
    modes: RefCell<Vec<(Vec<u8>, u32)>>,
}

impl Plant {
    /// Begins a tree in a directory that is empty or missing.
    pub fn create(path: &Path) -> Result<Self> {
        let about = || format!("cannot make a tree in {}", path.display());
        fs::create_dir_all(path).with_context(about)?;
        ensure!(fs::read_dir(path).with_context(about)?.next().is_none(), "{}: not empty", {
            path.display()
        });
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).with_context(about)?;
        let (times, modes) = Default::default();
        Ok(Self { path: path.to_owned(), root, times, modes })
    }

    /// Where the tree is, for programs that make a part of it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory with mode 0755, unless it is there.
    pub fn dir(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        match rustix::fs::mkdirat(&self.root, path, Mode::from_raw_mode(0o755)) {
            Err(Errno::NOENT) => {
                self.parents(path)?;
                self.dir(path)
            }
            Err(Errno::EXIST) => Ok(()),
            made => self.done(path, made),
        }
    }

    /// Makes a file of these bytes with mode 0644.
    pub fn file(&self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Result<()> {
        let (path, content) = (path.as_ref(), content.as_ref());
        self.open(path)?.write_all_at(content, 0).with_context(|| shown(path))
    }

    /// Makes a file of so many bytes that follow from its path.
    pub fn random(&self, path: impl AsRef<[u8]>, length: usize) -> Result<()> {
        let path = path.as_ref();
        self.file(path, bytes(seed(path), length))
    }

    /// Makes a file of this length where only these ranges (offset, length) have data.
    pub fn sparse(
        &self,
        path: impl AsRef<[u8]>,
        length: u64,
        data: impl IntoIterator<Item = (u64, usize)>,
    ) -> Result<()> {
        let path = path.as_ref();
        let file = self.open(path)?;
        file.set_len(length).with_context(|| shown(path))?;
        for (offset, length) in data {
            let content = bytes(seed(path) ^ offset, length);
            file.write_all_at(&content, offset).with_context(|| shown(path))?;
        }
        Ok(())
    }

    /// Makes a symbolic link with this text.
    pub fn symlink(&self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        self.parents(path)?;
        self.done(path, rustix::fs::symlinkat(target.as_ref(), &self.root, path))
    }

    /// Makes another name of a file or symbolic link.
    pub fn link(&self, path: impl AsRef<[u8]>, existing: impl AsRef<[u8]>) -> Result<()> {
        let path = path.as_ref();
        self.parents(path)?;
        let existing = existing.as_ref();
        let linked = rustix::fs::linkat(&self.root, existing, &self.root, path, AtFlags::empty());
        self.done(path, linked)
    }

    /// Gives a file or directory this mode at the end.
    pub fn mode(&self, path: impl AsRef<[u8]>, mode: u32) {
        self.modes.borrow_mut().push((path.as_ref().to_vec(), mode));
    }

    /// Gives an entry to a user and a group, where root makes the tree.
    pub fn owner(&self, path: impl AsRef<[u8]>, user: u32, group: u32) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let path = path.as_ref();
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        self.done(path, rustix::fs::chownat(&self.root, path, Some(user), Some(group), flags))
    }

    /// Gives an entry this modification time at the end.
    pub fn time(&self, path: impl AsRef<[u8]>, time: Time) {
        self.times.borrow_mut().push((path.as_ref().to_vec(), time));
    }

    /// Gives an entry this modification time now: for programs that look at it.
    pub fn time_now(&self, path: impl AsRef<[u8]>, time: Time) -> Result<()> {
        self.set_time(path.as_ref(), time)?;
        self.time(path, time);
        Ok(())
    }

    /// Sets times and modes.
    pub fn finish(self) -> Result<()> {
        self.finish_with(|path| {
            let seed = seed(path);
            let seconds = EARLIEST + i64::try_from(seed % 150_000_000)?;
            Ok(Time { seconds, nanoseconds: u32::try_from((seed >> 32) % 1_000_000_000)? })
        })
    }

    /// Sets modes, and this time of everything.
    pub fn finish_at(self, time: Time) -> Result<()> {
        self.finish_with(|_| Ok(time))
    }

    fn finish_with(self, time: impl Fn(&[u8]) -> Result<Time>) -> Result<()> {
        // Of the names of one file the first in order of bytes counts, wherever the directories
        // list it.
        let mut names = names(&self.root)?;
        names.sort();
        for (path, _) in names.iter().rev().filter(|(path, _)| !path.is_empty()) {
            self.set_time(path, time(path)?)?;
        }
        for (path, mode) in self.modes.borrow().iter() {
            let mode = Mode::from_raw_mode(*mode);
            self.done(path, rustix::fs::chmodat(&self.root, &path[..], mode, AtFlags::empty()))?;
        }
        self.times.borrow().iter().try_for_each(|(path, time)| self.set_time(path, *time))
    }

    fn set_time(&self, path: &[u8], time: Time) -> Result<()> {
        let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        self.done(path, rustix::fs::utimensat(&self.root, path, &times, flags))
    }

    fn open(&self, path: &[u8]) -> Result<File> {
        self.parents(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let file = rustix::fs::openat(&self.root, path, flags, mode);
        Ok(File::from(file.with_context(|| shown(path))?))
    }

    fn parents(&self, path: &[u8]) -> Result<()> {
        match path.iter().rposition(|byte| *byte == b'/') {
            Some(end) => self.dir(&path[..end]),
            None => Ok(()),
        }
    }

    fn done(&self, path: &[u8], result: rustix::io::Result<()>) -> Result<()> {
        result.with_context(|| format!("cannot make {}", shown(path)))
    }
}

/// A path for messages.
fn shown(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

/// Removes a directory and all below it, also what lies in read-only directories.
pub fn remove_all(dir: &Path) -> Result<()> {
    let about = || format!("cannot remove {}", dir.display());
    let root = rustix::fs::openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        .with_context(about)?;
    for (path, is_dir) in names(&root)? {
        if is_dir && !path.is_empty() {
            let mode = Mode::from_raw_mode(0o755);
            rustix::fs::chmodat(&root, &path[..], mode, AtFlags::empty()).with_context(about)?;
        }
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).with_context(about)?;
    fs::remove_dir_all(dir).with_context(about)
}
