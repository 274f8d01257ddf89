// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the system tells of a file that is to be copied.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{Access, AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Statx, StatxFlags};
use rustix::io::Errno;

use crate::format::extension::PAGE;
use crate::replay::{Owner, Time};
use crate::system::long_path::{self, LongPath};
use crate::write::dropped::Attribute;
use crate::write::layout::Layout;

/// Highest number of bytes of the names of a file's extended attributes (XATTR_LIST_MAX of
/// linux/limits.h).
const XATTR_NAMES: usize = 65_536;
/// Longest path of one system call.
const PATH_MAX: usize = 4096;
/// Bytes of the blocks in which stat(2) counts the space of a file.
const STAT_BLOCK: u64 = 512;

/// Device and inode: the same for all names of a file.
pub(crate) type FileId = (u32, u32, u64);

/// What stat(2) tells.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub id: FileId,
    pub kind: FileType,
    pub owner: Owner,
    pub mtime: Time,
    pub size: u64,
    /// Bytes that it takes.
    pub stored: u64,
    /// Number of its names.
    pub names: u32,
}

impl From<Statx> for Meta {
    fn from(found: Statx) -> Self {
        let mode = u32::from(found.stx_mode);
        Self {
            id: (found.stx_dev_major, found.stx_dev_minor, found.stx_ino),
            kind: FileType::from_raw_mode(mode),
            owner: Owner { uid: found.stx_uid, gid: found.stx_gid, mode: mode & 0o7777 },
            mtime: Time { sec: found.stx_mtime.tv_sec, nsec: found.stx_mtime.tv_nsec },
            size: found.stx_size,
            stored: found.stx_blocks.saturating_mul(STAT_BLOCK),
            names: found.stx_nlink,
        }
    }
}

impl Meta {
    /// Examines what a path names, after symbolic links.
    pub fn followed(path: &Path) -> io::Result<Self> {
        let long = LongPath::new(path)?;
        statx(long.dir(), long.rest(), AtFlags::empty())
    }

    /// Examines an open file.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        statx(file, Path::new(""), AtFlags::EMPTY_PATH)
    }

    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    pub fn is_symlink(&self) -> bool {
        self.kind == FileType::Symlink
    }
}

fn statx(dir: impl AsFd, path: &Path, flags: AtFlags) -> io::Result<Meta> {
    Ok(rustix::fs::statx(dir, path, flags, StatxFlags::BASIC_STATS)?.into())
}

/// An open directory.
pub(crate) struct OpenDir {
    fd: OwnedFd,
}

impl OpenDir {
    /// Opens a directory that was examined; `None` if something else is there now.
    pub fn open(path: &Path, id: FileId) -> io::Result<Option<Self>> {
        let fd = match long_path::open(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
            opened => opened?,
        };
        let same = Meta::of(&fd)?.id == id;
        Ok(same.then_some(Self { fd }))
    }

    /// The names in it, in the order of their bytes.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Examines a name in it.
    pub fn examine(&self, name: &OsStr, follow: bool) -> io::Result<Meta> {
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        statx(&self.fd, Path::new(name), flags)
    }

    /// Where a symbolic link leads.
    pub fn target(&self, name: &OsStr) -> io::Result<Box<[u8]>> {
        Ok(rustix::fs::readlinkat(&self.fd, name, Vec::new())?.into_bytes().into())
    }

    /// Opens a file in it to look for its holes.
    pub fn open_file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?.into())
    }

    /// Fails if this process may not read a file in it. The check costs less than to open the file.
    pub fn check_readable(&self, name: &OsStr) -> io::Result<()> {
        match rustix::fs::accessat(&self.fd, name, Access::READ_OK, AtFlags::EACCESS) {
            Err(error @ (Errno::ACCESS | Errno::NOENT)) => Err(error.into()),
            // Where the system cannot tell, the copy will.
            _ => Ok(()),
        }
    }

    /// What the extended attributes of a name at this path are.
    pub fn attributes(&self, path: &Path, name: &OsStr, follow: bool) -> Vec<Attribute> {
        if path.as_os_str().len() < PATH_MAX {
            return extended_attributes(path, follow);
        }
        let near = format!("/proc/self/fd/{}/", self.fd.as_raw_fd());
        let near = [near.as_bytes(), name.as_bytes()].concat();
        extended_attributes(Path::new(OsStr::from_bytes(&near)), follow)
    }
}

/// What a file's extended attributes are.
pub(crate) fn extended_attributes(path: &Path, follow: bool) -> Vec<Attribute> {
    let mut names = Vec::with_capacity(XATTR_NAMES);
    let space = rustix::buffer::spare_capacity(&mut names);
    let listed = match follow {
        true => rustix::fs::listxattr(path, space),
        false => rustix::fs::llistxattr(path, space),
    };
    // A file system without them has none; and those that may not be listed cannot be reported.
    if listed.is_err() {
        return Vec::new();
    }
    let found = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut found: Vec<_> = found.filter_map(Attribute::of_xattr).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether this is the error of a symbolic link with nothing at its end, or one that leads to
/// itself.
pub(crate) fn leads_nowhere(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOENT | Errno::LOOP | Errno::NOTDIR))
}

/// Whether a file may have holes that are worth a look: a file system can count blocks of its own
/// for a file, so only one of a single page tells by its blocks.
pub(crate) fn may_have_holes(meta: &Meta) -> bool {
    meta.size > PAGE || meta.stored < meta.size
}

/// Which pages of a file have data.
pub(crate) fn layout(file: &File, size: u64) -> io::Result<Layout> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole from here on.
            Err(Errno::NXIO) => break,
            // A file system that does not tell.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(size.into()),
            Err(error) => return Err(error.into()),
        };
        let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        if end <= start {
            break;
        }
        ranges.push(start..end);
        at = end;
    }
    Ok(Layout::new(size, ranges))
}
