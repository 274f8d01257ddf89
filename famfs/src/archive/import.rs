// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Unpacks tar archives into a file system, also those that are the layers of a container image.
//!
//! Archives in files are examined first: what cannot work fails before anything is written. A
//! stream is unpacked member by member, and what is complete before an error stays.
//!
//! ```text
//! archives -> layer -> Stage (the tree in the end) -> Work (what is to be done) -> Writer
//! ```

mod fill;
mod layer;
mod stage;
mod survey;
mod work;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::slice;

use crate::archive::compression::Compression;
use crate::archive::{ArchiveError, Content, Member, compression, from_start, read_stream};
use crate::format::ALLOC_UNIT;
use crate::format::extension::PAGE;
use crate::format::path::{PathError, RelPath};
use crate::replay::Owner;
use crate::text::terminal::escape_name;
use crate::text::units::human;
use crate::write::dropped::Dropped;
use crate::write::error::compact_hint;
use crate::write::layout::Layout;
use crate::write::room::Room;
use crate::write::unsupported::{LeftOut, Why, counts, first_names};
use crate::write::volume::{COPY_STEP, FileBytes};
use crate::write::writer::{WriteError, Writer};

use fill::fill;
use stage::{NewFile, Rules, Stage};
use work::{Old, Work};

pub use survey::Survey;

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
    /// The archives are layers of a container image, the lowest first: each can remove and replace
    /// what is there. All of them appear at once.
    pub layers: bool,
    /// What is unpacked appears at once.
    pub atomic: bool,
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
         use --skip-unsupported to unpack the rest{}", items.len(), reasons(items),
        first_names(items),
        if *.upgrade { "; `famfs upgrade` lets this file system hold more" } else { "" }
    )]
    Unsupported {
        /// The members.
        items: Vec<LeftOut>,
        /// Whether a file system with extensions could hold some of them.
        upgrade: bool,
    },
    /// A stream has a name twice.
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
    /// The archive is not the one that was examined.
    #[error("the archive changed while it was unpacked: {0} of its files were not found again")]
    Changed(usize),
    /// All files together need more than is free.
    #[error(
        "no space: the files need {} in {}, {} free; nothing was written{}",
        human(*.needed), match *.unit { PAGE => "pages of 4 KiB", _ => "units of 2 MiB" },
        human(*.free), compact_hint(*.deleted)
    )]
    NoSpace {
        /// Sum of the files' sizes in whole units.
        needed: u64,
        /// Bytes of a unit.
        unit: u64,
        /// Free bytes.
        free: u64,
        /// Bytes that a compaction frees.
        deleted: u64,
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
    /// The path of a member cannot be used.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The user asked to stop.
    #[error("interrupted; {}", if *.atomic { "nothing was written" } else { "what was complete is kept" })]
    Interrupted {
        /// Whether all was to appear at once.
        atomic: bool,
    },
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
    /// Files made.
    pub files: u64,
    /// Directories made.
    pub directories: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Further names of files made.
    pub hard_links: u64,
    /// Names that layers removed or replaced in the file system.
    pub removed: u64,
    /// Existing directories that got the owner, mode or time of their members.
    pub attributes: u64,
    /// Bytes of the files, without their holes.
    pub bytes: u64,
    /// Members that were skipped.
    pub left_out: Vec<LeftOut>,
    /// Members that a later one of the same name replaced.
    pub superseded: u64,
    /// What the members have and famfs does not keep.
    pub dropped: Dropped,
}

/// Memory for the new files, by their numbers.
type Rooms = HashMap<usize, Room>;

/// An import in progress.
pub struct Import<'w, 'v> {
    writer: &'w mut Writer<'v>,
    /// The caller has begun a group, and ends it.
    grouped: bool,
    options: Options,
    done: Done,
    buf: Vec<u8>,
}

impl<'w, 'v> Import<'w, 'v> {
    /// Starts to unpack into a file system. If the writer has begun a group, what is unpacked
    /// becomes a part of it.
    pub fn new(writer: &'w mut Writer<'v>, options: Options) -> Self {
        let (grouped, done) = (writer.is_atomic(), Done::default());
        Self { writer, grouped, options, done, buf: vec![0; COPY_STEP] }
    }

    /// Unpacks archives in files, one after the other. `begin` gets the number of bytes, `progress`
    /// the bytes of each step; `progress` returns whether to go on.
    pub fn files(
        mut self,
        archives: &[File],
        begin: impl FnOnce(u64),
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Done, ImportError> {
        let mut stage = self.stage();
        let tree = self.writer.plan().tree();
        let left_out = &mut self.done.left_out;
        for archive in archives.iter().enumerate() {
            layer::add(&mut stage, tree, archive, self.options.layers, left_out)?;
        }
        if !self.done.left_out.is_empty() && !self.options.skip_unsupported {
            return Err(self.unsupported());
        }
        let work = self.work(stage);
        // Before memory is taken: that of shared files is part of the group.
        if !self.grouped && (self.options.atomic || self.options.layers) {
            self.writer.atomic()?;
        }
        let mut rooms = self.make_room(&work)?;
        begin(work.files().map(|(_, file)| layout(file, self.extensions()).data_bytes()).sum());
        self.make_tree(&work)?;
        for (number, archive) in archives.iter().enumerate() {
            let result = self.make_files(&work, (number, archive), &mut rooms, progress);
            if result.is_err() {
                return self.finish(result);
            }
        }
        let result = self.make_rest(&work);
        self.finish(result)
    }

    /// Unpacks one archive in a file.
    pub fn file(
        self,
        archive: &File,
        begin: impl FnOnce(u64),
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Done, ImportError> {
        let archive = archive.try_clone().map_err(ArchiveError::Read)?;
        self.files(slice::from_ref(&archive), begin, progress)
    }

    /// Unpacks an archive that comes as a stream. Its members are never made at once.
    pub fn stream(
        mut self,
        input: impl Read,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Done, ImportError> {
        let mut seen = HashSet::new();
        let result = read_stream(BufReader::with_capacity(COPY_STEP, input), |member, bytes| {
            if let Err(left_out) = self.stream_member(member, bytes, &mut seen, progress)? {
                self.done.left_out.push(left_out);
                if !self.options.skip_unsupported {
                    return Err(self.unsupported());
                }
            }
            Ok(())
        });
        self.finish(result)
    }

    fn stream_member(
        &mut self,
        member: Result<Member, LeftOut>,
        mut bytes: &mut dyn Read,
        seen: &mut HashSet<RelPath>,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Result<(), LeftOut>, ImportError> {
        let member = match member {
            Ok(member) => member,
            Err(left_out) => return Ok(Err(left_out)),
        };
        let (name, is_dir) = (member.name.clone(), member.content == Content::Dir);
        let mut stage = self.stage();
        if let Err(left_out) = stage.add(self.writer.plan().tree(), member, 0) {
            let path = match &self.options.into {
                Some(dir) => RelPath::new(&[dir.as_bytes(), b"/", &name].concat()),
                None => RelPath::new(&name),
            };
            return match left_out.why {
                Why::Taken if path.is_ok_and(|path| seen.contains(&path)) => {
                    Err(ImportError::Again(escape_name(&name)))
                }
                _ => Ok(Err(left_out)),
            };
        }
        let work = self.work(stage);
        let mut rooms = self.make_room(&work)?;
        self.make_tree(&work)?;
        let files: Vec<usize> = work.files().map(|(file, _)| file).collect();
        for file in files {
            self.make_file(&work, file, &mut rooms, &mut bytes, progress)?;
        }
        self.make_rest(&work)?;
        if !is_dir {
            let made = work.names.iter().flatten().chain(&work.symlinks);
            let linked = work.links.iter().map(|(node, _)| node);
            for node in made.chain(linked) {
                seen.insert(work.last_path(*node)?);
            }
        }
        Ok(Ok(()))
    }

    fn extensions(&self) -> bool {
        self.writer.plan().has_extensions()
    }

    fn stage(&self) -> Stage {
        let rules = Rules { layers: self.options.layers, extensions: self.extensions() };
        Stage::new(self.writer.plan().tree(), self.options.into.clone(), rules)
    }

    fn unsupported(&mut self) -> ImportError {
        let items = std::mem::take(&mut self.done.left_out);
        let more = |item: &LeftOut| item.why.needs_extensions() || item.why == Why::HardLink;
        let upgrade = !self.extensions() && items.iter().any(more);
        ImportError::Unsupported { items, upgrade }
    }

    fn work(&mut self, stage: Stage) -> Work {
        self.done.superseded += stage.superseded;
        let mut work = Work::of(stage, self.writer.plan().tree(), self.extensions());
        self.done.dropped.extend(std::mem::take(&mut work.dropped));
        work
    }

    /// Takes memory and log slots for everything.
    fn make_room(&mut self, work: &Work) -> Result<Rooms, ImportError> {
        let entries = work.entries();
        self.writer.check_slots(entries)?;
        let extensions = self.extensions();
        let unit = if extensions { PAGE } else { ALLOC_UNIT };
        let sizes = work.files().map(|(_, file)| match extensions {
            true => layout(file, true).pages().saturating_mul(PAGE),
            false => file.size.div_ceil(unit).saturating_mul(unit),
        });
        let needed = sizes.fold(0, u64::saturating_add);
        let free = self.writer.free();
        if needed > free {
            let deleted = self.writer.deleted();
            return Err(ImportError::NoSpace { needed, unit, free, deleted });
        }
        let (mut rooms, mut lists) = (Rooms::new(), 0);
        for (number, file) in work.files() {
            let Some(node) = work.names[number] else { continue };
            let room = self.writer.allocate(&work.last_path(node)?, layout(file, extensions))?;
            lists += room.lists();
            rooms.insert(number, room);
        }
        // Memory of shared files needs entries too, which are known only now.
        self.writer.check_slots(entries + lists)?;
        Ok(rooms)
    }

    /// Makes directories.
    fn make_tree(&mut self, work: &Work) -> Result<(), ImportError> {
        for node in &work.dirs {
            self.writer.mkdir(&work.path(*node)?, work.dir(*node, self.options.owner))?;
            self.done.directories += 1;
        }
        Ok(())
    }

    /// Makes the files of one archive.
    fn make_files(
        &mut self,
        work: &Work,
        (archive, input): (usize, &File),
        rooms: &mut Rooms,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), ImportError> {
        let files = work.files().filter(|(_, file)| file.archive == archive);
        let files: Vec<(usize, u64)> =
            files.map(|(number, file)| (number, file.position)).collect();
        if self.writer.is_preview() {
            for (number, _) in files {
                self.make_file(work, number, rooms, &mut io::empty(), progress)?;
            }
            return Ok(());
        }
        if compression(&mut &*input)? == Compression::None {
            let mut input = input;
            for (number, position) in files {
                input.seek(SeekFrom::Start(position)).map_err(ArchiveError::Read)?;
                self.make_file(work, number, rooms, &mut input, progress)?;
            }
            return Ok(());
        }
        // A second time, and each file when its bytes come.
        let mut waiting: HashMap<u64, usize> =
            files.into_iter().map(|(number, position)| (position, number)).collect();
        read_stream(from_start(input)?, |member, mut bytes| {
            let Ok(Member { content: Content::File { size, position, map }, .. }) = member else {
                return Ok(());
            };
            let Some(number) = waiting.remove(&position) else { return Ok(()) };
            let file = work.file(number);
            match (file.size, &file.map) == (size, &map) {
                true => self.make_file(work, number, rooms, &mut bytes, progress),
                false => Err(ImportError::Changed(1)),
            }
        })?;
        if waiting.is_empty() { Ok(()) } else { Err(ImportError::Changed(waiting.len())) }
    }

    fn make_file(
        &mut self,
        work: &Work,
        number: usize,
        rooms: &mut Rooms,
        bytes: &mut dyn Read,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), ImportError> {
        let (Some(node), Some(room)) = (work.names[number], rooms.remove(&number)) else {
            return Ok(());
        };
        let (path, file) = (work.path(node)?, work.file(number));
        let layout = layout(file, self.extensions());
        let whole = [0..file.size];
        let map = file.map.as_deref().unwrap_or(if file.size > 0 { &whole } else { &[] });
        let buf = &mut self.buf;
        self.done.bytes = self.done.bytes.saturating_add(layout.data_bytes());
        self.done.files += 1;
        self.writer.create(&path, file.attributes, room, |target: &dyn FileBytes| {
            fill(target, &path, (&layout, map), bytes, buf, progress)
        })
    }

    /// Makes links, removes what layers remove, and gives everything its place.
    fn make_rest(&mut self, work: &Work) -> Result<(), ImportError> {
        for node in &work.symlinks {
            let (target, attributes) = work.symlink(*node);
            self.writer.symlink(&work.path(*node)?, target, attributes)?;
            self.done.symlinks += 1;
        }
        for (node, old) in &work.links {
            let old = match old {
                Old::File(file) => work.names[*file].map(|node| work.path(node)).transpose()?,
                Old::Object(slot) => {
                    let tree = self.writer.plan().tree();
                    let name = tree.names_of(*slot).next();
                    name.and_then(|name| tree.path_of(name))
                }
            };
            // It has a name: nothing was removed yet.
            if let Some(old) = old {
                self.writer.link(&old, &work.path(*node)?)?;
                self.done.hard_links += 1;
            }
        }
        for slot in &work.deletions {
            if let Some(path) = self.writer.plan().tree().path_of(*slot) {
                self.writer.delete(&path)?;
                self.done.removed += 1;
            }
        }
        for node in &work.moves {
            self.writer.rename(&work.path(*node)?, &work.last_path(*node)?, false)?;
        }
        for (node, new) in &work.attributes {
            self.writer.set_attributes(Some(&work.last_path(*node)?), new)?;
            self.done.attributes += 1;
        }
        Ok(())
    }

    /// Publishes what is complete, whatever happened after that; a group only as a whole.
    fn finish(self, result: Result<(), ImportError>) -> Result<Done, ImportError> {
        let atomic = self.writer.is_atomic();
        let committed = match (&result, atomic) {
            (Err(_), true) => Ok(()),
            (Ok(()), true) if self.grouped => Ok(()),
            _ => self.writer.commit(),
        };
        // The first error is the cause of the later ones.
        result.map_err(|error| match error {
            ImportError::Interrupted { .. } => ImportError::Interrupted { atomic },
            error => error,
        })?;
        committed?;
        Ok(self.done)
    }
}

/// Which parts of a file get memory: without extensions, all of it.
fn layout(file: &NewFile, extensions: bool) -> Layout {
    match &file.map {
        Some(map) if extensions => Layout::new(file.size, map.iter().cloned()),
        _ => file.size.into(),
    }
}
