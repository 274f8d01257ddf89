// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A kernel's famfs with its superblock and log: to play the log in, and to add files to.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use crate::format::ALLOC_UNIT;
use crate::format::map::{Extent, Memory};
use crate::format::path::{META_DIR, RelPath};
use crate::kernel::aside::{Aside, clear_aside};
use crate::kernel::beneath::Root;
use crate::kernel::carry::Progress;
use crate::kernel::mapped::MappedFile;
use crate::kernel::mount::{LOG_FILE, MountError, Mounted, meta_error};
use crate::kernel::note::Note;
use crate::kernel::player::Site;
use crate::kernel::target::{Backed, Backing, Dir, Target, discard};
use crate::media::{Media, MetaFiles};
use crate::replay::tree::Tree;
use crate::replay::tree::change::Change;
use crate::replay::{Attributes, Owner};
use crate::store::log::Log;
use crate::store::role::Role;
use crate::store::superblock::Superblock;
use crate::sys::dax::Access;
use crate::sys::ioctl::{self, FileType};
use crate::system::lock;
use crate::write::volume::{FileBytes, Volume};

/// Name of a file in [`META_DIR`] that only asks the kernel a question.
const PROBE_FILE: &str = ".unused";

impl Mounted {
    /// Gives access to superblock and log of a formatted device. A writer waits for the log's lock.
    /// `system` is this system's UUID; without one it is a client.
    pub fn open(self, access: Access, system: Option<Uuid>) -> Result<MountedVolume, MountError> {
        let superblock = Superblock::read(&self.superblock_media()?)?;
        let role = system.map_or(Role::Client, |system| Role::of(&superblock, system));
        let mode = if role == Role::Master { 0o644 } else { 0o444 };
        let (locked, log) = self.map_meta(FileType::Log, access, superblock.log_len, mode)?;
        if access == Access::Write {
            let name = format!("{META_DIR}/{LOG_FILE}");
            lock::exclusive(&locked, &name, lock::PATIENCE, |text| self.tell(text))?;
        }
        let superblock = self.map_meta(FileType::Superblock, Access::Read, ALLOC_UNIT, 0o444)?.1;
        let found = rustix::fs::fstat(&locked);
        let device = found.map_err(|err| meta_error("examine", LOG_FILE, err))?.st_dev;
        let meta = MetaFiles::new(superblock, Some(log), self.device(), self.device_len()?)?
            .watched_as(device);
        let (work, aside) = (RefCell::default(), RefCell::default());
        let volume =
            MountedVolume { mounted: self, meta, role, access, _locked: locked, work, aside };
        if access == Access::Write && volume.mounted.is_edited() {
            let cleared = clear_aside(&volume.target());
            cleared.map_err(|source| MountError::Meta { action: "clear", name: ".new", source })?;
        }
        Ok(volume)
    }
}

/// A kernel's famfs with its superblock and log.
pub struct MountedVolume {
    mounted: Mounted,
    meta: MetaFiles,
    role: Role,
    access: Access,
    /// Holds the log's lock for a writer.
    _locked: File,
    /// What of a published batch was carried out.
    work: RefCell<Work>,
    /// Files that are to take the place of others.
    aside: RefCell<Aside>,
}

#[derive(Default)]
struct Work {
    progress: Progress,
    /// The note of the mount.
    note: Option<Note>,
    /// Whether the mount showed all that was published before.
    is_at_end: bool,
}

impl Work {
    fn first_error(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.progress.applied.errors).into_iter().next() {
            Some(error) => Err(io::Error::other(error)),
            None => Ok(()),
        }
    }
}

/// The kernel gives files their memory.
struct Kernel;

impl Backing for Kernel {
    fn give(&self, file: BorrowedFd<'_>, size: u64, memory: &Memory) -> io::Result<()> {
        match memory {
            Memory::Map(map) => ioctl::map_create(file, FileType::Regular, size, map)?,
            Memory::Pieces(pieces) => ioctl::map_pieces(file, size, &pieces_of(pieces))?,
        }
        Ok(())
    }

    fn compare(&self, file: BorrowedFd<'_>, size: u64, memory: &Memory) -> io::Result<Backed> {
        let same = match memory {
            Memory::Map(map) => match ioctl::map_get(file) {
                Ok((found, other)) => found == size && other == *map,
                Err(Errno::NODATA) => return Ok(Backed::Without),
                // Pieces, or a longer map than this kernel tells.
                Err(_) if ioctl::get_pieces(file).is_ok() => false,
                Err(_) => return Ok(Backed::Unknown),
            },
            Memory::Pieces(pieces) => match ioctl::get_pieces(file) {
                Ok((found, other)) => found == size && other == pieces_of(pieces),
                Err(Errno::NODATA) => return Ok(Backed::Without),
                Err(_) => false,
            },
        };
        Ok(if same { Backed::Same } else { Backed::Other })
    }
}

fn pieces_of(pieces: &[(u64, Extent)]) -> Vec<ioctl::Piece> {
    let piece = |&(file_offset, Extent { offset, len })| ioctl::Piece { file_offset, offset, len };
    pieces.iter().map(piece).collect()
}

impl MountedVolume {
    /// The file system's root.
    pub fn mounted(&self) -> &Mounted {
        &self.mounted
    }

    /// What this system may do.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The files and directories.
    pub fn root(&self) -> &Root {
        self.mounted.root()
    }

    /// The tree of the mount.
    fn target(&self) -> Target<'_> {
        Target::new(self.root(), &Kernel)
    }

    /// The mount as a log is played in it.
    pub fn site<'a>(&'a self, has_no_writer: &'a dyn Fn() -> bool) -> Site<'a> {
        Site { target: self.target(), is_ours: self.mounted.is_edited(), has_no_writer }
    }

    /// Whether no other process adds files now: each keeps the log's lock as long as it may have
    /// made some. If not, what one that was killed has left aside is removed.
    pub fn has_no_writer(&self) -> bool {
        if self.access == Access::Write {
            return true;
        }
        let Some(_kept) = self.keep_writers_out() else { return false };
        // What stays is in the way of what is made in its memory, which is told.
        let _ = clear_aside(&self.target());
        true
    }

    /// Takes the log's lock if it is free, and so keeps writers waiting until the result is
    /// dropped; `None` if another process writes.
    pub fn keep_writers_out(&self) -> Option<File> {
        // A lock of its own, which ends with this file.
        let log = self.mounted.meta_file(FileType::Log).ok()?;
        lock::within(&log, lock::Mode::Exclusive, Duration::ZERO).ok()?.then_some(log)
    }

    /// Whether nothing here has files of this memory open, mapped or pinned: then a new file can
    /// have it, which is gone again at once.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] if the kernel's module does not keep files apart like that.
    pub fn is_unused(&self, ranges: &[Extent]) -> io::Result<bool> {
        if !self.mounted.is_edited() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let path = format!("{META_DIR}/{PROBE_FILE}");
        let path = Path::new(&path);
        // What a killed process left has no memory.
        let _ = self.root().remove_at(path, false);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let file = self.root().open(path, flags, Mode::RUSR | Mode::WUSR)?;
        // Without a name it ends with this process, whatever happens.
        self.root().remove_at(path, false)?;
        let (mut pieces, mut size) = (Vec::with_capacity(ranges.len()), 0);
        for &Extent { offset, len } in ranges {
            pieces.push(ioctl::Piece { file_offset: size, offset, len });
            size += len;
        }
        match ioctl::map_pieces(&file, size, &pieces) {
            Ok(()) => Ok(true),
            Err(Errno::BUSY) => Ok(false),
            Err(err) => Err(err.into()),
        }
    }

    /// Waits until no other process makes files of the log, and keeps others waiting until the
    /// result is dropped: each would take the files that the other has begun for foreign ones.
    pub fn lock_for_play(&self) -> Result<OwnedFd, MountError> {
        let error = |err| meta_error("lock", "", err);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = self.root().open(Path::new(META_DIR), flags, Mode::empty()).map_err(error)?;
        lock::exclusive(&dir, META_DIR, lock::PATIENCE, |text| self.mounted.tell(text))?;
        Ok(dir)
    }
}

impl MountedVolume {
    /// Makes a file with exactly this owner, mode and memory; removes it if that fails.
    fn make_in(
        &self,
        dir: &Dir,
        name: &[u8],
        owner: Owner,
        size: u64,
        memory: &Memory,
    ) -> io::Result<Box<dyn FileBytes + '_>> {
        let target = self.target();
        let file = target.create(dir, name, owner.mode)?;
        Kernel
            .give(file.as_fd(), size, memory)
            .and_then(|()| target.complete_file(dir, &file, owner))
            .and_then(|()| MappedFile::with_memory(&File::from(file), size, memory, Access::Write))
            .map(|bytes| Box::new(bytes) as Box<dyn FileBytes>)
            .inspect_err(|_| discard(dir, name, AtFlags::empty()))
    }
}

impl Volume for MountedVolume {
    fn media(&self) -> &dyn Media {
        &self.meta
    }

    fn lease_media(&self) -> io::Result<Box<dyn Media>> {
        Ok(Box::new(self.mounted.lease_media().map_err(io::Error::other)?))
    }

    fn make_dir(&self, path: &RelPath, attributes: &Attributes) -> io::Result<()> {
        let target = self.target();
        target.make_dir(&target.open(path.parent().as_ref())?, path.name(), attributes.owner)
    }

    fn make_file(
        &self,
        path: &RelPath,
        attributes: &Attributes,
        size: u64,
        memory: &Memory,
    ) -> io::Result<Box<dyn FileBytes + '_>> {
        let dir = self.target().open(path.parent().as_ref())?;
        self.make_in(&dir, path.name(), attributes.owner, size, memory)
    }

    fn make_replacement(
        &self,
        path: &RelPath,
        attributes: &Attributes,
        size: u64,
        memory: &Memory,
    ) -> io::Result<Box<dyn FileBytes + '_>> {
        let (dir, name) = self.aside.borrow_mut().add(&self.target(), path)?;
        self.make_in(&dir, name.as_bytes(), attributes.owner, size, memory)
    }

    fn remove_replacement(&self, path: &RelPath) -> io::Result<()> {
        self.aside.borrow_mut().discard(&self.target(), path)
    }

    fn open_file(
        &self,
        path: &RelPath,
        size: u64,
        memory: &Memory,
        access: Access,
    ) -> io::Result<Box<dyn FileBytes + '_>> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
        };
        let file = File::from(self.root().open(path.as_path(), flags, Mode::empty())?);
        Ok(Box::new(MappedFile::with_memory(&file, size, memory, access)?))
    }

    fn remove(&self, path: &RelPath, is_dir: bool) -> io::Result<()> {
        self.root().remove(path, is_dir)
    }

    /// Finds out as well whether the mount shows all that is published, so that its note can go on.
    fn lock_play(&self) -> io::Result<Option<OwnedFd>> {
        let alone = self.lock_for_play().map_err(io::Error::other)?;
        let note = Note::read(self.root())?;
        let superblock = Superblock::read(&self.meta).map_err(io::Error::other)?;
        let log = Log::open(&self.meta, superblock.log_len).map_err(io::Error::other)?;
        let published = log.published();
        let is_at_end = note.is_some_and(|note| {
            let is_same = Some(note.numbering) == log.numbering();
            note.complete && is_same && note.next == published
        });
        let progress = Progress::new(note.is_some_and(|note| note.safe_links));
        *self.work.borrow_mut() = Work { progress, note, is_at_end };
        Ok(Some(alone))
    }

    fn carry_out(&self, tree: &Tree, change: &Change) -> io::Result<()> {
        let work = &mut *self.work.borrow_mut();
        if let Some(note) = work.note.as_mut().filter(|note| note.complete) {
            note.complete = false;
            note.write(self.root())?;
        }
        let aside = &mut *self.aside.borrow_mut();
        match change {
            // What is there goes when the new file takes its place.
            Change::Removed { path, is_dir: false } if aside.has(path) => return Ok(()),
            Change::Made { path, .. } => aside.put_in_place(&self.target(), path)?,
            _ => {}
        }
        work.progress.carry(&self.target(), tree, 0, change, &mut |_| {});
        work.first_error()
    }

    fn note_played(&self, tree: &Tree, next: u64, checksum: u64, complete: bool) -> io::Result<()> {
        let work = &mut *self.work.borrow_mut();
        work.progress.finish(&self.target(), tree);
        let finished = work.first_error();
        let Some(note) = work.note.take() else { return finished };
        let new = match work.is_at_end {
            true => {
                let complete = complete && finished.is_ok();
                Note { next, checksum: Some(checksum), complete, ..note }
            }
            false => note,
        };
        new.write(self.root())?;
        finished
    }

    /// [`MappedFile::finish`] has done it.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
