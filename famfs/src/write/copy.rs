// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Copies files and directory trees into a file system.
//!
//! It takes three steps: [`scan`](crate::write::sources::scan) examines the sources,
//! [`Copy::prepare`] finds room for everything, and only then [`Copy::run`] writes. So what cannot
//! work fails before anything is written. A second copy of the same sources finds what a first one
//! had finished: existing files are compared, and only what differs is written.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::format::ALLOC_UNIT;
use crate::format::map::Memory;
use crate::format::path::RelPath;
use crate::replay::{EntryProblem, Node, NodeKind, Owner};
use crate::sys::dax::Access;
use crate::text::terminal::shown;
use crate::text::units::human;
use crate::write::dropped::Dropped;
use crate::write::room::Room;
use crate::write::sources::{self, Item, Scan, SourceError, Unsupported};
use crate::write::transfer::{Crew, How, Job, Moved, Problem, with_crew};
use crate::write::unsupported::{Why, first_names, kept_owner};
use crate::write::volume::Volume;
use crate::write::writer::{WriteError, Writer};

/// Why sources cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source is not fit to be copied.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Targets that are already something else.
    #[error("{} of the targets are taken, so nothing was written:{}", .0.len(), first_names(.0))]
    Taken(Vec<Unsupported>),
    /// Targets that would keep an owner or mode that is not the source's.
    #[error(
        "{} of the targets exist with another owner or mode, which no copy changes, so nothing was \
         written:{}\nremove them first with `famfs rm`, pass theirs with --uid, --gid and --mode, \
         or use --skip-unsupported to copy and keep them", .0.len(), first_names(.0)
    )]
    Kept(Vec<Unsupported>),
    /// All files together need more than is free.
    #[error(
        "no space: the files need {} in units of 2 MiB, {} free; nothing was written{}",
        human(*.needed), human(*.free), holes_hint(*.holes)
    )]
    NoSpace {
        /// Sum of the files' sizes in whole units.
        needed: u64,
        /// Free bytes.
        free: u64,
        /// Bytes of the sources that are holes.
        holes: u64,
    },
    /// The source became shorter, or another file.
    #[error(
        "{} changed while it was copied: expected the same file with {size} bytes",
        shown(path)
    )]
    Changed {
        /// The source.
        path: PathBuf,
        /// Its size when the copy began.
        size: u64,
    },
    /// The memory does not hold what was written.
    #[error(
        "\"{path}\" differs from {} at offset {offset} after it was written",
        shown(source_path)
    )]
    Differs {
        /// The file in the file system.
        path: RelPath,
        /// The source.
        source_path: PathBuf,
        /// Offset of the first byte that differs.
        offset: u64,
    },
    /// The user asked to stop.
    #[error("interrupted; what was complete is kept: run the same command again to continue")]
    Interrupted,
    /// The file could not be written.
    #[error("cannot write \"{path}\"")]
    Target {
        /// The file in the file system.
        path: RelPath,
        /// The error of the system.
        source: io::Error,
    },
    /// A thread panicked.
    #[error(
        "\"{path}\" is not complete: a thread that copied it panicked ({message}); please report this"
    )]
    Panicked {
        /// The file in the file system.
        path: RelPath,
        /// What the panic said.
        message: String,
    },
    /// No thread could be started.
    #[error("cannot start a thread that copies")]
    Threads(#[source] io::Error),
    /// Files that were overwritten may not survive a crash.
    #[error("cannot make the copied files durable")]
    Sync(#[source] io::Error),
    /// The file system could not be changed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn holes_hint(holes: u64) -> String {
    match holes {
        0 => String::new(),
        _ => format!(" ({} of the sources are holes, which famfs stores as zeros)", human(holes)),
    }
}

/// What to do for one item.
enum Step {
    Mkdir(Item),
    Create(Item, u64, Option<Room>),
    /// A file of the same size exists: what differs is replaced in place.
    Update(Item, u64, Memory),
}

/// A copy that has room for all its files.
pub struct Copy {
    steps: Vec<Step>,
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// Targets that keep an owner or mode that is not the source's.
    pub kept: Vec<Unsupported>,
    /// What the sources have and famfs does not keep.
    pub dropped: Dropped,
}

/// What a copy did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Files made.
    pub files: u64,
    /// Files whose bytes were replaced, in whole or in part.
    pub overwritten: u64,
    /// Files that existed with the same bytes.
    pub unchanged: u64,
    /// Directories made.
    pub directories: u64,
    /// Bytes of files that were made or overwritten.
    pub bytes: u64,
}

/// What a copy would do with a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a directory.
    Mkdir,
    /// Make a file.
    Create,
    /// Compare an existing file, and replace what differs.
    Update,
}

impl Copy {
    /// Finds out what to make, and takes memory and log slots for it.
    pub fn prepare(scan: Scan, writer: &mut Writer<'_>) -> Result<Self, CopyError> {
        let (mut steps, mut taken, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
        let mut kept = Vec::new();
        let (mut bytes, mut needed, holes) = (0_u64, 0_u64, scan.holes);
        for item in scan.items {
            let existing = writer.plan().get(&item.path).cloned();
            let before = existing.as_ref().map(|node| node.owner);
            let before = before.or_else(|| seen.get(&item.path).copied());
            let new = seen.insert(item.path.clone(), before.unwrap_or(item.owner)).is_none();
            if let Some(reason) = in_the_way(&item, existing.as_ref(), new) {
                taken.push(Unsupported { source: item.source, why: Why::Taken, reason });
                continue;
            }
            if let Some(before) = before.filter(|before| *before != item.owner) {
                let reason = format!("\"{}\" {}", item.path, kept_owner(before, item.owner));
                kept.push(Unsupported { source: item.source.clone(), why: Why::Kept, reason });
            }
            check_parent(&item, &seen, writer)?;
            bytes = item.size.unwrap_or(0).saturating_add(bytes);
            match (existing.map(|node| node.kind), item.size) {
                (Some(NodeKind::File { size, map }), _) => {
                    steps.push(Step::Update(item, size, Memory::Map(map)));
                }
                (None, Some(size)) => {
                    let units = size.div_ceil(ALLOC_UNIT);
                    needed = needed.saturating_add(units.saturating_mul(ALLOC_UNIT));
                    steps.push(Step::Create(item, size, None));
                }
                (None, None) if new => steps.push(Step::Mkdir(item)),
                _ => {}
            }
        }
        if !taken.is_empty() {
            return Err(CopyError::Taken(taken));
        }
        if !kept.is_empty() && !scan.skip {
            return Err(CopyError::Kept(kept));
        }
        let new = steps.iter().filter(|step| !matches!(step, Step::Update(..))).count();
        writer.check_slots(new as u64)?;
        let free = writer.plan().space.free();
        if needed > free {
            return Err(CopyError::NoSpace { needed, free, holes });
        }
        for step in &mut steps {
            if let Step::Create(item, size, room) = step {
                *room = Some(writer.allocate(&item.path, *size)?);
            }
        }
        // The log does not depend on which thread is done first: directories, then files.
        steps.sort_by_key(|step| !matches!(step, Step::Mkdir(_)));
        Ok(Self { steps, bytes, kept, dropped: scan.dropped })
    }

    /// What [`Copy::run`] will do, in order: each with its source and target.
    pub fn actions(&self) -> impl Iterator<Item = (Action, &PathBuf, &RelPath)> {
        self.steps.iter().map(|step| match step {
            Step::Mkdir(item) => (Action::Mkdir, &item.source, &item.path),
            Step::Create(item, ..) => (Action::Create, &item.source, &item.path),
            Step::Update(item, ..) => (Action::Update, &item.source, &item.path),
        })
    }

    /// Copies everything. `progress` gets the bytes of each step, and returns whether to go on.
    /// What was complete before an error stays.
    pub fn run<'v>(
        self,
        volume: &'v dyn Volume,
        writer: &mut Writer<'v>,
        how: &How,
        progress: impl Fn(u64) -> bool + Sync,
    ) -> Result<Done, CopyError> {
        let states = self.steps.iter().map(|_| State::Waiting).collect();
        let mut session =
            Session { steps: self.steps, states, next: 0, done: Done::default(), error: None };
        let led = with_crew(how, &progress, |crew| session.lead(volume, writer, crew));
        if let Err(error) = led {
            session.fail(CopyError::Threads(error));
        }
        session.clean_up(writer);
        let committed = writer.commit();
        // What is the same may come from a copy that was killed before it got here.
        let synced = match session.done.overwritten + session.done.unchanged {
            0 => Ok(()),
            _ => volume.sync().map_err(CopyError::Sync),
        };
        // The first error is the cause of the later ones.
        match session.error {
            Some(error) => Err(error),
            None => committed.map_err(CopyError::from).and(synced).map(|()| session.done),
        }
    }
}

/// Why an item cannot have its target.
fn in_the_way(item: &Item, existing: Option<&Node>, new: bool) -> Option<String> {
    match (existing.map(|node| &node.kind), item.size) {
        (_, Some(_)) if !new => Some("another source has the same target".to_owned()),
        (Some(NodeKind::File { size, .. }), Some(wanted)) if *size != wanted => {
            Some(format!("\"{}\" exists with {size} bytes, not {wanted}", item.path))
        }
        (Some(NodeKind::File { .. }), None) => {
            Some(format!("\"{}\" is a file, not a directory", item.path))
        }
        (Some(NodeKind::Dir), Some(_)) => Some(format!("\"{}\" is a directory", item.path)),
        _ => None,
    }
}

/// Refuses an item whose directory neither exists nor is part of this copy.
fn check_parent(
    item: &Item,
    seen: &HashMap<RelPath, Owner>,
    writer: &Writer<'_>,
) -> Result<(), CopyError> {
    if item.path.parent().is_some_and(|parent| seen.contains_key(&parent)) {
        return Ok(());
    }
    let path = || item.path.clone();
    let error = |source: EntryProblem| WriteError::Path { path: path(), source };
    Ok(writer.plan().check_parent(&item.path).map_err(error)?)
}

/// How far a step has come.
enum State {
    Waiting,
    /// Its bytes are being written.
    Begun,
    /// Its bytes are complete; whether any were written.
    Ready(bool),
    /// It is in the log, or needs nothing more.
    Settled,
}

struct Session {
    steps: Vec<Step>,
    states: Vec<State>,
    /// All steps before this one are settled.
    next: usize,
    done: Done,
    error: Option<CopyError>,
}

impl Session {
    fn lead<'v>(&mut self, volume: &'v dyn Volume, writer: &mut Writer<'v>, crew: Crew<'_, 'v>) {
        for index in 0..self.steps.len() {
            if self.error.is_some() || crew.stopped() {
                break;
            }
            match self.begin(index, volume, writer) {
                Ok(Some(job)) => crew.give(job),
                Ok(None) => {}
                Err(error) => self.fail(error),
            }
            for moved in crew.finished() {
                self.take(moved);
            }
            self.publish_in_order(writer);
        }
        for moved in crew.wait() {
            self.take(moved);
            self.publish_in_order(writer);
        }
    }

    /// Makes a directory, or prepares a file for its bytes.
    fn begin<'v>(
        &mut self,
        index: usize,
        volume: &'v dyn Volume,
        writer: &mut Writer<'v>,
    ) -> Result<Option<Job<'v>>, CopyError> {
        let (source, size, bytes, compare) = match &self.steps[index] {
            Step::Mkdir(item) => {
                writer.mkdir(&item.path, item.owner)?;
                self.done.directories += 1;
                self.states[index] = State::Settled;
                return Ok(None);
            }
            Step::Create(_, _, None) => return Ok(None),
            Step::Create(item, size, Some(room)) => {
                let source = open(item, *size)?;
                (source, *size, writer.begin(&item.path, item.owner, room)?, false)
            }
            Step::Update(item, size, memory) => {
                let target = |source| CopyError::Target { path: item.path.clone(), source };
                let source = open(item, *size)?;
                let bytes =
                    volume.open_file(&item.path, *size, memory, Access::Write).map_err(target)?;
                (source, *size, bytes, true)
            }
        };
        self.states[index] = State::Begun;
        Ok(Some(Job { index, source, size, bytes, compare }))
    }

    fn take(&mut self, moved: Moved) {
        match moved.result {
            Ok(written) => self.states[moved.index] = State::Ready(written),
            Err(problem) => self.fail(self.error_of(moved.index, problem)),
        }
    }

    /// Keeps the first error, except one that only follows from another's end.
    fn fail(&mut self, error: CopyError) {
        if matches!(self.error, None | Some(CopyError::Interrupted)) {
            self.error = Some(error);
        }
    }

    fn error_of(&self, index: usize, problem: Problem) -> CopyError {
        let (Step::Mkdir(item) | Step::Create(item, ..) | Step::Update(item, ..)) =
            &self.steps[index];
        let (path, source_path) = (item.path.clone(), item.source.clone());
        match problem {
            Problem::Source(err) if err.kind() == io::ErrorKind::UnexpectedEof => {
                CopyError::Changed { path: source_path, size: item.size.unwrap_or(0) }
            }
            Problem::Source(err) => sources::read_error("read", &item.source, err).into(),
            Problem::Target(source) => CopyError::Target { path, source },
            Problem::Differs(offset) => CopyError::Differs { path, source_path, offset },
            Problem::Stopped => CopyError::Interrupted,
            Problem::Panicked(message) => CopyError::Panicked { path, message },
        }
    }

    /// Adds what is complete to the log, in the order of the steps.
    fn publish_in_order(&mut self, writer: &mut Writer<'_>) {
        while let Some(State::Settled | State::Ready(_)) = self.states.get(self.next) {
            self.publish(self.next, writer);
            self.next += 1;
        }
    }

    fn publish(&mut self, index: usize, writer: &mut Writer<'_>) {
        let State::Ready(written) = self.states[index] else { return };
        let (size, published) = match &self.steps[index] {
            Step::Mkdir(_) => return,
            Step::Update(_, size, _) if written => (*size, Ok(&mut self.done.overwritten)),
            Step::Update(..) => (0, Ok(&mut self.done.unchanged)),
            Step::Create(_, _, None) => return,
            Step::Create(item, size, Some(room)) => {
                let published = writer.publish(&item.path, item.owner, room.clone());
                (*size, published.map(|()| &mut self.done.files))
            }
        };
        match published {
            Ok(count) => {
                *count += 1;
                self.done.bytes += size;
                self.states[index] = State::Settled;
            }
            Err(error) => self.fail(error.into()),
        }
    }

    /// Keeps the complete files after an incomplete one, and removes the others.
    fn clean_up(&mut self, writer: &mut Writer<'_>) {
        for index in self.next..self.steps.len() {
            self.publish(index, writer);
            let Step::Create(item, _, Some(room)) = &self.steps[index] else { continue };
            match self.states[index] {
                State::Waiting => writer.release(room),
                State::Begun => writer.abandon(&item.path, room),
                State::Ready(_) | State::Settled => {}
            }
        }
    }
}

/// Opens a source that was examined.
pub(crate) fn open(item: &Item, size: u64) -> Result<File, CopyError> {
    let read_error = |err| sources::read_error("read", &item.source, err);
    // Do not wait for a pipe that has taken the file's place.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file =
        OpenOptions::new().read(true).custom_flags(flags).open(&item.source).map_err(read_error)?;
    // Nor may a link lead to a file that was never examined: the sources may belong to others.
    let metadata = file.metadata().map_err(read_error)?;
    if (metadata.dev(), metadata.ino()) != item.id || !metadata.is_file() {
        return Err(CopyError::Changed { path: item.source.clone(), size });
    }
    Ok(file)
}
