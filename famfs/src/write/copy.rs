// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Copies files and directory trees into a file system.
//!
//! It takes three steps: [`scan`](crate::write::sources::scan) examines the sources,
//! [`Copy::prepare`] finds room for everything, and only then [`Copy::run`] writes. So what cannot
//! work fails before anything is written. A second copy of the same sources finds what a first one
//! had finished: existing files are compared, and only what differs is written.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::format::ALLOC_UNIT;
use crate::format::extension::PAGE;
use crate::format::path::RelPath;
use crate::replay::Attributes;
use crate::system::long_path;
use crate::text::terminal::shown;
use crate::text::units::human;
use crate::write::change::NewAttributes;
use crate::write::dropped::Dropped;
use crate::write::examine::Meta;
use crate::write::existing::{Found, Targets, differing, interim_mode};
use crate::write::layout::Layout;
use crate::write::session::{Session, Step, Todo};
use crate::write::sources::{self, Item, Scan, SourceError, Unsupported, What};
use crate::write::transfer::How;
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
        "no space: the files need {} in {}, {} free; nothing was written{}",
        human(*.needed), match *.unit { PAGE => "pages of 4 KiB", _ => "units of 2 MiB" },
        human(*.free), holes_hint(*.holes)
    )]
    NoSpace {
        /// Sum of the files' sizes in whole units.
        needed: u64,
        /// Bytes of a unit.
        unit: u64,
        /// Free bytes.
        free: u64,
        /// Bytes of holes that take space.
        holes: u64,
    },
    /// The source has another size or time than before, or is another file.
    #[error(
        "{} changed while it was copied: expected the same file with {size} bytes and the same time",
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
    /// A file has no memory for bytes of its source.
    #[error(
        "\"{path}\" exists and has a hole where {} has data: remove it first with `famfs rm`",
        shown(source_path)
    )]
    Hole {
        /// The file in the file system.
        path: RelPath,
        /// The source.
        source_path: PathBuf,
    },
    /// An existing file would have to be written to.
    #[error(
        "\"{path}\" exists and differs from {} at offset {offset}, so the copy cannot appear at \
         once; nothing was written: remove it first, or copy without --atomic",
        shown(source_path)
    )]
    NotAtomic {
        /// The file in the file system.
        path: RelPath,
        /// The source.
        source_path: PathBuf,
        /// Offset of the first byte that differs.
        offset: u64,
    },
    /// The user asked to stop.
    #[error("interrupted; {}", match *.atomic {
        true => "nothing was written",
        false => "what was complete is kept: run the same command again to continue",
    })]
    Interrupted {
        /// Whether all was to appear at once.
        atomic: bool,
    },
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
        _ => format!(
            " ({} of the sources are holes, which take space without extensions)",
            human(holes)
        ),
    }
}

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
    /// Symbolic links made.
    pub symlinks: u64,
    /// Further names of files made.
    pub hard_links: u64,
    /// Existing files, directories and links that got the owner, mode or time of their sources.
    pub attributes: u64,
    /// Bytes of files that were made or overwritten.
    pub bytes: u64,
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
        let extensions = writer.plan().has_extensions();
        let (mut steps, mut taken, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        let (mut interim, mut bytes) = (Vec::new(), 0_u64);
        let mut targets = Targets::new(writer.plan().tree());
        for item in scan.items {
            if let Err(error) = writer.plan().check_reserved(&item.path) {
                let reason = error.to_string();
                taken.push(Unsupported { source: item.source, why: Why::Taken, reason });
                continue;
            }
            let (found, before) = match targets.look(&item) {
                Ok(found) => found,
                Err(reason) => {
                    taken.push(Unsupported { source: item.source, why: Why::Taken, reason });
                    continue;
                }
            };
            targets.check_parent(&item)?;
            bytes = item.size().unwrap_or(0).saturating_add(bytes);
            let mut new = NewAttributes::default();
            if let Some(before) = before.filter(|_| !item.contents_only) {
                if extensions {
                    new = changes(&item, &before, &found, &mut interim);
                } else if before.owner != item.attributes.owner {
                    let reason = kept_owner(before.owner, item.attributes.owner);
                    let reason = format!("\"{}\" {reason}", item.path);
                    kept.push(Unsupported { source: item.source.clone(), why: Why::Kept, reason });
                }
            }
            let todo = match (found, &item.what) {
                (Found::File(memory), _) => Todo::Update(memory),
                (Found::Same, _) if new.is_empty() => continue,
                (Found::Same, _) => Todo::Attributes,
                (Found::New, What::Dir) => Todo::Mkdir,
                (Found::New, What::File(_)) => Todo::Create(None),
                (Found::New, What::Symlink(_)) => Todo::Symlink,
                (Found::New, What::Link(_)) => Todo::Link,
            };
            steps.push(Step { item, todo, new });
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
            Todo::Attributes => 3,
        });
        Ok(Self { steps, interim, bytes, kept, dropped: scan.dropped })
    }

    /// What [`Copy::run`] will do, in order: each with its source and target.
    pub fn actions(&self) -> impl Iterator<Item = (Action, &PathBuf, &RelPath)> {
        self.steps.iter().map(|step| {
            let action = match step.todo {
                Todo::Mkdir => Action::Mkdir,
                Todo::Create(_) => Action::Create,
                Todo::Update(_) => Action::Update,
                Todo::Symlink => Action::Symlink,
                Todo::Link => Action::Link,
                Todo::Attributes => Action::Attributes,
            };
            (action, &step.item.source, &step.item.path)
        })
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
        // What is the same may come from a copy that was killed before it got here.
        let synced = match done.overwritten + done.unchanged {
            0 => Ok(()),
            _ => volume.sync().map_err(CopyError::Sync),
        };
        // The first error is the cause of the later ones.
        match error {
            Some(error) => Err(error),
            None => committed.map_err(CopyError::from).and(synced).map(|()| done),
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
        let made = !matches!(step.todo, Todo::Update(_) | Todo::Attributes);
        slots += u64::from(made) + u64::from(!step.new.is_empty());
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
        return Err(CopyError::NoSpace { needed, unit, free, holes });
    }
    for step in steps {
        let Step { item, todo, .. } = step;
        match (todo, &item.what) {
            (Todo::Create(room), What::File(layout)) => {
                let taken = writer.allocate(&item.path, layout.clone())?;
                slots += taken.lists();
                *room = Some(taken);
            }
            (Todo::Symlink, _) => writer.require_extensions(&item.path, "symbolic links")?,
            (Todo::Link, _) => writer.require_extensions(&item.path, "hard links")?,
            _ => {}
        }
    }
    // Memory of shared files needs entries too, which are known only now.
    Ok(writer.check_slots(slots)?)
}

/// Opens a source that was examined.
pub(crate) fn open(item: &Item, size: u64) -> Result<File, CopyError> {
    let read_error = |err| sources::read_error("read", &item.source, err);
    let file = long_path::open(&item.source, sources::open_flags()).map_err(read_error)?;
    // Nor may a link lead to a file that was never examined: the sources may belong to others.
    let meta = Meta::of(&file).map_err(read_error)?;
    let same = meta.id == item.id && meta.is_file() && meta.size == size;
    if !same || item.attributes.mtime != Some(meta.mtime) {
        return Err(CopyError::Changed { path: item.source.clone(), size });
    }
    Ok(file.into())
}
