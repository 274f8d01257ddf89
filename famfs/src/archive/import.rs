// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Unpacks a tar archive into a file system.
//!
//! An archive in a file is checked first: what cannot work fails before anything is written. A
//! stream is unpacked member by member, and what is complete before an error stays.

mod members;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Take};

use crate::archive::compression::Compression;
use crate::archive::pack::{self, Pack};
use crate::archive::{ArchiveError, Content, Member};
use crate::archive::{compression, from_start, read_stream};
use crate::format::ALLOC_UNIT;

use crate::format::path::RelPath;
use crate::replay::{NodeKind, Owner};
use crate::text::terminal::escape_name;
use crate::text::units::human;
use crate::write::dropped::Dropped;
use crate::write::room::Room;
use crate::write::stream::FileWriter;
use crate::write::unsupported::{LeftOut, Why, counts, first_names, kept_owner};
use crate::write::volume::{COPY_STEP, FileBytes, steps};
use crate::write::writer::{WriteError, Writer};

use members::{Members, fit, path_of};

pub use members::Survey;

/// Highest number of bytes of names in a compressed archive: a short archive can claim more than
/// the memory holds. A log of 2 GiB has room for a quarter of that.
const MAX_NAMES: u64 = 256 << 20;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory to unpack into; `None` is the root.
    pub into: Option<RelPath>,
    /// Skip what famfs cannot hold.
    pub skip_unsupported: bool,
    /// Pack each directory of small files into one file.
    pub pack: bool,
    /// Only check, and write nothing.
    pub dry_run: bool,
    /// Owner and mode of directories that the archive has no member for.
    pub owner: Owner,
}

/// Why an archive cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The archive cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Members that famfs cannot hold, or whose place is taken.
    #[error(
        "{} of the members cannot be unpacked ({}):{}\n\
         use --skip-unsupported to unpack the rest", .0.len(), reasons(.0), first_names(.0)
    )]
    Unsupported(Vec<LeftOut>),
    /// A stream has a file twice, or later something else in its place.
    #[error(
        "\"{0}\" is in the archive twice, and its first version is already in place; import the \
         archive from a file (--input): then the last version counts"
    )]
    Again(String),
    /// The names of a compressed archive's members take more memory than they should.
    #[error(
        "the names of the archive's members take more than {}: decompress the archive first",
        human(MAX_NAMES)
    )]
    Names,
    /// Packs of a compressed archive.
    #[error(
        "--pack reads an archive out of order, and this one is compressed; decompress it first"
    )]
    CompressedPack,
    /// The archive is not the one that was checked.
    #[error("the archive changed while it was unpacked: {0} of its files were not found again")]
    Changed(usize),
    /// All files together need more than is free.
    #[error(
        "no space: the files need {} in units of 2 MiB, {} free; nothing was written",
        human(*.needed), human(*.free)
    )]
    NoSpace {
        /// Sum of the files' sizes in whole units.
        needed: u64,
        /// Free bytes.
        free: u64,
    },
    /// The bytes of a member cannot be read.
    #[error("cannot read the bytes of \"{path}\" from the archive")]
    Bytes {
        /// The file in the file system.
        path: RelPath,
        /// The error of the system.
        source: io::Error,
    },
    /// The file could not be written.
    #[error("cannot write \"{path}\"")]
    Target {
        /// The file in the file system.
        path: RelPath,
        /// The error of the system.
        source: io::Error,
    },
    /// The user asked to stop.
    #[error("interrupted; what was complete is kept")]
    Interrupted,
    /// The file system could not be changed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// How many items there are of each reason.
pub fn reasons(items: &[LeftOut]) -> String {
    counts(items.iter().map(|item| item.why))
}

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Files made, packs among them.
    pub files: u64,
    /// Directories made.
    pub directories: u64,
    /// Packs made.
    pub packs: u64,
    /// Files that are in the packs.
    pub packed_files: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Members that were skipped.
    pub left_out: Vec<LeftOut>,
    /// Members that a later one of the same name replaced.
    pub superseded: u64,
    /// What the members have and famfs does not keep.
    pub dropped: Dropped,
}

/// A file or directory to make.
struct Item {
    path: RelPath,
    owner: Owner,
    what: What,
}

enum What {
    Dir,
    File { size: u64, position: u64 },
    Pack { size: u64, pack: Pack },
}

impl What {
    fn size(&self) -> Option<u64> {
        match self {
            Self::Dir => None,
            Self::File { size, .. } | Self::Pack { size, .. } => Some(*size),
        }
    }
}

/// An import in progress.
pub struct Import<'w, 'v> {
    writer: &'w mut Writer<'v>,
    options: Options,
    /// Paths of this archive, with the owner of those that are directories.
    seen: HashMap<RelPath, Option<Owner>>,
    done: Done,
    buf: Vec<u8>,
}

impl<'w, 'v> Import<'w, 'v> {
    /// Starts to unpack into a file system.
    pub fn new(writer: &'w mut Writer<'v>, options: Options) -> Self {
        let (seen, done, buf) = (HashMap::new(), Done::default(), vec![0; COPY_STEP]);
        Self { writer, options, seen, done, buf }
    }

    /// Unpacks an archive in a file. `begin` gets the number of bytes, `progress` the bytes of each
    /// step; `progress` returns whether to go on.
    pub fn file(
        mut self,
        file: &File,
        begin: impl FnOnce(u64),
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Done, ImportError> {
        let compression = compression(&mut &*file)?;
        if self.options.pack && compression != Compression::None {
            return Err(ImportError::CompressedPack);
        }
        let found = Members::read(file, compression)?;
        self.done.left_out = found.left_out;
        self.done.superseded = found.superseded;
        let mut members: Vec<Member> = found.list.into_values().collect();
        let mut items = Vec::new();
        if self.options.pack {
            let (packs, rest) = pack::split(members, self.options.owner);
            members = rest;
            for pack in packs {
                self.place_pack(pack, &mut items);
            }
        }
        // Directories first: one that comes after its contents still gets its own owner.
        let (dirs, files): (Vec<_>, Vec<_>) =
            members.into_iter().partition(|member| member.content == Content::Dir);
        for member in dirs.into_iter().chain(files) {
            if let Err(left_out) = self.place(&member, &mut items) {
                self.done.left_out.push(left_out);
            }
        }
        if !self.done.left_out.is_empty() && !self.options.skip_unsupported {
            return Err(ImportError::Unsupported(self.done.left_out));
        }
        let items = self.make_room(items)?;
        begin(items.iter().filter_map(|(item, _)| item.what.size()).sum());
        let result = match compression {
            Compression::None => self.make_all(items, file, progress),
            _ => self.make_from_stream(items, file, progress),
        };
        self.finish(result)
    }

    fn make_all(
        &mut self,
        items: Vec<(Item, Option<Room>)>,
        file: &File,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), ImportError> {
        for (item, map) in items {
            match &item.what {
                What::File { position, size } => {
                    let mut bytes = part(file, *position, *size)
                        .map_err(|source| bytes_error(&item.path, source))?;
                    self.make(&item, map, &mut bytes, progress)?;
                }
                What::Pack { pack, .. } => self.make_pack(&item, pack, map, file, progress)?,
                What::Dir => self.make(&item, map, &mut io::empty(), progress)?,
            }
        }
        Ok(())
    }

    /// Reads a compressed archive a second time, and makes each file when its bytes come.
    fn make_from_stream(
        &mut self,
        items: Vec<(Item, Option<Room>)>,
        file: &File,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), ImportError> {
        let mut waiting = HashMap::new();
        for (item, map) in items {
            match item.what {
                What::File { position, .. } => {
                    waiting.insert(position, (item, map));
                }
                _ => self.make(&item, map, &mut io::empty(), progress)?,
            }
        }
        if self.options.dry_run {
            for (item, map) in waiting.into_values() {
                self.make(&item, map, &mut io::empty(), progress)?;
            }
            return Ok(());
        }
        read_stream(from_start(file)?, |member, bytes| {
            let Ok(Member { content: Content::File { size, position }, .. }) = member else {
                return Ok(());
            };
            match waiting.remove(&position) {
                Some((item, map)) if item.what.size() == Some(size) => {
                    self.make(&item, map, bytes, progress)
                }
                Some(_) => Err(ImportError::Changed(1)),
                None => Ok(()),
            }
        })?;
        if waiting.is_empty() { Ok(()) } else { Err(ImportError::Changed(waiting.len())) }
    }

    /// Unpacks an archive that comes as a stream.
    pub fn stream(
        mut self,
        input: impl Read,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Done, ImportError> {
        let result = read_stream(BufReader::with_capacity(COPY_STEP, input), |member, bytes| {
            let mut items = Vec::new();
            if let Ok(member) = &member {
                self.refuse_again(member)?;
            }
            if let Err(left_out) = member.and_then(|member| self.place(&member, &mut items)) {
                if !self.options.skip_unsupported {
                    return Err(ImportError::Unsupported(vec![left_out]));
                }
                self.done.left_out.push(left_out);
            }
            for (item, map) in self.make_room(items)? {
                self.make(&item, map, bytes, progress)?;
            }
            Ok(())
        });
        self.finish(result)
    }

    /// Publishes what is complete, whatever happened after that.
    fn finish(self, result: Result<(), ImportError>) -> Result<Done, ImportError> {
        let committed = self.writer.commit();
        // The first error is the cause of the later ones.
        result?;
        committed?;
        Ok(self.done)
    }

    /// Refuses a member if a file of this stream already has its name.
    fn refuse_again(&self, member: &Member) -> Result<(), ImportError> {
        let path = path_of(self.options.into.as_ref(), &member.name).ok().flatten();
        match path.and_then(|path| self.seen.get(&path)) {
            Some(None) => Err(ImportError::Again(escape_name(&member.name))),
            _ => Ok(()),
        }
    }

    /// Finds out what to make for a member: the member, and directories above it that are missing.
    fn place(&mut self, member: &Member, items: &mut Vec<Item>) -> Result<(), LeftOut> {
        fit(member)?;
        let what = match member.content {
            Content::File { size, position } => What::File { size, position },
            _ if member.name.is_empty() => return Ok(()),
            _ => What::Dir,
        };
        self.place_item(&member.name, member.owner, what, items)?;
        self.done.dropped.times += 1;
        self.done.dropped.add(&escape_name(&member.name), member.attributes.iter().copied());
        Ok(())
    }

    fn place_pack(&mut self, pack: Pack, items: &mut Vec<Item>) {
        let name = pack.path();
        let size = pack.size().map_err(|err| LeftOut::new(&name, Why::Path, err));
        let placed = size.and_then(|size| {
            self.place_item(&name, pack.file_owner(), What::Pack { size, pack }, items)
        });
        self.done.left_out.extend(placed.err());
    }

    fn place_item(
        &mut self,
        name: &[u8],
        owner: Owner,
        what: What,
        items: &mut Vec<Item>,
    ) -> Result<(), LeftOut> {
        let left_out = |why, reason: String| LeftOut::new(name, why, reason);
        let taken = |reason| left_out(Why::Taken, reason);
        let Some(path) = path_of(self.options.into.as_ref(), name)? else {
            return Err(taken("it is the directory that the archive is unpacked into".to_owned()));
        };
        let reserved = self.writer.plan().check_reserved(&path);
        reserved.map_err(|err| left_out(Why::of_path(&err), err.to_string()))?;
        let found = self.writer.plan().get(&path);
        match (found.map(|node| (&node.kind, node.owner)), &what) {
            (Some((NodeKind::Dir, found)), What::Dir) => {
                return match found == owner {
                    true => Ok(()),
                    false => {
                        let reason = format!("\"{path}\" {}", kept_owner(found, owner));
                        Err(left_out(Why::Kept, reason))
                    }
                };
            }
            (Some((NodeKind::Dir, _)), _) => {
                return Err(taken(format!("\"{path}\" is a directory")));
            }
            (Some((NodeKind::File { .. }, _)), _) => {
                return Err(taken(format!("\"{path}\" exists already")));
            }
            (None, what) => match (self.seen.get(&path), what) {
                (None, _) => {}
                (Some(Some(found)), What::Dir) if *found == owner => return Ok(()),
                (Some(Some(found)), What::Dir) => {
                    let reason = format!("\"{path}\" {}", kept_owner(*found, owner));
                    return Err(left_out(Why::Kept, reason));
                }
                _ => return Err(taken("another member has the same name".to_owned())),
            },
        }
        let mut missing = Vec::new();
        let mut above = path.parent();
        while let Some(dir) = above {
            match self.writer.plan().get(&dir).map(|node| &node.kind) {
                Some(NodeKind::Dir) => break,
                Some(NodeKind::File { .. }) => {
                    return Err(taken(format!("\"{dir}\" is a file, expected a directory")));
                }
                None => match self.seen.get(&dir) {
                    Some(Some(_)) => break,
                    Some(None) => {
                        return Err(taken(format!("\"{dir}\" is a file of this archive too")));
                    }
                    None => {}
                },
            }
            above = dir.parent();
            missing.push(dir);
        }
        for dir in missing.into_iter().rev() {
            self.seen.insert(dir.clone(), Some(self.options.owner));
            items.push(Item { path: dir, owner: self.options.owner, what: What::Dir });
        }
        self.seen.insert(path.clone(), what.size().is_none().then_some(owner));
        items.push(Item { path, owner, what });
        Ok(())
    }

    /// Takes memory and log slots for all items.
    fn make_room(&mut self, items: Vec<Item>) -> Result<Vec<(Item, Option<Room>)>, ImportError> {
        self.writer.check_slots(items.len() as u64)?;
        let units = |size: u64| size.div_ceil(ALLOC_UNIT).saturating_mul(ALLOC_UNIT);
        let sizes = items.iter().filter_map(|item| item.what.size());
        let needed = sizes.fold(0_u64, |sum, size| sum.saturating_add(units(size)));
        let free = self.writer.plan().space.free();
        if needed > free {
            return Err(ImportError::NoSpace { needed, free });
        }
        items
            .into_iter()
            .map(|item| {
                let size = item.what.size();
                let map = size.map(|size| self.writer.allocate(&item.path, size)).transpose()?;
                Ok((item, map))
            })
            .collect()
    }

    /// Makes a directory, or a file with the contents of `bytes`.
    fn make(
        &mut self,
        item: &Item,
        map: Option<Room>,
        bytes: &mut dyn Read,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), ImportError> {
        let (Some(size), Some(map)) = (item.what.size(), map) else {
            if !self.options.dry_run {
                self.writer.mkdir(&item.path, item.owner)?;
            }
            self.done.directories += 1;
            return Ok(());
        };
        self.done.files += 1;
        self.done.bytes += size;
        if self.options.dry_run {
            return Ok(());
        }
        let buf = &mut self.buf;
        self.writer.create(&item.path, item.owner, map, |file: &dyn FileBytes| {
            for (offset, len) in steps(size) {
                let buf = &mut buf[..len];
                bytes.read_exact(buf).map_err(|source| bytes_error(&item.path, source))?;
                file.write(offset, buf)
                    .map_err(|source| ImportError::Target { path: item.path.clone(), source })?;
                if !progress(len as u64) {
                    return Err(ImportError::Interrupted);
                }
            }
            Ok(())
        })
    }

    fn make_pack(
        &mut self,
        item: &Item,
        pack: &Pack,
        map: Option<Room>,
        file: &File,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), ImportError> {
        let (What::Pack { size, .. }, Some(map)) = (&item.what, map) else { return Ok(()) };
        let files = pack.members.iter().filter(|member| member.content != Content::Dir).count();
        self.done.files += 1;
        self.done.packs += 1;
        self.done.packed_files += files as u64;
        self.done.bytes += size;
        if self.options.dry_run {
            return Ok(());
        }
        self.writer.create(&item.path, item.owner, map, |bytes: &dyn FileBytes| {
            // A few large writes instead of many of one block each.
            let out = io::BufWriter::with_capacity(COPY_STEP, FileWriter::new(bytes));
            pack.write(out, |member| match member.content {
                Content::File { size, position } => part(file, position, size),
                Content::Dir | Content::Unfit(_) => part(file, 0, 0),
            })
            .map_err(|source| bytes_error(&item.path, source))?;
            if progress(*size) { Ok(()) } else { Err(ImportError::Interrupted) }
        })
    }
}

fn bytes_error(path: &RelPath, source: io::Error) -> ImportError {
    ImportError::Bytes { path: path.clone(), source }
}

/// A part of an archive's file.
fn part(mut file: &File, position: u64, size: u64) -> io::Result<Take<&File>> {
    file.seek(SeekFrom::Start(position))?;
    Ok(file.take(size))
}
