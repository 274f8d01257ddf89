// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Examines files and directory trees that are to be copied into a file system.
//!
//! [`scan`] lists what exists and what famfs cannot hold, and changes nothing.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, SeekFrom};

use crate::format::path::{PathError, RelPath};
use crate::replay::Owner;
use crate::text::terminal::shown;
use crate::write::dropped::{Attribute, Dropped};
use crate::write::unsupported::{self, LeftOut, Why, first_names};

/// Highest number of bytes of the names of a file's extended attributes (XATTR_LIST_MAX of
/// linux/limits.h).
const XATTR_NAMES: usize = 65_536;

/// Bytes of the blocks in which stat(2) counts the space of a file.
const STAT_BLOCK: u64 = 512;

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Copy directories and everything in them.
    pub recursive: bool,
    /// Skip what famfs cannot hold.
    pub skip_unsupported: bool,
    /// Permission bits instead of the source's.
    pub mode: Option<u32>,
    /// User instead of the source's.
    pub uid: Option<u32>,
    /// Group instead of the source's.
    pub gid: Option<u32>,
}

/// Where the sources go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Into a directory, under their own names; `None` is the root.
    Into(Option<RelPath>),
    /// The only source gets this path.
    As(RelPath),
}

/// A source that famfs cannot hold, or that does not fit what exists.
#[derive(Clone, Debug)]
pub struct Unsupported {
    /// The source.
    pub source: PathBuf,
    /// Why.
    pub why: Why,
    /// Why, in words.
    pub reason: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", shown(&self.source), self.reason)
    }
}

/// Why sources cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A source could not be read.
    #[error("cannot {action} {}", shown(path))]
    Read {
        /// "read" or "examine".
        action: &'static str,
        /// The source.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A directory without `--recursive`.
    #[error("{} is a directory; use --recursive to copy it", shown(.0))]
    NotRecursive(PathBuf),
    /// Sources that famfs cannot hold.
    #[error(
        "{} of the sources cannot be copied ({}), so nothing was written:{}\n\
         use --skip-unsupported to copy the rest", .0.len(), reasons(.0), first_names(.0)
    )]
    Unsupported(Vec<Unsupported>),
}

/// How many items there are of each reason.
pub fn reasons(items: &[Unsupported]) -> String {
    unsupported::counts(items.iter().map(|item| item.why))
}

/// A file or directory to make.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub source: PathBuf,
    pub path: RelPath,
    pub owner: Owner,
    /// Device and inode of the source.
    pub id: (u64, u64),
    /// `None` for a directory.
    pub size: Option<u64>,
}

/// What the sources hold, directories before their contents.
#[derive(Debug, Default)]
pub struct Scan {
    pub(crate) items: Vec<Item>,
    /// Bytes of the sources that are holes, which famfs stores as zeros.
    pub(crate) holes: u64,
    /// What was skipped.
    pub unsupported: Vec<Unsupported>,
    /// What the items have and famfs does not keep.
    pub dropped: Dropped,
    /// Whether to go on without what cannot be copied.
    pub(crate) skip: bool,
    /// Files with more than one name that were seen.
    linked: HashSet<(u64, u64)>,
}

impl Scan {
    /// The sizes of the files to make; `None` for a directory.
    pub fn sizes(&self) -> impl Iterator<Item = Option<u64>> + '_ {
        self.items.iter().map(|item| item.size)
    }
}

impl From<&Unsupported> for LeftOut {
    fn from(item: &Unsupported) -> Self {
        Self::new(item.source.as_os_str().as_bytes(), item.why, &item.reason)
    }
}

/// Examines the sources.
pub fn scan(
    sources: &[PathBuf],
    destination: &Destination,
    options: &Options,
) -> Result<Scan, SourceError> {
    let mut scan = Scan { skip: options.skip_unsupported, ..Scan::default() };
    for source in sources {
        // A source that the user named is followed if it is a symbolic link, as cp does.
        let metadata = fs::metadata(source).map_err(|err| read_error("examine", source, err))?;
        if metadata.is_dir() && !options.recursive {
            return Err(SourceError::NotRecursive(source.clone()));
        }
        let path = match destination {
            Destination::As(path) => path.as_bytes().to_vec(),
            Destination::Into(dir) => {
                let name = if names_contents(source) { None } else { source.file_name() };
                join(dir.as_ref().map(RelPath::as_bytes), name.map(OsStrExt::as_bytes))
            }
        };
        scan.visit(source, &path, &metadata, options)?;
    }
    if !scan.unsupported.is_empty() && !options.skip_unsupported {
        return Err(SourceError::Unsupported(scan.unsupported));
    }
    Ok(scan)
}

/// Whether a source means the contents of the directory rather than the directory: `DIR/.`
fn names_contents(source: &Path) -> bool {
    let bytes = source.as_os_str().as_bytes();
    bytes == b"." || bytes.ends_with(b"/.")
}

/// Why famfs cannot hold a file of this kind and size.
fn unfit(kind: FileType, size: u64) -> Option<Why> {
    match () {
        () if kind.is_file() && size > 0 || kind.is_dir() => None,
        () if kind.is_file() => Some(Why::Empty),
        () if kind.is_symlink() => Some(Why::SymbolicLink),
        () if kind.is_fifo() => Some(Why::Pipe),
        () if kind.is_socket() => Some(Why::Socket),
        () => Some(Why::Device),
    }
}

fn join(dir: Option<&[u8]>, name: Option<&[u8]>) -> Vec<u8> {
    [dir, name].into_iter().flatten().collect::<Vec<_>>().join(&b'/')
}

/// A path that a conventional entry can hold.
fn entry_path(path: &[u8]) -> Result<RelPath, PathError> {
    RelPath::new(path).and_then(|path| path.to_field().map(|_| path))
}

impl Scan {
    fn visit(
        &mut self,
        source: &Path,
        path: &[u8],
        metadata: &Metadata,
        options: &Options,
    ) -> Result<(), SourceError> {
        let kind = metadata.file_type();
        let reason = unfit(kind, metadata.len());
        // The root exists; its contents may be copied into it.
        let checked = if path.is_empty() && kind.is_dir() { None } else { Some(entry_path(path)) };
        match (reason, checked) {
            (Some(why), _) => self.leave_out(source, why, why.text()),
            (None, Some(Err(err))) => {
                self.leave_out(source, Why::of_path(&err), err.to_string());
                // Its contents cannot be copied either, and each file is named.
                if kind.is_dir() {
                    self.visit_children(source, path, options)?;
                }
            }
            (None, checked) => {
                if let Some(Ok(path)) = checked {
                    let owner = Owner {
                        uid: options.uid.unwrap_or(metadata.uid()),
                        gid: options.gid.unwrap_or(metadata.gid()),
                        mode: match options.mode {
                            Some(mode) if kind.is_file() => mode,
                            _ => metadata.permissions().mode() & 0o7777,
                        },
                    };
                    let size = kind.is_file().then_some(metadata.len());
                    let stored = metadata.blocks().saturating_mul(STAT_BLOCK);
                    let holes = size.unwrap_or(0).saturating_sub(stored);
                    self.holes = self.holes.saturating_add(holes);
                    let id = (metadata.dev(), metadata.ino());
                    self.note_dropped(source, metadata, holes > 0);
                    self.items.push(Item { source: source.to_owned(), path, owner, id, size });
                }
                if kind.is_dir() {
                    self.visit_children(source, path, options)?;
                }
            }
        }
        Ok(())
    }

    fn visit_children(
        &mut self,
        dir: &Path,
        path: &[u8],
        options: &Options,
    ) -> Result<(), SourceError> {
        let mut names = fs::read_dir(dir)
            .and_then(|entries| {
                entries.map(|e| e.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>()
            })
            .map_err(|err| read_error("read", dir, err))?;
        names.sort_unstable();
        for name in names {
            let source = dir.join(&name);
            let metadata =
                fs::symlink_metadata(&source).map_err(|err| read_error("examine", &source, err))?;
            let parent = (!path.is_empty()).then_some(path);
            self.visit(&source, &join(parent, Some(name.as_bytes())), &metadata, options)?;
        }
        Ok(())
    }

    fn leave_out(&mut self, source: &Path, why: Why, reason: String) {
        self.unsupported.push(Unsupported { source: source.to_owned(), why, reason });
    }

    /// Notes what an item has and famfs does not keep.
    fn note_dropped(&mut self, source: &Path, metadata: &Metadata, fewer_blocks: bool) {
        let mut found = extended_attributes(source);
        // A file system that compresses uses fewer blocks too.
        if metadata.is_file() && fewer_blocks && has_holes(source, metadata.len()) {
            found.push(Attribute::Holes);
        }
        let id = (metadata.dev(), metadata.ino());
        if metadata.is_file() && metadata.nlink() > 1 && !self.linked.insert(id) {
            found.push(Attribute::HardLink);
        }
        self.dropped.add(&source.to_string_lossy(), found);
    }
}

pub(crate) fn read_error(action: &'static str, path: &Path, source: io::Error) -> SourceError {
    SourceError::Read { action, path: path.to_owned(), source }
}

/// What a file's extended attributes are.
fn extended_attributes(path: &Path) -> Vec<Attribute> {
    let mut names = Vec::with_capacity(XATTR_NAMES);
    // A file system without them has none; and those that may not be listed cannot be reported.
    if rustix::fs::llistxattr(path, rustix::buffer::spare_capacity(&mut names)).is_err() {
        return Vec::new();
    }
    let found = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut found: Vec<_> = found.filter_map(Attribute::of_xattr).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether a file has a hole before its end.
fn has_holes(path: &Path, size: u64) -> bool {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let hole = rustix::fs::openat(CWD, path, flags, Mode::empty())
        .and_then(|file| rustix::fs::seek(file, SeekFrom::Hole(0)));
    hole.is_ok_and(|hole| hole < size)
}
