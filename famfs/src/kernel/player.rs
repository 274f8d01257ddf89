// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plays a log in a mounted tree: from where the mount's note says that it is played, or all of it.

use std::io;

use crate::format::map::DataArea;
use crate::kernel::apply::{Appeared, Applied, ApplyError};
use crate::kernel::carry::Progress;
use crate::kernel::deletions::remove_deleted;
use crate::kernel::group::clear_waiting;
use crate::kernel::grow::{How, grow};
use crate::kernel::note::Note;
use crate::kernel::sweep::{is_empty, sweep};
use crate::kernel::target::Target;
use crate::replay::{Plan, reclaim};
use crate::store::log::{Log, LogError};
use crate::store::numbering::Restated;

/// Why a log cannot be played in a mount.
#[derive(Debug, thiserror::Error)]
pub enum PlayerError {
    /// The note of the mount cannot be used, or the mount not be read.
    #[error("cannot {action}")]
    Mount {
        /// What was to be done.
        action: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Entries that were played are no longer published.
    #[error(
        "the log was rewritten: {played} entries are played in this mount, but the log has {found}; \
         unmount it and mount it again"
    )]
    Rewritten {
        /// Entries that were played.
        played: u64,
        /// Entries that are published now.
        found: u64,
    },
    /// The last entry that was played is another one.
    #[error(
        "the log was rewritten: its slot {slot} has another entry than the one that is played in \
         this mount; unmount it and mount it again"
    )]
    Replaced {
        /// The entry's slot.
        slot: u64,
    },
    /// The module of the kernel is not ours, or an older one.
    #[error(
        "the log has {entries} extension entries (long names, links, files in pieces), which the \
         famfs module of this kernel cannot show: load the famfs.ko of these tools (`modprobe \
         famfs` after its installation), and mount again"
    )]
    Module {
        /// Number of extension entries that count.
        entries: u64,
    },
}

impl PlayerError {
    /// Whether the log's entries moved into other slots while they were read.
    pub fn is_overtaken(&self) -> bool {
        matches!(self, Self::Log(LogError::Moved { .. }))
    }

    /// Whether another try may help, because another system may be writing the log's header.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Log(_) | Self::Rewritten { .. } | Self::Replaced { .. })
    }
}

/// A mounted tree, and what is known of its mount.
pub struct Site<'a> {
    /// The tree.
    pub target: Target<'a>,
    /// Only these tools change names and attributes there.
    pub is_ours: bool,
    /// Finds out whether no command of this machine is adding files, which are not in the log yet.
    pub has_no_writer: &'a dyn Fn() -> bool,
}

/// What to play.
#[derive(Clone, Copy, Debug, Default)]
pub struct Task {
    /// Nothing is changed, only found out.
    pub dry_run: bool,
    /// All of the tree is compared, even if the mount is complete.
    pub whole: bool,
    /// Symbolic links that lead out of the mount are left out, from now on.
    pub safe_links: bool,
}

/// A log, as far as it was read, and what of it could not be shown.
pub struct Player {
    plan: Plan,
    /// Which numbers the plan's slots have; `None` if they were moving, or nothing is read yet.
    numbering: Option<u64>,
    failed: bool,
    /// The note of a mount that can have none.
    note: Option<Note>,
}

impl Player {
    /// Nothing is read yet.
    pub fn new(area: DataArea, extensions: bool) -> Self {
        Self { plan: Plan::unread(area, extensions), numbering: None, failed: false, note: None }
    }

    /// Forgets what was read, because entries became void: their memory may belong to new files
    /// now.
    pub fn read_again(&mut self, area: DataArea) {
        self.plan = Plan::unread(area, self.plan.has_extensions());
    }

    /// What the log describes, as far as it was read.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Which numbers the plan's slots have; `None` if that is not certain.
    pub fn numbering(&self) -> Option<u64> {
        self.numbering
    }

    /// Whether the mount is not what the log says, so that another try makes sense even if nothing
    /// is new.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Reads on, and has the tree of the mount follow. The caller keeps other players away. `each`
    /// gets what appears.
    pub fn play(
        &mut self,
        site: &Site<'_>,
        log: &Log<'_>,
        area: DataArea,
        task: Task,
        each: &mut dyn FnMut(Appeared<'_>),
    ) -> Result<Applied, PlayerError> {
        let root = site.target.root();
        let in_mount = Note::read(root).map_err(mount_error("read the note of the mount"))?;
        let possible = in_mount.is_some()
            || task.dry_run
            || Note::is_possible(root).map_err(mount_error("leave a note in the mount"))?;
        let found = in_mount.or(self.note);
        if log.is_moving()
            && found.is_some_and(|note| note.complete)
            && !(task.whole || task.dry_run)
        {
            // Until the entries are in their places there is nothing new.
            return Ok(Applied::default());
        }
        let note = found.map(|note| restated(note, log)).transpose()?;
        if self.numbering != log.numbering() || log.is_moving() {
            self.read_again(area);
            self.numbering = log.numbering();
        }
        let safe_links = task.safe_links || note.is_some_and(|note| note.safe_links);
        let known = note.filter(|note| {
            let other_links = task.safe_links && !note.safe_links;
            note.complete && note.next >= self.plan.next_slot() && !other_links
        });
        if self.plan.next_slot() == 0 {
            let quick = known.filter(|_| !(task.whole || task.dry_run || self.failed));
            let end = quick.map_or(u64::MAX, |note| note.next);
            let extensions = self.plan.has_extensions();
            let read = || {
                let mut plan = Plan::unread(area, extensions);
                plan.read_before(log, area, end);
                plan
            };
            self.plan = reclaim::read_steadily(log.media(), read).map_err(LogError::from)?;
            self.check_numbering(area)?;
        }
        // The note that is in the mount.
        let mut left = found;
        let (mut applied, mut done) = (Applied::default(), false);
        if let Some(note) = known.filter(|_| !(task.whole || task.dry_run || self.failed)) {
            self.plan.read_before(log, area, note.next);
            self.check_numbering(area)?;
            if self.plan.next_slot() == note.next {
                if log.published() > note.next {
                    left = Some(self.leave(site, possible, Note { complete: false, ..note })?);
                    applied = self.follow(site, log, area, safe_links, each);
                    self.check_numbering(area)?;
                }
                done = applied.errors.is_empty();
            }
        }
        if !done {
            self.plan.read_on(log, area);
            self.check_numbering(area)?;
            if note.is_some_and(|note| self.plan.next_slot() < note.next) {
                // It is damaged, and the mount knows more of it than can be read now.
                self.failed = !task.dry_run;
                return Ok(applied);
            }
            let tree = self.plan.tree();
            if !tree.is_conventional() && !possible {
                return Err(PlayerError::Module { entries: tree.extended() });
            }
            if let Some(note) = note.filter(|_| !task.dry_run) {
                left = Some(self.leave(site, possible, Note { complete: false, ..note })?);
            }
            let again = self.failed || note.is_none_or(|note| !note.complete);
            let unplayed = note.filter(|_| site.is_ours).map(|note| note.next);
            let how = How {
                dry_run: task.dry_run,
                exact: site.is_ours,
                safe_links,
                fresh: false,
                unplayed,
            };
            let (mended, swept) = self.mend(site, how, each)?;
            if swept {
                applied.errors.clear();
            }
            applied.add(mended);
            done = applied.errors.is_empty() && (swept || !again);
        }
        if !task.dry_run {
            self.failed = !done;
            let (next, checksum) = (self.plan.next_slot(), self.plan.last_checksum());
            // What slots will be called while they move is not known.
            let complete = done && !log.is_moving();
            let numbering = log.numbering().unwrap_or(0);
            let new = Note { next, checksum, complete, safe_links, numbering };
            if left != Some(new) {
                self.leave(site, possible, new)?;
            }
        }
        Ok(applied)
    }

    /// Makes sure that what was read has the numbers that it had when the log was opened; else
    /// forgets it.
    fn check_numbering(&mut self, area: DataArea) -> Result<(), PlayerError> {
        match self.plan.stopped.take() {
            Some(moved @ LogError::Moved { .. }) => {
                self.read_again(area);
                self.numbering = None;
                Err(moved.into())
            }
            stopped => {
                self.plan.stopped = stopped;
                Ok(())
            }
        }
    }

    /// Carries out the entries that were not read yet.
    fn follow(
        &mut self,
        site: &Site<'_>,
        log: &Log<'_>,
        area: DataArea,
        safe_links: bool,
        each: &mut dyn FnMut(Appeared<'_>),
    ) -> Applied {
        let mut progress = Progress::new(safe_links);
        if let Err(source) = clear_waiting(&site.target) {
            progress.applied.errors.push(ApplyError::Waiting(source));
        }
        self.plan.read_each(log, area, |tree, slot, change| {
            progress.carry(&site.target, tree, slot, &change, each);
        });
        progress.finish(&site.target, self.plan.tree());
        progress.applied
    }

    /// Compares all of the tree, and makes what is missing. Also returns whether what is not of the
    /// log was removed.
    fn mend(
        &self,
        site: &Site<'_>,
        mut how: How,
        each: &mut dyn FnMut(Appeared<'_>),
    ) -> Result<(Applied, bool), PlayerError> {
        let (target, tree) = (&site.target, self.plan.tree());
        if how.dry_run {
            return Ok((grow(target, tree, how, each), true));
        }
        let mut applied = Applied::default();
        // What stays there, such as something mounted in it, keeps nothing else back.
        applied.errors.extend(clear_waiting(target).err().map(ApplyError::Waiting));
        how.fresh = is_empty(target).map_err(mount_error("read the root directory"))?;
        if how.fresh {
            applied.add(grow(target, tree, how, each));
            return Ok((applied, true));
        }
        applied.add(remove_deleted(target, &self.plan));
        // Where others make names too, only what the log deletes is known to be nobody's.
        let mut swept = true;
        if site.is_ours && self.plan.has_extensions() {
            swept = self.plan.stopped.is_none() && (site.has_no_writer)();
            if swept {
                applied.add(sweep(target, tree));
            }
        }
        applied.add(grow(target, tree, how, each));
        Ok((applied, swept))
    }

    /// Leaves a note, in the mount or here.
    fn leave(&mut self, site: &Site<'_>, possible: bool, note: Note) -> Result<Note, PlayerError> {
        match possible {
            true => {
                let written = note.write(site.target.root());
                written.map_err(mount_error("leave a note in the mount"))?;
            }
            false => self.note = Some(note),
        }
        Ok(note)
    }
}

/// The note of a mount, for the log as it is numbered now. If it is not known how far that is
/// played, the whole tree has to be compared.
fn restated(note: Note, log: &Log<'_>) -> Result<Note, PlayerError> {
    let anything = Note { next: 0, checksum: None, complete: false, numbering: 0, ..note };
    let Some(numbering) = log.numbering() else { return Ok(anything) };
    if numbering == note.numbering {
        return check(&note, log).map(|()| note);
    }
    if numbering < note.numbering {
        // Only a file system that is formatted again begins anew.
        return Err(PlayerError::Rewritten { played: note.next, found: log.published() });
    }
    let moved = Restated::read(log.media()).map_err(LogError::from)?;
    let next = moved.filter(|moved| moved.is_from(note.numbering) && moved.old == note.next);
    match next.map(|moved| moved.new).filter(|next| *next <= log.published()) {
        None => Ok(Note { numbering, ..anything }),
        Some(next) => {
            let last = next.checked_sub(1).map(|slot| log.checksum(slot)).transpose()?;
            let checksum = last.flatten();
            match next == note.next && checksum != note.checksum {
                true => Ok(Note { numbering, ..anything }),
                false => Ok(Note { next, checksum, numbering, ..note }),
            }
        }
    }
}

/// Makes sure that a log is the one that a mount was played from.
fn check(note: &Note, log: &Log<'_>) -> Result<(), PlayerError> {
    let (played, found) = (note.next, log.published());
    if found < played {
        return Err(PlayerError::Rewritten { played, found });
    }
    match played.checked_sub(1) {
        Some(slot) if log.checksum(slot)? != note.checksum => Err(PlayerError::Replaced { slot }),
        _ => Ok(()),
    }
}

fn mount_error(action: &'static str) -> impl Fn(io::Error) -> PlayerError {
    move |source| PlayerError::Mount { action, source }
}
