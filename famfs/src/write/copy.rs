// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Copies files and directory trees into a file system.
//!
//! It takes three steps: [`scan`](crate::write::sources::scan) examines the sources,
//! [`Copy::prepare`] finds room for everything, and only then [`Copy::run`] writes. So what cannot
//! work fails before anything is written. A second copy of the same sources finds what a first one
//! had finished: existing files are compared, and only what differs is written. Or, with
//! [`Copy::prepare_to_replace`], files that differ are written anew, and take the place of those
//! that are there.

use std::path::PathBuf;

use crate::format::ALLOC_UNIT;
use crate::format::extension::PAGE;
use crate::format::path::RelPath;
use crate::replay::Attributes;
use crate::write::change::NewAttributes;
use crate::write::compare::differs;
pub use crate::write::copy_error::CopyError;
use crate::write::dropped::Dropped;
use crate::write::existing::{Found, Targets, differing, interim_mode};
use crate::write::layout::Layout;
pub use crate::write::session::Done;
use crate::write::session::{Session, Step, Todo};
use crate::write::sources::{Item, Scan, Unsupported, What};
use crate::write::transfer::How;
use crate::write::unsupported::{Why, kept_owner};
use crate::write::volume::Volume;
use crate::write::writer::{WriteError, Writer};

/// A copy that has room for all its files.
pub struct Copy {
    steps: Vec<Step>,
    /// Modes of existing files while their bytes are replaced.
    interim: Vec<(RelPath, u32)>,
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// Targets that keep an owner or mode that is not the source's.
    pub kept: Vec<Unsupported>,
    /// What the sources have and famfs does not keep.
    pub dropped: Dropped,
}

/// What a copy would do with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a directory.
    Mkdir,
    /// Make a file.
    Create,
    /// Compare an existing file, and replace what differs.
    Update,
    /// Make a file or link that takes the place of what is there.
    Replace,
    /// Make a symbolic link.
    Symlink,
    /// Give a file of the copy another name.
    Link,
    /// Change owner, mode or time.
    Attributes,
}

impl Copy {
    /// Finds out what to make, and takes memory and log slots for it.
    pub fn prepare(scan: Scan, writer: &mut Writer<'_>) -> Result<Self, CopyError> {
        Self::plan(scan, writer, None)
    }

    /// The same for a copy that takes the place of the files and links that are there, except of
    /// files with the same bytes. `progress` gets how many bytes were compared, and returns whether
    /// to go on.
    pub fn prepare_to_replace(
        scan: Scan,
        writer: &mut Writer<'_>,
        progress: &dyn Fn(u64) -> bool,
    ) -> Result<Self, CopyError> {
        if !writer.plan().has_extensions() {
            let what = "replacements in one step";
            return Err(WriteError::NeedsExtensions { path: None, what }.into());
        }
        Self::plan(scan, writer, Some(progress))
    }

    fn plan(
        scan: Scan,
        writer: &mut Writer<'_>,
        replace: Option<&dyn Fn(u64) -> bool>,
    ) -> Result<Self, CopyError> {
        let volume = writer.volume;
        let extensions = writer.plan().has_extensions();
        let (mut steps, mut taken, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        let (mut interim, mut bytes) = (Vec::new(), 0_u64);
        let mut targets = Targets::new(writer.plan().tree(), replace.is_some());
        for item in scan.items {
            let (found, before) = match targets.look(&item) {
                Ok(found) => found,
                Err(reason) => {
                    taken.push(Unsupported { source: item.source, why: Why::Taken, reason });
                    continue;
                }
            };
            targets.check_parent(&item)?;
            let replaces = match (&found, replace) {
                (Found::InPlaceOf, _) => true,
                (Found::File(memory), Some(progress)) => differs(&item, memory, volume, progress)?,
                _ => false,
            };
            if replaces {
                targets.replaces(&item.path);
            }
            let same = replace.is_some() && !replaces && matches!(found, Found::File(_));
            if !same {
                bytes = item.size().unwrap_or(0).saturating_add(bytes);
            }
            let mut new = NewAttributes::default();
            if let Some(before) = before.filter(|_| !item.contents_only && !replaces) {
                if same {
                    new = differing(&before, &item.attributes);
                } else if extensions {
                    new = changes(&item, &before, &found, &mut interim);
                } else if before.owner != item.attributes.owner {
                    let reason = kept_owner(before.owner, item.attributes.owner);
                    let reason = format!("\"{}\" {reason}", item.path);
                    kept.push(Unsupported { source: item.source.clone(), why: Why::Kept, reason });
                }
            }
            let todo = match (found, &item.what) {
                (Found::File(_), _) if same => Todo::Same,
                (Found::File(memory), _) if !replaces => Todo::Update(memory),
                (Found::Same, _) if new.is_empty() => continue,
                (Found::Same, _) => Todo::Attributes,
                (_, What::Dir) => Todo::Mkdir,
                (_, What::File(_)) => Todo::Create(None),
                (_, What::Symlink(_)) => Todo::Symlink,
                (_, What::Link(_)) => Todo::Link,
            };
            steps.push(Step { item, todo, replaces, new });
        }
        if !taken.is_empty() {
            return Err(CopyError::Taken(taken));
        }
        if !kept.is_empty() && !scan.skip {
            return Err(CopyError::Kept(kept));
        }
        take_room(&mut steps, &interim, scan.holes, writer)?;
        // The log does not depend on which thread is done first: directories, then files and
        // symbolic links, then further names, which need the first ones.
        steps.sort_by_key(|step| match step.todo {
            Todo::Mkdir => 0,
            Todo::Create(_) | Todo::Update(_) | Todo::Symlink => 1,
            Todo::Link => 2,
            Todo::Same | Todo::Attributes => 3,
        });
        Ok(Self { steps, interim, bytes, kept, dropped: scan.dropped })
    }

    /// What [`Copy::run`] will do, in order: each with its source and target.
    pub fn actions(&self) -> impl Iterator<Item = (Action, &PathBuf, &RelPath)> {
        self.steps.iter().filter_map(|step| {
            let action = match step.todo {
                _ if step.replaces => Action::Replace,
                Todo::Mkdir => Action::Mkdir,
                Todo::Create(_) => Action::Create,
                Todo::Update(_) => Action::Update,
                Todo::Symlink => Action::Symlink,
                Todo::Link => Action::Link,
                Todo::Same if step.new.is_empty() => return None,
                Todo::Same | Todo::Attributes => Action::Attributes,
            };
            Some((action, &step.item.source, &step.item.path))
        })
    }

    /// Number of files that exist with the same bytes, if they were compared already.
    pub fn unchanged(&self) -> u64 {
        self.steps.iter().filter(|step| matches!(step.todo, Todo::Same)).count() as u64
    }

    /// Copies everything. `progress` gets the bytes of each step, and returns whether to go on.
    /// What was complete before an error stays, unless the writer's changes are to be
    /// [one group](Writer::atomic): then nothing is published, and the writer is of no more use.
    pub fn run<'v>(
        self,
        volume: &'v dyn Volume,
        writer: &mut Writer<'v>,
        how: &How,
        progress: impl Fn(u64) -> bool + Sync,
    ) -> Result<Done, CopyError> {
        let atomic = writer.is_atomic();
        if !atomic && !self.interim.is_empty() {
            for (path, mode) in &self.interim {
                let new = NewAttributes { mode: Some(*mode), ..NewAttributes::default() };
                writer.set_attributes(Some(path), &new)?;
            }
            writer.commit()?;
        }
        let (done, error) = Session::new(self.steps, atomic).run(volume, writer, how, &progress);
        let error = match error {
            Some(error) if atomic => return Err(error),
            error => error,
        };
        let committed = writer.commit();
        // Who has lost the lease may have overwritten what is no longer that file.
        let held = match done.overwritten {
            0 => Ok(()),
            _ => writer.check_lease(),
        };
        // What is the same may come from a copy that was killed before it got here.
        let synced = match done.overwritten + done.unchanged {
            0 => Ok(()),
            _ => volume.sync().map_err(CopyError::Sync),
        };
        // The first error is the cause of the later ones.
        match error {
            Some(error) => Err(error),
            None => committed.and(held).map_err(CopyError::from).and(synced).map(|()| done),
        }
    }
}

/// What is to be changed of an existing target's attributes.
fn changes(
    item: &Item,
    before: &Attributes,
    found: &Found,
    interim: &mut Vec<(RelPath, u32)>,
) -> NewAttributes {
    let mut new = differing(before, &item.attributes);
    if let Found::File(_) = found
        && let Some(mode) = interim_mode(before.owner, &new)
    {
        interim.push((item.path.clone(), mode));
        let wanted = item.attributes.owner.mode;
        new.mode = (mode != wanted).then_some(wanted);
    }
    new
}

/// Takes memory for all new files, and makes sure that the log has slots for everything.
fn take_room(
    steps: &mut [Step],
    interim: &[(RelPath, u32)],
    holes: u64,
    writer: &mut Writer<'_>,
) -> Result<(), CopyError> {
    let mut slots = interim.len() as u64;
    for step in &*steps {
        let made = !matches!(step.todo, Todo::Update(_) | Todo::Same | Todo::Attributes);
        slots += u64::from(made) + u64::from(!step.new.is_empty());
        if step.replaces {
            // The removal, and the head of a group of both.
            slots += if writer.is_atomic() { 1 } else { 2 };
        }
        if let (Todo::Symlink, What::Symlink(target)) = (&step.todo, &step.item.what) {
            slots += Writer::lists_of_target(target);
        }
    }
    writer.check_slots(slots)?;
    let extensions = writer.plan().has_extensions();
    let unit = if extensions { PAGE } else { ALLOC_UNIT };
    let needs = |layout: &Layout| match extensions {
        true => layout.pages().saturating_mul(PAGE),
        false => layout.size().div_ceil(ALLOC_UNIT).saturating_mul(ALLOC_UNIT),
    };
    let new = steps.iter().filter_map(|step| match (&step.todo, &step.item.what) {
        (Todo::Create(_), What::File(layout)) => Some(needs(layout)),
        _ => None,
    });
    let needed = new.fold(0, u64::saturating_add);
    let free = writer.free();
    if needed > free {
        let holes = if extensions { 0 } else { holes };
        let deleted = writer.deleted();
        let replaces =
            steps.iter().any(|step| step.replaces && matches!(step.todo, Todo::Create(_)));
        return Err(CopyError::NoSpace { needed, unit, free, holes, replaces, deleted });
    }
    for step in steps {
        let Step { item, todo, replaces, .. } = step;
        match (todo, &item.what) {
            (Todo::Create(room), What::File(layout)) => {
                let taken = writer.allocate(&item.path, layout.clone())?;
                slots += taken.lists();
                *room = Some(if *replaces { taken.replacing() } else { taken });
            }
            (Todo::Symlink, _) => writer.require_extensions(&item.path, "symbolic links")?,
            (Todo::Link, _) => writer.require_extensions(&item.path, "hard links")?,
            _ => {}
        }
    }
    // Memory of shared files needs entries too, which are known only now.
    Ok(writer.check_slots(slots)?)
}
