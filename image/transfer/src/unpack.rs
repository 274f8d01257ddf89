// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A stream becomes files. Whoever sends it is not trusted.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use famfs::archive::tar_reader::{ArchiveError, RawMember, TarReader};
use famfs::archive::tar_writer::CONTINUED;
use famfs::replay::Time;
use famfs::text::terminal::{escape_name, shown};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::MODE_BITS;
use crate::part::{self, Part};
use crate::place::Place;

/// Bytes to copy at once.
const CHUNK: usize = 128 << 10;

/// What may follow the end mark: the rest of it.
const MAX_REST: u64 = 64 << 10;

/// Types of members (POSIX, "ustar Interchange Format").
const FILE: u8 = b'0';
const SYMLINK: u8 = b'2';
const DIRECTORY: u8 = b'5';

/// Why a stream could not be unpacked to its end.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is damaged or was cut short.
    #[error("the copy was cut short or damaged on its way")]
    Archive(#[from] ArchiveError),
    /// It names something that was not asked for.
    #[error("refused {name}: {why}", name = escape_name(name))]
    Refused {
        /// The member's name.
        name: Vec<u8>,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something else has that name.
    #[error("{} is {found}; remove it first", shown(path))]
    Occupied {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// The target is in a mount of famfs.
    #[error(
        "{} is in a famfs, where only the famfs tools make files: copy it elsewhere in the VM, \
         such as /tmp, and from there with `famfs cp`, or on the host with `famfs --pool POOL cp`",
        shown(.0)
    )]
    Famfs(PathBuf),
    /// A file or directory cannot be written.
    #[error("cannot write {}", shown(path))]
    Write {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Unpacks a stream into places, one for each source. Calls `copied` with numbers of bytes. A file
/// that is incomplete at an error is removed; the ones before it stay.
///
/// # Errors
/// See [`UnpackError`].
pub fn unpack(
    input: impl Read,
    places: &[Place],
    copied: &mut dyn FnMut(u64),
) -> Result<(), UnpackError> {
    let mut tar = TarReader::stream(input);
    let mut tree = Unpacking { places, file: None, dirs: Vec::new(), chunk: vec![0; CHUNK] };
    let unpacked = tree.all(&mut tar, copied);
    // Also at an error: the next copy leaves directories as they are.
    let finished = tree.finish_dirs(None);
    unpacked.and(finished)?;
    rest(tar.into_inner())
}

/// Unpacks a stream that must consist of one file, and writes its bytes to `out`.
///
/// # Errors
/// See [`UnpackError`].
pub fn unpack_file(
    input: impl Read,
    mut out: impl Write,
    copied: &mut dyn FnMut(u64),
) -> Result<(), UnpackError> {
    let (mut tar, mut chunk, mut begun) = (TarReader::stream(input), vec![0; CHUNK], false);
    while let Some(member) = tar.next_member()? {
        let expected = if begun { CONTINUED } else { FILE };
        if member.header.entry_type().as_byte() != expected || member.name != b"0" {
            return Err(refused(&member, "expected one file"));
        }
        begun = true;
        copy(&member, tar.bytes(), &mut out, Path::new("standard output"), &mut chunk, copied)?;
    }
    out.flush().map_err(write_error(Path::new("standard output")))?;
    rest(tar.into_inner())
}

/// Reads what follows the end mark, so that the sender can end.
fn rest(input: impl Read) -> Result<(), UnpackError> {
    let read = io::copy(&mut input.take(MAX_REST + 1), &mut io::sink());
    match read.map_err(ArchiveError::Read)? {
        0..=MAX_REST => Ok(()),
        _ => Err(UnpackError::Refused { name: Vec::new(), why: "more bytes after the end" }),
    }
}

/// Where a member goes.
#[derive(Clone)]
struct At<'p> {
    place: &'p Place,
    /// Below the place's directory.
    path: PathBuf,
}

impl At<'_> {
    fn shown(&self) -> PathBuf {
        self.place.dir.join(&self.path)
    }

    fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    fn failed(&self) -> impl Fn(io::Error) -> UnpackError + use<> {
        write_error(&self.shown())
    }

    /// The directory that it is in.
    fn parent(&self) -> Result<OwnedFd, UnpackError> {
        self.place.root.open_parent(&self.path).map_err(self.failed())
    }

    /// A failure to make something in that directory.
    fn not_made(&self, parent: &OwnedFd, error: io::Error) -> UnpackError {
        if part::is_in_famfs(parent) {
            return UnpackError::Famfs(self.shown());
        }
        self.failed()(error)
    }

    /// Refuses to replace anything but a file or a link.
    fn check(&self, parent: &OwnedFd) -> Result<(), UnpackError> {
        let found = match rustix::fs::statat(parent, self.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(self.failed()(errno.into())),
        };
        let found = match found {
            FileType::RegularFile | FileType::Symlink => return Ok(()),
            FileType::Directory => "a directory",
            FileType::Fifo => "a pipe",
            FileType::Socket => "a socket",
            _ => "a device",
        };
        Err(UnpackError::Occupied { path: self.shown(), found })
    }
}

/// A directory whose attributes are set when all of it is there.
struct Dir<'p> {
    at: At<'p>,
    mode: u32,
    mtime: Option<Time>,
}

/// A file of which more may come.
struct Open<'p> {
    at: At<'p>,
    name: Vec<u8>,
    part: Part,
    mode: u32,
    mtime: Option<Time>,
}

struct Unpacking<'p> {
    places: &'p [Place],
    file: Option<Open<'p>>,
    /// The new directories around the current member, from the outside inwards.
    dirs: Vec<Dir<'p>>,
    chunk: Vec<u8>,
}

impl<'p> Unpacking<'p> {
    fn all(
        &mut self,
        tar: &mut TarReader<impl Read>,
        copied: &mut dyn FnMut(u64),
    ) -> Result<(), UnpackError> {
        while let Some(member) = tar.next_member()? {
            if member.header.entry_type().as_byte() != CONTINUED {
                self.finish_file()?;
                self.member(&member)?;
            }
            self.bytes(&member, tar.bytes(), copied)?;
        }
        self.finish_file()
    }

    fn member(&mut self, member: &RawMember) -> Result<(), UnpackError> {
        let at = self.locate(member)?;
        self.finish_dirs(Some(&at))?;
        let mode = member.header.mode().map_err(|_| refused(member, "damaged mode"))? & MODE_BITS;
        let mtime = famfs::archive::mtime(member);
        let parent = at.parent()?;
        match member.header.entry_type().as_byte() {
            FILE => {
                at.check(&parent)?;
                let dir = parent.try_clone().map_err(at.failed())?;
                let part = Part::new(dir).map_err(|error| at.not_made(&parent, error))?;
                let name = member.name.clone();
                self.file = Some(Open { at, name, part, mode, mtime });
            }
            DIRECTORY => match rustix::fs::mkdirat(
                &parent,
                at.name(),
                Mode::from_raw_mode(mode) | Mode::RWXU,
            ) {
                Ok(()) => self.dirs.push(Dir { at, mode, mtime }),
                // Keeps its attributes. A link to a directory is none.
                Err(Errno::EXIST) => {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                    if at
                        .place
                        .root
                        .open_in(&parent, at.name().as_bytes(), flags, Mode::empty())
                        .is_err()
                    {
                        let found = "no directory";
                        return Err(UnpackError::Occupied { path: at.shown(), found });
                    }
                }
                Err(errno) => return Err(at.not_made(&parent, errno.into())),
            },
            SYMLINK => {
                at.check(&parent)?;
                part::symlink(&parent, at.name(), &member.link)
                    .map_err(|error| at.not_made(&parent, error))?;
            }
            _ => return Err(refused(member, "neither a file, a directory nor a symbolic link")),
        }
        Ok(())
    }

    /// Where a member goes: below one of the places, and nowhere else.
    fn locate(&self, member: &RawMember) -> Result<At<'p>, UnpackError> {
        let leads_out = || refused(member, "a name that leads out of what was asked for");
        let name = member.name.strip_suffix(b"/").unwrap_or(&member.name);
        let mut parts = name.split(|byte| *byte == b'/');
        let number = parts.next().and_then(|part| std::str::from_utf8(part).ok()?.parse().ok());
        let number: usize = number.ok_or_else(leads_out)?;
        let place = self.places.get(number).ok_or_else(leads_out)?;
        let mut path = PathBuf::from(&place.name);
        for part in parts {
            if part.is_empty() || part == b"." || part == b".." || part.contains(&0) {
                return Err(leads_out());
            }
            path.push(OsStr::from_bytes(part));
        }
        Ok(At { place, path })
    }

    /// The bytes of a member, which belong to the file that is open.
    fn bytes(
        &mut self,
        member: &RawMember,
        mut bytes: impl Read,
        copied: &mut dyn FnMut(u64),
    ) -> Result<(), UnpackError> {
        match &mut self.file {
            Some(Open { at, name, part, .. }) if *name == member.name => {
                copy(member, bytes, part.file(), &at.shown(), &mut self.chunk, copied)
            }
            _ => match bytes.read(&mut [0]).map_err(ArchiveError::Read)? {
                0 if member.header.entry_type().as_byte() != CONTINUED => Ok(()),
                _ => Err(refused(member, "bytes that belong to no file")),
            },
        }
    }

    fn finish_file(&mut self) -> Result<(), UnpackError> {
        let Some(Open { at, part, mode, mtime, .. }) = self.file.take() else { return Ok(()) };
        part.finish(at.name(), mode, mtime).map_err(at.failed())
    }

    /// Completes the directories that the next member is not in.
    fn finish_dirs(&mut self, next: Option<&At<'_>>) -> Result<(), UnpackError> {
        let is_in = |dir: &Dir<'_>| {
            next.is_some_and(|next| {
                std::ptr::eq(dir.at.place, next.place) && next.path.starts_with(&dir.at.path)
            })
        };
        while let Some(Dir { at, mode, mtime }) = self.dirs.pop_if(|dir| !is_in(dir)) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let dir = at.place.root.open(&at.path, flags, Mode::empty());
            let dir = File::from(dir.map_err(|errno| at.failed()(errno.into()))?);
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode))
                .map_err(io::Error::from)
                .and_then(|()| part::set_time(&dir, mtime))
                .map_err(at.failed())?;
        }
        Ok(())
    }
}

/// Copies all bytes of a member. A stream that is cut short ends before.
fn copy(
    member: &RawMember,
    mut bytes: impl Read,
    mut out: impl Write,
    path: &Path,
    chunk: &mut [u8],
    copied: &mut dyn FnMut(u64),
) -> Result<(), UnpackError> {
    if member.map.is_some() {
        return Err(refused(member, "a file with a map of holes"));
    }
    let mut left = member.size;
    while left > 0 {
        let count = match bytes.read(chunk) {
            Ok(0) => return Err(ArchiveError::CutShort.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ArchiveError::Read(error).into()),
        };
        out.write_all(&chunk[..count]).map_err(write_error(path))?;
        copied(count as u64);
        left -= count as u64;
    }
    Ok(())
}

fn refused(member: &RawMember, why: &'static str) -> UnpackError {
    UnpackError::Refused { name: member.name.clone(), why }
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> UnpackError + use<> {
    let path = path.to_owned();
    move |source| UnpackError::Write { path: path.clone(), source }
}
