// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A file that is being written. It has no name until it is complete, so the kernel removes it when
//! this program ends before that.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use famfs::replay::Time;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use uuid::Uuid;

/// An incomplete file.
#[derive(Debug)]
pub struct Part {
    dir: OwnedFd,
    file: File,
    /// Its name, on file systems that have no files without one.
    name: Option<OsString>,
}

impl Part {
    /// Makes an empty file in a directory, which others cannot read yet.
    pub fn new(dir: OwnedFd) -> io::Result<Self> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&dir, ".", flags | OFlags::TMPFILE, mode) {
            Ok(file) => Ok(Self { dir, file: file.into(), name: None }),
            // Some famfs mounts allow it, but a file made so has no memory.
            Err(Errno::OPNOTSUPP) if is_in_famfs(&dir) => Err(Errno::PERM.into()),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                let name = temporary();
                let file =
                    rustix::fs::openat(&dir, &name, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
                Ok(Self { dir, file: file.into(), name: Some(name) })
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// The file, for writing.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives the complete file its attributes and its name, in place of another file.
    pub fn finish(mut self, name: &OsStr, mode: u32, mtime: Option<Time>) -> io::Result<()> {
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode))?;
        set_time(&self.file, mtime)?;
        if self.name.is_none() {
            let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let link = |name: &OsStr| {
                rustix::fs::linkat(CWD, &file, &self.dir, name, AtFlags::SYMLINK_FOLLOW)
            };
            match link(name) {
                Err(Errno::EXIST) => {}
                result => return Ok(result?),
            }
            let temporary = temporary();
            link(&temporary)?;
            self.name = Some(temporary);
        }
        if let Some(temporary) = &self.name {
            rustix::fs::renameat(&self.dir, temporary, &self.dir, name)?;
            self.name = None;
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // The user learns why the file is incomplete, which is what counts.
            let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::empty());
        }
    }
}

/// Makes a symbolic link, in place of another file.
pub fn symlink(dir: impl AsFd, name: &OsStr, target: &[u8]) -> io::Result<()> {
    match rustix::fs::symlinkat(target, &dir, name) {
        Err(Errno::EXIST) => {}
        result => return Ok(result?),
    }
    let temporary = temporary();
    rustix::fs::symlinkat(target, &dir, &temporary)?;
    rustix::fs::renameat(&dir, &temporary, &dir, name).map_err(|errno| {
        let _ = rustix::fs::unlinkat(&dir, &temporary, AtFlags::empty());
        errno.into()
    })
}

/// Sets when a file was changed last.
pub fn set_time(file: impl AsFd, mtime: Option<Time>) -> io::Result<()> {
    let Some(Time { sec, nsec }) = mtime else { return Ok(()) };
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let last_modification = Timespec { tv_sec: sec, tv_nsec: nsec.into() };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access, last_modification })?)
}

fn temporary() -> OsString {
    format!(".vhost-famfs-{}", Uuid::new_v4().simple()).into()
}

/// Whether a path is in a mount of famfs, where only famfs's own tools make files.
pub fn is_in_famfs(dir: impl AsFd) -> bool {
    let link = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
    let Ok(path) = std::fs::read_link(link) else { return false };
    famfs::system::mounts::around(Path::new(&path))
        .is_ok_and(|mount| mount.is_some_and(|mount| mount.fs_type == "famfs"))
}
