// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A writing session: the only place where the names of a file system are changed.
//!
//! A session reads the log once. A file's bytes are complete before its entry is published;
//! entries are published in batches, which the log keeps atomic.
//!
//! If a batch cannot be published, the session ends: what was planned on top of it, such as files
//! in a directory of that batch, must not be published without it.

use std::sync::Arc;

use uuid::Uuid;
use zerocopy::little_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

use crate::format::extension::GroupBody;
use crate::format::map::DataArea;
use crate::format::path::RelPath;
use crate::format::renumbering::RENUMBERING_OFFSET;
use crate::format::{Body, Entry, EntryKind};
use crate::replay::dead::Dead;
use crate::replay::tree::change::Change;
use crate::replay::{EntryProblem, Plan, read_undisturbed, reclaim};
use crate::store::alloc::Striping;
use crate::store::lease::Keeper;
use crate::store::log::{Log, LogError};
use crate::store::role::Role;
use crate::store::superblock::Superblock;
pub use crate::write::error::WriteError;
use crate::write::pages::Pages;
use crate::write::volume::Volume;

/// Entries per batch: few, so that other systems see files early.
const BATCH_ENTRIES: usize = 256;
/// Bytes of file data per batch; limits the work that an interrupted copy loses.
const BATCH_BYTES: u64 = 64 << 20;

/// What a mount has before its entry is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    Dir,
    File,
    /// A file that is to take the place of another one.
    Replacement,
}

/// A file system open for changes.
pub struct Writer<'v> {
    pub(super) volume: &'v dyn Volume,
    log: Log<'v>,
    pub(super) plan: Plan,
    area: DataArea,
    lease: Option<&'v Keeper>,
    pub(super) striping: Option<Striping>,
    /// Counts files, so that interleaved ones take turns with the buckets.
    pub(super) turn: u64,
    /// Free pages of the store, in a file system with extensions.
    pub(super) pages: Pages,
    batch: Vec<(u32, Body)>,
    /// What the batch changes, in order.
    changes: Vec<Change>,
    /// Paths that the batch makes, which exist already in a mount.
    pub(super) made: Vec<(RelPath, Made)>,
    pub(super) batch_bytes: u64,
    /// The batch is one group, which is published only by [`Writer::commit`].
    atomic: bool,
    /// Entries are added that count together, so nothing is published between them.
    grouping: bool,
    /// Nothing is changed, only checked and counted.
    preview: bool,
    /// Why a batch was not published: from then on nothing is.
    ended: Option<Arc<WriteError>>,
}

impl<'v> Writer<'v> {
    /// Opens a file system. `system` is this system's UUID, which must be the master's; `None`
    /// for a pool file, whose lock makes its holder the master.
    pub fn open(volume: &'v dyn Volume, system: Option<Uuid>) -> Result<Self, WriteError> {
        Self::start(volume, system, false)
    }

    /// Opens a file system for a session that only reports what it would do: it makes every check,
    /// counts space and slots, and changes nothing.
    pub fn preview(volume: &'v dyn Volume, system: Option<Uuid>) -> Result<Self, WriteError> {
        Self::start(volume, system, true)
    }

    fn start(
        volume: &'v dyn Volume,
        system: Option<Uuid>,
        preview: bool,
    ) -> Result<Self, WriteError> {
        let media = volume.media();
        let superblock = Superblock::read(media)?;
        if let Some(problem) = superblock.size_problem(media.len()) {
            return Err(problem.into());
        }
        if let Some(system) = system
            && Role::of(&superblock, system) == Role::Client
        {
            return Err(WriteError::Client { system, master: superblock.system_uuid });
        }
        let extensions = superblock.has_extensions(media)?;
        let mut log = Log::open(media, superblock.log_len)?;
        if system.is_some() && log.is_moving() {
            // Only the host can write what tells how far it is; whoever hears this goes on.
            media.announce();
            return Err(LogError::Moving { offset: RENUMBERING_OFFSET + media.origin() }.into());
        }
        log.prepare(preview)?;
        let (log, mut plan, area) = read_undisturbed(media, &superblock, extensions)?;
        if let Some(damage) = plan.stopped.take() {
            return Err(WriteError::Damaged(damage));
        }
        if plan.unmarked > 0 {
            return Err(WriteError::Unmarked { count: plan.unmarked });
        }
        Ok(Self {
            volume,
            pages: Pages::new(plan.tree()),
            plan,
            area,
            lease: None,
            striping: None,
            turn: log.next_index(),
            log,
            batch: Vec::new(),
            changes: Vec::new(),
            made: Vec::new(),
            batch_bytes: 0,
            atomic: false,
            grouping: false,
            preview,
            ended: None,
        })
    }

    /// Whether this session changes nothing.
    pub fn is_preview(&self) -> bool {
        self.preview
    }

    /// What the file system holds, changes of this session included.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Refuses a session after one of its batches was not published.
    pub(super) fn check_live(&self) -> Result<(), WriteError> {
        match &self.ended {
            Some(why) => Err(WriteError::Ended(why.clone())),
            None => Ok(()),
        }
    }

    /// Refuses a session that needs more log entries than there are slots. Entries of holders that
    /// memory was taken in count as well, and those that are not published yet.
    pub fn check_slots(&self, needed: u64) -> Result<(), WriteError> {
        self.check_live()?;
        let holders = self.pages.unpublished();
        let dir = holders > 0 && self.plan.get(&RelPath::store()).is_none();
        let planned = holders + u64::from(dir) + self.batch.len() as u64;
        let needed = needed.saturating_add(planned);
        let free = self.log.free_slots();
        if needed > free {
            return Err(LogError::Full { needed, free, slots: self.log.slots() }.into());
        }
        Ok(())
    }

    /// Bytes that removed files still hold, as far as the log can be read.
    #[must_use]
    pub fn deleted(&self) -> u64 {
        Dead::of(&self.log, &self.plan).map_or(0, |dead| dead.units + dead.pages)
    }

    /// Whether the log should get the slots of void entries back first, if that is possible.
    #[must_use]
    pub fn is_short_of_slots(&self) -> bool {
        let voids = self.plan.voids().len() as u64;
        reclaim::is_shorter(voids, self.log.free_slots(), self.log.slots())
    }

    /// Publishes only while the master's lease is held.
    pub fn guarded_by(mut self, lease: &'v Keeper) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Spreads the files that are allocated from now on.
    pub fn interleave(&mut self, striping: Striping) -> Result<(), WriteError> {
        self.check_live()?;
        striping.check(self.area)?;
        self.striping = Some(striping);
        Ok(())
    }

    /// Makes everything up to the next [`Writer::commit`] one group: readers see all of it, or
    /// nothing.
    pub fn atomic(&mut self) -> Result<(), WriteError> {
        self.commit()?;
        if !self.plan.has_extensions() {
            return Err(WriteError::NeedsExtensions { path: None, what: "groups of changes" });
        }
        self.check_slots(1)?;
        self.atomic = true;
        let head = GroupBody::new_zeroed();
        self.batch.push((EntryKind::Group as u32, body(head.as_bytes())));
        Ok(())
    }

    /// Whether the next commit publishes one group.
    pub fn is_atomic(&self) -> bool {
        self.atomic
    }

    /// Slots of the log.
    pub(super) fn slots(&self) -> u64 {
        self.log.slots()
    }

    /// The slot of the next entry.
    pub(super) fn next_slot(&self) -> u64 {
        self.log.next_index() + self.batch.len() as u64
    }

    /// Adds an entry to the batch, if it breaks no rule.
    pub(super) fn add(&mut self, kind: EntryKind, bytes: &[u8]) -> Result<(), EntryProblem> {
        let (slot, body) = (self.next_slot(), body(bytes));
        let change = self.plan.add(slot, &Entry::new(slot, kind as u32, body), self.area)?;
        self.changes.extend(change);
        self.batch.push((kind as u32, body));
        Ok(())
    }

    /// Adds the entry of a file or directory that the plan has already.
    pub(super) fn add_planned(&mut self, kind: EntryKind, bytes: &[u8], change: Option<Change>) {
        self.changes.extend(change);
        self.batch.push((kind as u32, body(bytes)));
    }

    /// Publishes a batch that is large enough.
    pub(super) fn publish_if_large(&mut self) -> Result<(), WriteError> {
        let large = self.batch.len() >= BATCH_ENTRIES || self.batch_bytes >= BATCH_BYTES;
        if large && !self.atomic && !self.grouping { self.commit() } else { Ok(()) }
    }

    /// Publishes what was changed so far. If that fails, the session is over.
    pub fn commit(&mut self) -> Result<(), WriteError> {
        self.check_live()?;
        // A preview keeps its batch, so that the slots after it are counted right.
        if self.preview {
            return Ok(());
        }
        if std::mem::take(&mut self.atomic) {
            self.close_group(0);
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        self.publish_batch().map_err(|error| {
            let why = Arc::new(error);
            self.ended = Some(why.clone());
            WriteError::Ended(why)
        })
    }

    /// Has everything that `add` adds count together: readers see all of it, or nothing. If it
    /// fails, the session is over, and what was added before is published.
    pub(super) fn together(
        &mut self,
        add: impl FnOnce(&mut Self) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        self.check_live()?;
        let (head, changes) = (self.batch.len(), self.changes.len());
        // Also in this mount, until the next group or the end of the batch.
        self.changes.push(Change::Group { end: u64::MAX });
        if self.atomic {
            return add(self);
        }
        self.batch.push((EntryKind::Group as u32, body(GroupBody::new_zeroed().as_bytes())));
        self.grouping = true;
        let added = add(self);
        self.grouping = false;
        match added {
            Ok(()) => {
                self.close_group(head);
                Ok(())
            }
            Err(error) => {
                self.batch.truncate(head);
                self.changes.truncate(changes);
                // The error is the one to report; the plan is no longer that of the log.
                let _ = self.commit();
                let why = Arc::new(error);
                self.ended = Some(why.clone());
                Err(WriteError::Ended(why))
            }
        }
    }

    /// Gives the head of a group its count; a group of nothing is left out.
    fn close_group(&mut self, at: usize) {
        let count = self.batch.len() - at - 1;
        let mut head = GroupBody::new_zeroed();
        head.count = U64::new(count as u64);
        match count {
            0 => self.batch.truncate(at),
            _ => self.batch[at].1 = body(head.as_bytes()),
        }
    }

    /// Checks that this system may still write, for those who change bytes of files and publish
    /// nothing.
    ///
    /// # Errors
    /// The lease was lost.
    pub(super) fn check_lease(&self) -> Result<(), WriteError> {
        self.lease.map_or(Ok(()), |lease| lease.check().map_err(WriteError::from))
    }

    fn publish_batch(&mut self) -> Result<(), WriteError> {
        let batch = std::mem::take(&mut self.batch);
        let changes = std::mem::take(&mut self.changes);
        let made = std::mem::take(&mut self.made);
        self.batch_bytes = 0;
        self.plan.sweep();
        let alone =
            self.check_lease().and_then(|()| self.volume.lock_play().map_err(WriteError::Played));
        let end = self.log.next_index() + batch.len() as u64;
        let (appended, visible) = match &alone {
            Ok(_) => match self.log.append(&batch) {
                Ok(()) => (Ok(()), true),
                // The failure may have come after the store that publishes.
                Err(error) => (Err(error.into()), self.log.shows(end)),
            },
            Err(_) => (Ok(()), false),
        };
        let carried = match visible {
            true => self.carry_out(&changes, end),
            false => {
                self.discard(&made);
                Ok(())
            }
        };
        appended.and(alone.map(drop)).and(carried)
    }

    /// Removes what was made for unpublished entries.
    fn discard(&self, made: &[(RelPath, Made)]) {
        for (path, made) in made.iter().rev() {
            // The log's error is the one to report; a stub without entry is gone at the next mount.
            let _ = match made {
                Made::Dir => self.volume.remove(path, true),
                Made::File => self.volume.remove(path, false),
                Made::Replacement => self.volume.remove_replacement(path),
            };
        }
    }

    /// Carries out what the published entries change. What a crash or an error leaves, the next
    /// play of the log carries out. An error keeps none of the others back.
    fn carry_out(&self, changes: &[Change], end: u64) -> Result<(), WriteError> {
        let mut first = Ok(());
        for change in changes {
            if let Err(source) = self.volume.carry_out(self.plan.tree(), change)
                && first.is_ok()
            {
                first = Err(WriteError::Remains { path: change.path().cloned(), source });
            }
        }
        let checksum = self.log.checksum(end.saturating_sub(1)).ok().flatten().unwrap_or(0);
        let noted = self.volume.note_played(self.plan.tree(), end, checksum, first.is_ok());
        first.and(noted.map_err(WriteError::Played))
    }
}

impl Drop for Writer<'_> {
    /// Removes what was added and never committed.
    fn drop(&mut self) {
        if !self.preview {
            self.discard(&self.made);
        }
    }
}

/// A body of an entry as bytes.
fn body(bytes: &[u8]) -> Body {
    let mut body: Body = [0; size_of::<Body>()];
    body.copy_from_slice(bytes);
    body
}
