// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Examines files and directory trees that are to be copied into a file system.
//!
//! [`scan`] lists what exists and what famfs cannot hold, and changes nothing.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::vec;

use rustix::fs::{FileType, OFlags};

use crate::format::extension::STORE_DIR;
use crate::format::path::{PathError, RelPath};
use crate::replay::{Attributes, Owner};
use crate::system::long_path;
use crate::text::terminal::shown;
use crate::write::dropped::{Attribute, Dropped};
use crate::write::examine::{self, FileId, Meta, OpenDir};
use crate::write::layout::Layout;
use crate::write::need::Need;
use crate::write::unsupported::{self, LeftOut, Why, first_names};

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Copy directories and everything in them.
    pub recursive: bool,
    /// Copy what symbolic links lead to instead of the links.
    pub dereference: bool,
    /// The file system has no extensions, so it holds neither empty files nor symbolic links nor
    /// long paths.
    pub conventional: bool,
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
    /// A directory or file is not what it was a moment ago.
    #[error("{} changed while it was examined; run the command again", shown(.0))]
    Changed(PathBuf),
    /// A symbolic link to a directory that it is in.
    #[error("{} is a symbolic link that leads back to {}, which it is in", shown(link), shown(dir))]
    Loop {
        /// The link.
        link: PathBuf,
        /// The directory.
        dir: PathBuf,
    },
    /// Sources that famfs cannot hold.
    #[error(
        "{} of the sources cannot be copied ({}), so nothing was written:{}\n\
         use --skip-unsupported to copy the rest{}",
        items.len(), reasons(items), first_names(items), upgrade_hint(*upgrade)
    )]
    Unsupported {
        /// What they are.
        items: Vec<Unsupported>,
        /// Whether a file system with extensions holds some of them.
        upgrade: bool,
    },
}

fn upgrade_hint(upgrade: bool) -> &'static str {
    match upgrade {
        true => ", or `famfs upgrade` so that this file system holds more",
        false => "",
    }
}

/// How many items there are of each reason.
pub fn reasons(items: &[Unsupported]) -> String {
    unsupported::counts(items.iter().map(|item| item.why))
}

/// A name to make.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub source: PathBuf,
    pub path: RelPath,
    pub attributes: Attributes,
    /// Device and inode of the source.
    pub id: FileId,
    pub what: What,
    /// It stands for what is in it: if it exists, only that is copied.
    pub contents_only: bool,
}

/// What an item is.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Dir,
    File(Layout),
    Symlink(Box<[u8]>),
    /// Another name of the file with this path, which comes before it.
    Link(RelPath),
}

impl Item {
    /// Bytes of a file.
    pub fn size(&self) -> Option<u64> {
        match &self.what {
            What::File(layout) => Some(layout.size()),
            _ => None,
        }
    }
}

/// What the sources hold, directories before their contents.
#[derive(Debug, Default)]
pub struct Scan {
    pub(crate) items: Vec<Item>,
    /// Bytes of the sources that are holes, for which conventional files have memory.
    pub(crate) holes: u64,
    /// What was skipped.
    pub unsupported: Vec<Unsupported>,
    /// What the items have and famfs does not keep.
    pub dropped: Dropped,
    /// Whether to go on without what cannot be copied.
    pub(crate) skip: bool,
    /// The first names of files that have more.
    first_names: HashMap<FileId, RelPath>,
}

impl Scan {
    /// The sizes of the files to make; `None` for everything else.
    pub fn sizes(&self) -> impl Iterator<Item = Option<u64>> + '_ {
        self.items.iter().map(Item::size)
    }

    /// What the items need in a new file system with extensions.
    pub fn need(&self) -> Need {
        let mut need = Need::default();
        for item in &self.items {
            match &item.what {
                What::Dir | What::Link(_) => need.add_name(),
                What::Symlink(target) => need.add_symlink(target.len()),
                What::File(layout) => need.add_file(layout),
            }
        }
        need
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
        match scan.named(source, destination, options) {
            Err(Failed::One(unsupported)) => scan.unsupported.push(unsupported),
            Err(Failed::All(error)) => return Err(error),
            Ok(()) => {}
        }
    }
    if !scan.unsupported.is_empty() && !options.skip_unsupported {
        let items = scan.unsupported;
        let upgrade = options.conventional && items.iter().any(|item| item.why.needs_extensions());
        return Err(SourceError::Unsupported { items, upgrade });
    }
    Ok(scan)
}

/// How sources are opened: without waiting for a pipe that has taken the file's place.
pub(crate) fn open_flags() -> OFlags {
    OFlags::RDONLY | OFlags::NONBLOCK
}

/// Whether a source means the contents of the directory rather than the directory: `DIR/.`
fn names_contents(source: &Path) -> bool {
    let bytes = source.as_os_str().as_bytes();
    bytes == b"." || bytes.ends_with(b"/.")
}

/// Why famfs cannot hold a file of this kind and size.
fn unfit(meta: &Meta, options: &Options) -> Option<Why> {
    match meta.kind {
        FileType::RegularFile if options.conventional && meta.size == 0 => Some(Why::Empty),
        FileType::Symlink if options.conventional => Some(Why::SymbolicLink),
        FileType::RegularFile | FileType::Directory | FileType::Symlink => None,
        FileType::Fifo => Some(Why::Pipe),
        FileType::Socket => Some(Why::Socket),
        _ => Some(Why::Device),
    }
}

fn join(dir: Option<&[u8]>, name: Option<&[u8]>) -> Vec<u8> {
    [dir, name].into_iter().flatten().collect::<Vec<_>>().join(&b'/')
}

/// A path that the file system can hold.
fn checked(path: &[u8], options: &Options) -> Result<RelPath, PathError> {
    let path = RelPath::new(path)?;
    if options.conventional {
        path.to_field()?;
    } else if path.first() == STORE_DIR.as_bytes() {
        return Err(PathError::Store(path.to_string()));
    }
    Ok(path)
}

/// A name of a directory, examined.
struct Found {
    name: OsString,
    meta: Meta,
    layout: Layout,
    target: Option<Box<[u8]>>,
    lost: Vec<Attribute>,
}

/// A directory on the way, with what is left of it.
struct Level {
    source: PathBuf,
    path: Vec<u8>,
    id: FileId,
    left: vec::IntoIter<Result<Found, Unsupported>>,
}

/// What an error means for the examination.
enum Failed {
    /// Only this name cannot be copied.
    One(Unsupported),
    /// It cannot go on.
    All(SourceError),
}

impl From<SourceError> for Failed {
    fn from(error: SourceError) -> Self {
        Self::All(error)
    }
}

impl Failed {
    fn new(action: &'static str, path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::One(Unsupported {
                source: path.to_owned(),
                why: Why::Unreadable,
                reason: format!("cannot {action} it: {error}"),
            }),
            _ => Self::All(read_error(action, path, error)),
        }
    }

    fn dangling(path: &Path) -> Self {
        let (source, why) = (path.to_owned(), Why::Dangling);
        Self::One(Unsupported { source, why, reason: why.text() })
    }

    /// The same for what a directory had a moment ago.
    fn inside(action: &'static str, path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::All(SourceError::Changed(path.to_owned())),
            _ => Self::new(action, path, error),
        }
    }
}

impl Scan {
    /// Adds what the user named.
    fn named(
        &mut self,
        source: &Path,
        destination: &Destination,
        options: &Options,
    ) -> Result<(), Failed> {
        let failed = |action| move |err| Failed::new(action, source, err);
        // A source that the user named is followed if it is a symbolic link, as cp does.
        let meta = match Meta::followed(source) {
            Err(error) if examine::leads_nowhere(&error) && source.is_symlink() => {
                return Err(Failed::dangling(source));
            }
            examined => examined.map_err(failed("examine"))?,
        };
        if meta.is_dir() && !options.recursive {
            return Err(SourceError::NotRecursive(source.to_owned()).into());
        }
        let contents_only = names_contents(source);
        let path = match destination {
            Destination::As(path) => path.as_bytes().to_vec(),
            Destination::Into(dir) => {
                let name = if contents_only { None } else { source.file_name() };
                join(dir.as_ref().map(RelPath::as_bytes), name.map(OsStrExt::as_bytes))
            }
        };
        let layout = match meta.is_file() {
            true => long_path::open(source, open_flags())
                .and_then(|file| examine::layout(&file.into(), meta.size))
                .map_err(failed("read"))?,
            false => meta.size.into(),
        };
        let lost = examine::extended_attributes(source, true);
        let found = Found { name: OsString::new(), meta, layout, target: None, lost };
        self.walk(source, path, contents_only, found, options)
    }

    /// Adds a source and everything in it. Only one directory is open at a time, however deep it
    /// goes.
    fn walk(
        &mut self,
        source: &Path,
        path: Vec<u8>,
        contents_only: bool,
        found: Found,
        options: &Options,
    ) -> Result<(), Failed> {
        let mut levels: Vec<Level> = Vec::new();
        if found.meta.is_dir() {
            levels.push(Level::read(source.to_owned(), path.clone(), found.meta.id, options)?);
        }
        self.add(source, &path, contents_only, found, options);
        while let Some(level) = levels.last_mut() {
            let found = match level.left.next() {
                Some(Ok(found)) => found,
                Some(Err(unsupported)) => {
                    self.unsupported.push(unsupported);
                    continue;
                }
                None => {
                    levels.pop();
                    continue;
                }
            };
            let source = level.source.join(&found.name);
            let parent = (!level.path.is_empty()).then_some(&*level.path);
            let path = join(parent, Some(found.name.as_bytes()));
            let id = found.meta.id;
            let mut inside = None;
            if found.meta.is_dir() {
                if let Some(above) = levels.iter().find(|above| above.id == id) {
                    let dir = above.source.clone();
                    return Err(SourceError::Loop { link: source, dir }.into());
                }
                match Level::read(source.clone(), path.clone(), id, options) {
                    Err(Failed::One(unsupported)) => {
                        self.unsupported.push(unsupported);
                        continue;
                    }
                    read => inside = Some(read?),
                }
            }
            // What is in a directory whose path is too long cannot be copied either, and each file
            // is named.
            self.add(&source, &path, false, found, options);
            levels.extend(inside);
        }
        Ok(())
    }

    /// Adds one name.
    fn add(
        &mut self,
        source: &Path,
        path: &[u8],
        contents_only: bool,
        found: Found,
        options: &Options,
    ) {
        let Found { meta, layout, target, lost, .. } = found;
        if let Some(why) = unfit(&meta, options) {
            return self.leave_out(source, why, why.text());
        }
        // The root exists; its contents may be copied into it.
        if path.is_empty() && meta.is_dir() {
            return;
        }
        let path = match checked(path, options) {
            Ok(path) => path,
            Err(err) => return self.leave_out(source, Why::of_path(&err), err.to_string()),
        };
        let first = match meta.is_file() && meta.names > 1 {
            true => self.first_names.get(&meta.id).cloned(),
            false => None,
        };
        if first.is_none() && meta.is_file() && meta.names > 1 {
            self.first_names.insert(meta.id, path.clone());
        }
        let data: u64 = layout.data().map(|range| range.end - range.start).sum();
        let holes = if meta.is_file() { meta.size - data } else { 0 };
        self.note_dropped(source, lost, options, holes > 0, first.is_some());
        self.holes = self.holes.saturating_add(holes);
        let what = match (target, first) {
            _ if meta.is_dir() => What::Dir,
            (Some(target), _) => What::Symlink(target),
            (None, Some(first)) if !options.conventional => What::Link(first),
            (None, _) => What::File(layout),
        };
        let mode = options.mode.filter(|_| meta.is_file());
        let owner = Owner {
            uid: options.uid.unwrap_or(meta.owner.uid),
            gid: options.gid.unwrap_or(meta.owner.gid),
            mode: mode.unwrap_or(meta.owner.mode),
        };
        let attributes = Attributes { owner, mtime: Some(meta.mtime) };
        let source = source.to_owned();
        self.items.push(Item { source, path, attributes, id: meta.id, what, contents_only });
    }

    fn leave_out(&mut self, source: &Path, why: Why, reason: String) {
        self.unsupported.push(Unsupported { source: source.to_owned(), why, reason });
    }

    /// Notes what an item has and the file system does not keep.
    fn note_dropped(
        &mut self,
        source: &Path,
        mut lost: Vec<Attribute>,
        options: &Options,
        has_holes: bool,
        is_link: bool,
    ) {
        if options.conventional {
            lost.extend(has_holes.then_some(Attribute::Holes));
            lost.extend(is_link.then_some(Attribute::HardLink));
            self.dropped.times += 1;
        }
        if !lost.is_empty() {
            self.dropped.add(&source.to_string_lossy(), lost);
        }
    }
}

impl Level {
    /// Reads a directory, and examines what is in it.
    fn read(source: PathBuf, path: Vec<u8>, id: FileId, options: &Options) -> Result<Self, Failed> {
        let failed = |err| Failed::inside("read", &source, err);
        let Some(dir) = OpenDir::open(&source, id).map_err(failed)? else {
            return Err(SourceError::Changed(source).into());
        };
        let names = dir.names().map_err(failed)?;
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            match examine(&dir, &source, name, options) {
                Err(Failed::One(unsupported)) => found.push(Err(unsupported)),
                Err(Failed::All(error)) => return Err(error.into()),
                Ok(examined) => found.push(Ok(examined)),
            }
        }
        Ok(Self { source, path, id, left: found.into_iter() })
    }
}

/// Examines a name in an open directory.
fn examine(
    dir: &OpenDir,
    source: &Path,
    name: OsString,
    options: &Options,
) -> Result<Found, Failed> {
    let follow = options.dereference;
    let path = source.join(&name);
    let failed = |action| {
        let path = &path;
        move |err| Failed::inside(action, path, err)
    };
    let meta = match dir.examine(&name, follow) {
        Err(error)
            if examine::leads_nowhere(&error)
                && dir.examine(&name, false).is_ok_and(|found| found.is_symlink()) =>
        {
            return Err(Failed::dangling(&path));
        }
        examined => examined.map_err(failed("examine"))?,
    };
    let target = match meta.kind {
        FileType::Symlink => Some(dir.target(&name).map_err(failed("read"))?),
        _ => None,
    };
    let layout = match meta.is_file() {
        true if examine::may_have_holes(&meta) => {
            let file = dir.open_file(&name).map_err(failed("read"))?;
            if Meta::of(&file).map_err(failed("examine"))?.id != meta.id {
                return Err(SourceError::Changed(path.clone()).into());
            }
            examine::layout(&file, meta.size).map_err(failed("read"))?
        }
        true => {
            dir.check_readable(&name).map_err(failed("read"))?;
            meta.size.into()
        }
        false => meta.size.into(),
    };
    let lost = dir.attributes(&path, &name, follow);
    Ok(Found { name, meta, layout, target, lost })
}

pub(crate) fn read_error(action: &'static str, path: &Path, source: io::Error) -> SourceError {
    SourceError::Read { action, path: path.to_owned(), source }
}
