// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Carries a prepared copy out: small files at once, others on several threads, and everything
//! published in the order of the steps.

use std::fs::File;
use std::io;

use crate::format::map::{Extent, Memory};
use crate::sys::dax::Access;
use crate::system::long_path;
use crate::write::change::NewAttributes;
use crate::write::copy_error::CopyError;
use crate::write::examine::Meta;
use crate::write::gather::{self, Gather};
use crate::write::room::Room;
use crate::write::sources::{self, Item, What};
use crate::write::transfer::{Crew, How, Job, Moved, Problem, Task, with_crew};
use crate::write::volume::Volume;
use crate::write::writer::Writer;

/// What to do for one item.
pub(super) struct Step {
    pub item: Item,
    pub todo: Todo,
    /// It takes the place of what is at its target.
    pub replaces: bool,
    /// What is to be changed of an existing target's attributes.
    pub new: NewAttributes,
}

/// What an item needs.
pub(super) enum Todo {
    Mkdir,
    Create(Option<Room>),
    /// A file of the same size exists: what differs is replaced in place.
    Update(Memory),
    /// A file with the same bytes exists.
    Same,
    Symlink,
    Link,
    Attributes,
}

/// What a copy did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Files made.
    pub files: u64,
    /// Files whose bytes were replaced, in whole or in part.
    pub overwritten: u64,
    /// Files and links that others took the place of.
    pub replaced: u64,
    /// Files that existed with the same bytes.
    pub unchanged: u64,
    /// Directories made.
    pub directories: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Further names of files made.
    pub hard_links: u64,
    /// Existing files, directories and links that got the owner, mode or time of their sources.
    pub attributes: u64,
    /// Bytes of files that were made or overwritten.
    pub bytes: u64,
}

/// How far a step has come.
#[derive(Clone, Copy)]
enum State {
    Waiting,
    /// Its bytes are being written.
    Begun,
    /// Its bytes are complete; whether any were written.
    Ready(bool),
    /// It is in the log, or needs nothing more.
    Settled,
}

pub(super) struct Session<'v> {
    steps: Vec<Step>,
    states: Vec<State>,
    /// All steps before this one are settled.
    next: usize,
    atomic: bool,
    gather: Option<Gather<'v>>,
    done: Done,
    error: Option<CopyError>,
}

impl<'v> Session<'v> {
    pub fn new(steps: Vec<Step>, atomic: bool) -> Self {
        let states = vec![State::Waiting; steps.len()];
        let (done, error) = (Done::default(), None);
        Self { steps, states, next: 0, atomic, gather: None, done, error }
    }

    /// Does all steps; what was done, and the first error.
    pub fn run(
        mut self,
        volume: &'v dyn Volume,
        writer: &mut Writer<'v>,
        how: &How,
        progress: &(dyn Fn(u64) -> bool + Sync),
    ) -> (Done, Option<CopyError>) {
        self.gather = volume.device().map(|device| Gather::new(device, how.verify));
        let lead = |crew: Crew<'_, 'v>| self.lead(volume, writer, crew, progress);
        if let Err(error) = with_crew(how, progress, lead) {
            self.fail(CopyError::Threads(error));
        }
        self.clean_up(writer);
        (self.done, self.error)
    }

    fn lead(
        &mut self,
        volume: &'v dyn Volume,
        writer: &mut Writer<'v>,
        crew: Crew<'_, 'v>,
        progress: &(dyn Fn(u64) -> bool + Sync),
    ) {
        for index in 0..self.steps.len() {
            if self.error.is_some() || crew.stopped() {
                break;
            }
            match self.begin(index, volume, writer, progress) {
                Ok(Some(job)) => crew.give(job),
                Ok(None) => {}
                Err(error) => self.fail(error),
            }
            for moved in crew.finished() {
                self.take(moved);
            }
            self.publish_in_order(writer);
        }
        if self.error.is_none() && !crew.stopped() {
            self.write_gathered();
        }
        self.publish_in_order(writer);
        for moved in crew.wait() {
            self.take(moved);
            self.publish_in_order(writer);
        }
    }

    /// Makes a directory, or prepares a file for its bytes.
    fn begin(
        &mut self,
        index: usize,
        volume: &'v dyn Volume,
        writer: &mut Writer<'v>,
        progress: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<Option<Job<'v>>, CopyError> {
        let Step { item, todo, .. } = &self.steps[index];
        let (source, ranges, bytes, task) = match (todo, &item.what) {
            (Todo::Mkdir, _) => {
                writer.mkdir(&item.path, item.attributes)?;
                self.done.directories += 1;
                self.states[index] = State::Settled;
                return Ok(None);
            }
            (Todo::Create(Some(room)), What::File(layout)) => {
                let source = open(item, layout.size())?;
                let place = gather::place(layout.size(), room.memory());
                if let (Some(extent), Some(_)) = (place, &self.gather) {
                    let size = layout.size();
                    self.gather(index, &source, size, extent)?;
                    let interrupted = CopyError::Interrupted { atomic: self.atomic };
                    return if progress(size) { Ok(None) } else { Err(interrupted) };
                }
                let bytes = writer.begin(&item.path, item.attributes, room)?;
                (source, layout.data().collect(), bytes, Task::Write)
            }
            (Todo::Update(memory), What::File(layout)) => {
                let target = |source| CopyError::Target { path: item.path.clone(), source };
                let source = open(item, layout.size())?;
                let (task, access) = match self.atomic {
                    true => (Task::Compare, Access::Read),
                    false => (Task::Replace, Access::Write),
                };
                let size = layout.size();
                let bytes = volume.open_file(&item.path, size, memory, access).map_err(target)?;
                (source, layout.and_memory(memory), bytes, task)
            }
            (Todo::Create(_) | Todo::Update(_), _) => return Ok(None),
            // Only the log has them.
            (Todo::Symlink | Todo::Link | Todo::Same | Todo::Attributes, _) => {
                self.states[index] = State::Ready(true);
                return Ok(None);
            }
        };
        if ranges.is_empty() {
            let written = task == Task::Write;
            self.states[index] = State::Ready(written);
            return Ok(None);
        }
        self.states[index] = State::Begun;
        Ok(Some(Job { index, source, ranges, bytes, task }))
    }

    /// Reads a small file, to be written together with others.
    fn gather(
        &mut self,
        index: usize,
        source: &File,
        size: u64,
        extent: Extent,
    ) -> Result<(), CopyError> {
        if !self.gather.as_ref().is_some_and(|gather| gather.fits(extent)) {
            self.write_gathered();
        }
        if let (None, Some(gather)) = (&self.error, &mut self.gather) {
            let read = gather.read(index, source, size, extent);
            read.map_err(|problem| self.error_of(index, problem))?;
            self.states[index] = State::Begun;
        }
        Ok(())
    }

    fn write_gathered(&mut self) {
        let Some(gather) = &mut self.gather else { return };
        match gather.write() {
            Ok(files) => {
                for index in files {
                    self.states[index] = State::Ready(true);
                }
            }
            Err((index, problem)) => self.fail(self.error_of(index, problem)),
        }
    }

    fn take(&mut self, moved: Moved) {
        match moved.result {
            Ok(written) => self.states[moved.index] = State::Ready(written),
            Err(problem) => self.fail(self.error_of(moved.index, problem)),
        }
    }

    /// Keeps the first error, except one that only follows from another's end.
    fn fail(&mut self, error: CopyError) {
        if matches!(self.error, None | Some(CopyError::Interrupted { .. })) {
            self.error = Some(error);
        }
    }

    fn error_of(&self, index: usize, problem: Problem) -> CopyError {
        let Step { item, todo, .. } = &self.steps[index];
        let (path, source_path) = (item.path.clone(), item.source.clone());
        match problem {
            Problem::Source(err) if err.kind() == io::ErrorKind::UnexpectedEof => {
                CopyError::Changed { path: source_path, size: item.size().unwrap_or(0) }
            }
            Problem::Source(err) => sources::read_error("read", &item.source, err).into(),
            Problem::Target(err) if err.kind() == io::ErrorKind::StorageFull => {
                CopyError::Hole { path, source_path }
            }
            Problem::Target(source) => CopyError::Target { path, source },
            Problem::Differs(offset) if self.atomic && matches!(todo, Todo::Update(_)) => {
                CopyError::NotAtomic { path, source_path, offset }
            }
            Problem::Differs(offset) => CopyError::Differs { path, source_path, offset },
            Problem::Stopped => CopyError::Interrupted { atomic: self.atomic },
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
        let Step { item, todo, replaces, new } = &mut self.steps[index];
        let (path, attributes, size) = (&item.path, item.attributes, item.size().unwrap_or(0));
        let done = &mut self.done;
        let (size, count, published) = match (todo, &item.what) {
            (Todo::Update(_), _) if written => (size, Some(&mut done.overwritten), Ok(())),
            (Todo::Update(_) | Todo::Same, _) => (0, Some(&mut done.unchanged), Ok(())),
            (Todo::Create(room), _) => {
                let Some(room) = room.take() else { return };
                let count = if *replaces { &mut done.replaced } else { &mut done.files };
                (size, Some(count), writer.publish(path, attributes, room))
            }
            (Todo::Symlink, What::Symlink(target)) if *replaces => {
                let add = |writer: &mut Writer<'_>| writer.symlink(path, target, attributes);
                (0, Some(&mut done.replaced), writer.replace(path, add))
            }
            (Todo::Symlink, What::Symlink(target)) => {
                (0, Some(&mut done.symlinks), writer.symlink(path, target, attributes))
            }
            (Todo::Link, What::Link(first)) if *replaces => {
                let add = |writer: &mut Writer<'_>| writer.link(first, path);
                (0, Some(&mut done.replaced), writer.replace(path, add))
            }
            (Todo::Link, What::Link(first)) => {
                (0, Some(&mut done.hard_links), writer.link(first, path))
            }
            (Todo::Mkdir | Todo::Symlink | Todo::Link | Todo::Attributes, _) => (0, None, Ok(())),
        };
        let changed = published.and_then(|()| writer.set_attributes(Some(path), new));
        match changed {
            Ok(()) => {
                if let Some(count) = count {
                    *count += 1;
                }
                done.attributes += u64::from(!new.is_empty());
                done.bytes += size;
                self.states[index] = State::Settled;
            }
            Err(error) => self.fail(error.into()),
        }
    }

    /// Keeps the complete files after an incomplete one, and removes the others. After an error
    /// nothing of a group is kept.
    fn clean_up(&mut self, writer: &mut Writer<'_>) {
        let nothing = self.atomic && self.error.is_some();
        for index in self.next..self.steps.len() {
            if !nothing {
                self.publish(index, writer);
            }
            let Step { item, todo: Todo::Create(Some(room)), .. } = &self.steps[index] else {
                continue;
            };
            match self.states[index] {
                State::Waiting => writer.release(room),
                State::Begun | State::Ready(_) => writer.abandon(&item.path, room),
                State::Settled => {}
            }
        }
    }
}

/// Opens a source that was examined.
pub(crate) fn open(item: &Item, size: u64) -> Result<File, CopyError> {
    let read_error = |err| sources::read_error("read", &item.source, err);
    let file = match long_path::open(&item.source, sources::open_flags()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(CopyError::Vanished(item.source.clone()));
        }
        opened => opened.map_err(read_error)?,
    };
    // Nor may a link lead to a file that was never examined: the sources may belong to others.
    let meta = Meta::of(&file).map_err(read_error)?;
    let same = meta.id == item.id && meta.is_file() && meta.size == size;
    if !same || item.attributes.mtime != Some(meta.mtime) {
        return Err(CopyError::Changed { path: item.source.clone(), size });
    }
    Ok(file.into())
}
