// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a tree appears: a directory of the system, and what gives its files their memory.
//!
//! Names are made, examined and changed in an open directory, never by a path: so one system call
//! costs one lookup, and what others do to the directories above does not matter.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
};
use rustix::io::Errno;

use crate::format::map::Memory;
use crate::format::path::RelPath;
use crate::kernel::beneath::Root;
use crate::replay::tree::Tree;
use crate::replay::tree::object::{Object, ObjectKind};
use crate::replay::{Owner, Time};

/// The permission bits that are never there while a file is being made.
const SPECIAL: u32 = 0o7000;
/// The set-group-ID bit, which directories pass on.
const SETGID: u32 = 0o2000;
/// The bits that a change of the owner clears.
const SET_ID: u32 = 0o6000;

/// What gives files their memory.
pub trait Backing {
    /// Gives an empty file its size and memory.
    fn give(&self, file: BorrowedFd<'_>, size: u64, memory: &Memory) -> io::Result<()>;

    /// What memory a file of this size has, compared with what it should have.
    fn compare(&self, file: BorrowedFd<'_>, size: u64, memory: &Memory) -> io::Result<Backed>;

    /// The owner and permissions that names get for those of the log.
    fn owner(&self, owner: Owner) -> Owner {
        owner
    }
}

/// A file's memory, compared with what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backed {
    /// It is the same.
    Same,
    /// The system does not tell.
    Unknown,
    /// It is another one.
    Other,
    /// None yet: whoever made the file was killed.
    Without,
}

/// What is at a name, compared with what should be there.
#[derive(Debug)]
pub enum Found {
    /// Nothing.
    Missing,
    /// A file that was never completed.
    Stub,
    /// The same, with these attributes.
    Same(Stat),
    /// A file with other memory.
    OtherMemory,
    /// Something else, in words.
    Other(String),
}

/// An open directory, and what new names in it get from the system.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    gid: u32,
    setgid: bool,
}

impl Dir {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Self { fd, gid: stat.st_gid, setgid: stat.st_mode & SETGID != 0 })
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A directory of the system in which a tree appears.
pub struct Target<'a> {
    root: &'a Root,
    backing: &'a dyn Backing,
    /// User and group of this process, which new names belong to.
    me: (u32, u32),
    /// Permission bits that new names do not get.
    umask: u32,
}

impl<'a> Target<'a> {
    /// A tree below `root`.
    pub fn new(root: &'a Root, backing: &'a dyn Backing) -> Self {
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        // Without /proc, every mode is set once more.
        Self { root, backing, me, umask: umask().unwrap_or(0o777) }
    }

    /// The directory that everything is below.
    pub fn root(&self) -> &'a Root {
        self.root
    }

    /// Opens a directory of the log; `None` is the root.
    pub fn open(&self, path: Option<&RelPath>) -> io::Result<Dir> {
        self.open_at(path.map_or(Path::new("."), RelPath::as_path))
    }

    /// Opens a directory, which need not be one of the log.
    pub fn open_at(&self, path: &Path) -> io::Result<Dir> {
        Dir::new(self.root.open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?)
    }

    /// Opens a directory in another one.
    pub fn enter(&self, dir: &Dir, name: &[u8]) -> io::Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        Dir::new(self.root.open_in(dir, name, flags, Mode::empty())?)
    }

    /// Makes what an object is, with its attributes but for the time of a directory, which changes
    /// with each name in it. What cannot be completed is removed: a stub would look like a file of
    /// the log.
    pub fn make(&self, dir: &Dir, name: &[u8], tree: &Tree, object: &Object) -> io::Result<()> {
        let wanted = self.backing.owner(object.owner);
        let made = match &object.kind {
            ObjectKind::Dir { .. } => return self.make_dir(dir, name, object.owner),
            ObjectKind::File { size, bytes } => {
                let file = self.create(dir, name, wanted.mode)?;
                self.backing
                    .give(file.as_fd(), *size, &tree.memory(bytes, *size))
                    .and_then(|()| self.settle(&file, wanted, self.given(dir, wanted.mode, 0)))
                    .and_then(|()| set_time(&file, b"", object.mtime, AtFlags::EMPTY_PATH))
            }
            ObjectKind::Symlink { target, .. } => {
                rustix::fs::symlinkat(&**target, dir, name)?;
                self.complete_link(dir, name, wanted, object.mtime)
            }
        };
        made.inspect_err(|_| discard(dir, name, AtFlags::empty()))
    }

    /// Makes a directory with exactly this owner and mode.
    pub fn make_dir(&self, dir: &Dir, name: &[u8], owner: Owner) -> io::Result<()> {
        let wanted = self.backing.owner(owner);
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(wanted.mode & !SPECIAL))?;
        self.complete_dir(dir, name, wanted).inspect_err(|_| discard(dir, name, AtFlags::REMOVEDIR))
    }

    /// Makes an empty file without memory.
    pub fn create(&self, dir: &Dir, name: &[u8], mode: u32) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode & !SPECIAL))?)
    }

    /// Gives a file that was just created in a directory its owner and permissions.
    pub fn complete_file(&self, dir: &Dir, file: &OwnedFd, owner: Owner) -> io::Result<()> {
        let wanted = self.backing.owner(owner);
        self.settle(file, wanted, self.given(dir, wanted.mode, 0))
    }

    fn complete_dir(&self, dir: &Dir, name: &[u8], wanted: Owner) -> io::Result<()> {
        let given = self.given(dir, wanted.mode, if dir.setgid { SETGID } else { 0 });
        if given == wanted {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let made = self.root.open_in(dir, name, flags, Mode::empty())?;
        self.settle(&made, wanted, given)
    }

    fn complete_link(
        &self,
        dir: &Dir,
        name: &[u8],
        wanted: Owner,
        mtime: Option<Time>,
    ) -> io::Result<()> {
        let given = self.given(dir, wanted.mode, 0);
        if (given.uid, given.gid) != (wanted.uid, wanted.gid) {
            set_owner(dir, name, wanted)?;
        }
        set_time(dir, name, mtime, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// What the system gives a new name for which a mode is asked.
    fn given(&self, dir: &Dir, mode: u32, added: u32) -> Owner {
        let gid = if dir.setgid { dir.gid } else { self.me.1 };
        Owner { uid: self.me.0, gid, mode: mode & !SPECIAL & !self.umask | added }
    }

    /// Sets what differs from what is given; the mode last, because chown clears bits of it.
    fn settle(&self, file: impl AsFd, wanted: Owner, given: Owner) -> io::Result<()> {
        let other_owner = (given.uid, given.gid) != (wanted.uid, wanted.gid);
        if other_owner {
            let (user, group) = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
            rustix::fs::fchown(&file, Some(user), Some(group))?;
        }
        if given.mode != wanted.mode || other_owner && wanted.mode & SET_ID != 0 {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(wanted.mode))?;
        }
        Ok(())
    }

    /// What is at a name, compared with an object.
    pub fn examine(
        &self,
        dir: &Dir,
        name: &[u8],
        tree: &Tree,
        object: &Object,
    ) -> io::Result<Found> {
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Found::Missing),
            Err(err) => return Err(err.into()),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let same = match (&object.kind, kind) {
            (ObjectKind::Dir { .. }, FileType::Directory) => true,
            (ObjectKind::File { size, bytes }, FileType::RegularFile) => {
                match self.memory(dir, name, *size, &tree.memory(bytes, *size))? {
                    Backed::Without => return Ok(Found::Stub),
                    _ if stat.st_size.cast_unsigned() != *size => false,
                    Backed::Other => return Ok(Found::OtherMemory),
                    Backed::Same | Backed::Unknown => true,
                }
            }
            (ObjectKind::Symlink { target, .. }, FileType::Symlink) => {
                rustix::fs::readlinkat(dir, name, Vec::new())?.as_bytes() == &**target
            }
            _ => false,
        };
        Ok(match same {
            true => Found::Same(stat),
            false => Found::Other(describe_found(dir, name, &stat)),
        })
    }

    /// Compares the memory of the file at a name.
    pub fn memory(&self, dir: &Dir, name: &[u8], size: u64, memory: &Memory) -> io::Result<Backed> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = self.root.open_in(dir, name, flags, Mode::empty())?;
        self.backing.compare(file.as_fd(), size, memory)
    }

    /// Gives what is at a name the attributes of an object, where they differ from `stat`. The time
    /// of a directory is left, because it changes with each name in it.
    pub fn set_attributes(
        &self,
        dir: &Dir,
        name: &[u8],
        object: &Object,
        stat: &Stat,
    ) -> io::Result<()> {
        let wanted = self.backing.owner(object.owner);
        let is_link = matches!(object.kind, ObjectKind::Symlink { .. });
        let is_dir = matches!(object.kind, ObjectKind::Dir { .. });
        let other_owner = (stat.st_uid, stat.st_gid) != (wanted.uid, wanted.gid);
        if other_owner {
            set_owner(dir, name, wanted)?;
        }
        let mode = stat.st_mode & 0o7777;
        if !is_link && (mode != wanted.mode || other_owner && mode & SET_ID != 0) {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let file = self.root.open_in(dir, name, flags, Mode::empty())?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(wanted.mode))?;
        }
        match object.mtime {
            Some(time) if !is_dir && !is_time(stat, time) => {
                set_time(dir, name, object.mtime, AtFlags::SYMLINK_NOFOLLOW)
            }
            _ => Ok(()),
        }
    }

    /// Gives the root the owner and permissions of its object.
    pub fn set_root(&self, object: &Object) -> io::Result<()> {
        let (root, wanted) = (self.open(None)?, self.backing.owner(object.owner));
        let stat = rustix::fs::fstat(&root)?;
        let found = Owner { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 };
        self.settle(&root, wanted, found)
    }
}

/// Sets the time of a name, or of an open directory with [`AtFlags::EMPTY_PATH`], if there is one.
pub fn set_time(at: impl AsFd, name: &[u8], time: Option<Time>, flags: AtFlags) -> io::Result<()> {
    let Some(Time { sec, nsec }) = time else { return Ok(()) };
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: sec, tv_nsec: nsec.into() },
    };
    match flags.contains(AtFlags::EMPTY_PATH) {
        true => Ok(rustix::fs::futimens(at, &times)?),
        false => Ok(rustix::fs::utimensat(at, name, &times, flags)?),
    }
}

/// Removes what could not be completed; the user must learn why it could not, and no more.
pub(super) fn discard(dir: impl AsFd, name: &[u8], flags: AtFlags) {
    let _ = rustix::fs::unlinkat(dir, name, flags);
}

fn is_time(stat: &Stat, time: Time) -> bool {
    stat.st_mtime == time.sec && u64::from(time.nsec) == stat.st_mtime_nsec
}

fn set_owner(dir: &Dir, name: &[u8], owner: Owner) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::chownat(dir, name, Some(user), Some(group), flags)?)
}

/// What an object is, in words.
pub fn describe(object: &Object) -> String {
    match &object.kind {
        ObjectKind::Dir { .. } => "a directory".to_owned(),
        ObjectKind::File { size, .. } => format!("a file of {size} bytes"),
        ObjectKind::Symlink { target, .. } => describe_link(target),
    }
}

fn describe_link(target: &[u8]) -> String {
    format!("a symbolic link to \"{}\"", crate::text::terminal::escape_name(target))
}

fn describe_found(dir: &Dir, name: &[u8], stat: &Stat) -> String {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => "a directory".to_owned(),
        FileType::RegularFile => format!("a file of {} bytes", stat.st_size),
        FileType::Symlink => match rustix::fs::readlinkat(dir, name, Vec::new()) {
            Ok(target) => describe_link(target.as_bytes()),
            Err(_) => "a symbolic link".to_owned(),
        },
        _ => "a special file".to_owned(),
    }
}

/// This process's umask, which can be read without being changed only here.
fn umask() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}
