// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a directory holds: names, types, bytes, modes, owners, times, links and holes.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

/// Holes are looked at in whole pages.
pub const PAGE: u64 = 4096;

/// A modification time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds after that second.
    pub nanoseconds: u32,
}

/// The bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Bytes.
    pub size: u64,
    /// SHA-256 over the pages that are not all zeros, each after its number, and the size: the same
    /// for a hole as for zeros.
    pub digest: [u8; 32],
    /// Ranges of pages, in bytes, that are no holes, in order and apart from each other.
    pub data: Vec<Range<u64>>,
}

impl Contents {
    /// The contents of a file with data in these ranges of whole pages, which `read` reads.
    pub fn of(
        size: u64,
        data: Vec<Range<u64>>,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<Self> {
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 1 << 18];
        for range in &data {
            let mut offset = range.start;
            let end = range.end.min(size);
            while offset < end {
                let wanted = usize::try_from(end - offset)?.min(buffer.len());
                read(offset, &mut buffer[..wanted])?;
                for page in buffer[..wanted].chunks(usize::try_from(PAGE)?) {
                    if page.iter().any(|byte| *byte != 0) {
                        digest.update((offset / PAGE).to_le_bytes());
                        digest.update(page);
                    }
                    offset += u64::try_from(page.len())?;
                }
            }
        }
        digest.update(size.to_le_bytes());
        Ok(Self { size, digest: digest.finalize().into(), data })
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Contents),
    /// A symbolic link with its text.
    Symlink(Vec<u8>),
    /// Anything else, by its type's letter in `ls -l`, with the device number.
    Special(char, u64),
}

impl Kind {
    /// The word for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Directory => "a directory",
            Self::File(_) => "a file",
            Self::Symlink(_) => "a symbolic link",
            Self::Special('p', _) => "a FIFO",
            Self::Special('s', _) => "a socket",
            Self::Special(..) => "a device node",
        }
    }
}

/// One name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Mode bits up to 07777.
    pub mode: u32,
    /// Owner.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Modification time.
    pub time: Time,
    /// The first name, in order of bytes, of the same file, if that is another one.
    pub same_as: Option<Vec<u8>>,
}

/// A directory with everything in it, by path; the directory itself is the empty path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The entries in order of their paths' bytes.
    pub entries: BTreeMap<Vec<u8>, Entry>,
}

impl Tree {
    /// Reads a directory, without following links.
    pub fn read(dir: &Path) -> Result<Self> {
        let about = || format!("cannot read {}", dir.display());
        let root = open_dir(rustix::fs::CWD, dir).with_context(about)?;
        let stat = rustix::fs::fstat(&root).with_context(about)?;
        let mut reader = Reader::default();
        reader.add(Vec::new(), Kind::Directory, &stat)?;
        reader.walk(&root, b"").with_context(about)?;
        Ok(reader.tree())
    }

    /// Takes an entry and all below it out: what the copy has of its own, such as `.meta`.
    pub fn remove(&mut self, path: &[u8]) {
        let below = [path, b"/"].concat();
        self.entries.retain(|name, _| name != path && !name.starts_with(&below));
    }
}

#[derive(Default)]
struct Reader {
    entries: BTreeMap<Vec<u8>, Entry>,
    /// The names of each file that has several, by its device and inode number.
    links: BTreeMap<(u64, u64), Vec<Vec<u8>>>,
}

impl Reader {
    fn walk(&mut self, dir: &OwnedFd, path: &[u8]) -> Result<()> {
        for name in list(dir)? {
            let inner = join(path, &name);
            self.entry(dir, &name, &inner).with_context(|| inner.escape_ascii().to_string())?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File(contents(dir, name)?),
            FileType::Symlink => {
                Kind::Symlink(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
            }
            FileType::Fifo => Kind::Special('p', 0),
            FileType::Socket => Kind::Special('s', 0),
            FileType::CharacterDevice => Kind::Special('c', stat.st_rdev),
            _ => Kind::Special('b', stat.st_rdev),
        };
        if kind == Kind::Directory {
            self.add(path.to_vec(), kind, &stat)?;
            return self.walk(&open_dir(dir, name)?, path);
        }
        if stat.st_nlink > 1 {
            self.links.entry((stat.st_dev, stat.st_ino)).or_default().push(path.to_vec());
        }
        self.add(path.to_vec(), kind, &stat)
    }

    fn add(&mut self, path: Vec<u8>, kind: Kind, stat: &Stat) -> Result<()> {
        let nanoseconds = u32::try_from(stat.st_mtime_nsec)?;
        let entry = Entry {
            kind,
            mode: stat.st_mode & 0o7777,
            user: stat.st_uid,
            group: stat.st_gid,
            time: Time { seconds: stat.st_mtime, nanoseconds },
            same_as: None,
        };
        self.entries.insert(path, entry);
        Ok(())
    }

    fn tree(mut self) -> Tree {
        for mut names in self.links.into_values() {
            names.sort();
            let Some((first, others)) = names.split_first() else { continue };
            for name in others {
                if let Some(entry) = self.entries.get_mut(name) {
                    entry.same_as = Some(first.clone());
                }
            }
        }
        Tree { entries: self.entries }
    }
}

/// The contents of a file, of which holes are not read.
fn contents(dir: &OwnedFd, name: &[u8]) -> Result<Contents> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    let size = file.metadata()?.len();
    let data = data_ranges(&file, size)?;
    Contents::of(size, data, |offset, buffer| Ok(file.read_exact_at(buffer, offset)?))
}

/// Where a file has data, in whole pages.
fn data_ranges(file: &File, size: u64) -> Result<Vec<Range<u64>>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut offset = 0;
    while offset < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
            Err(Errno::NXIO) => break,
            found => found?,
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        let (first, last) = (start / PAGE * PAGE, end.next_multiple_of(PAGE));
        match ranges.last_mut() {
            Some(before) if before.end >= first => before.end = last,
            _ => ranges.push(first..last),
        }
        offset = end;
    }
    Ok(ranges)
}

/// The names of everything below a directory, from the top, and whether each is a directory; the
/// directory itself is the empty path.
pub fn names(root: &OwnedFd) -> Result<Vec<(Vec<u8>, bool)>> {
    let mut found = vec![(Vec::new(), true)];
    let mut next = 0;
    while next < found.len() {
        let (path, is_dir) = found[next].clone();
        next += 1;
        if !is_dir {
            continue;
        }
        let dir = match path.is_empty() {
            true => open_dir(root, ".")?,
            false => open_dir(root, &path[..])?,
        };
        for name in list(&dir)? {
            let stat = rustix::fs::statat(&dir, &name[..], AtFlags::SYMLINK_NOFOLLOW)?;
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            found.push((join(&path, &name), is_dir));
        }
    }
    Ok(found)
}

fn open_dir(dir: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, path, flags, Mode::empty())
}

fn list(dir: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match dir.is_empty() {
        true => name.to_vec(),
        false => [dir, b"/", name].concat(),
    }
}
