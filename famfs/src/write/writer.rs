// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A writing session: the only place where files and directories are added to a file system.
//!
//! A session reads the log once. A file's bytes are complete before its entry is published;
//! entries are published in batches, which the log keeps atomic.
//!
//! If a batch cannot be published, the session ends: what was planned on top of it, such as files
//! in a directory of that batch, must not be published without it.

use std::io;
use std::sync::Arc;

use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use crate::format::map::{DataArea, FileMap};
use crate::format::path::RelPath;
use crate::format::{Body, DeleteBody, EntryKind, MAX_PATH};
use crate::format::{FILE_FLAGS, FileBody, MkdirBody};
use crate::replay::extended::Extended;
use crate::replay::{EntryProblem, Node, NodeKind, Owner, Plan};
use crate::store::alloc::{Striping, StripingError};
use crate::store::lease::{Keeper, LeaseError};
use crate::store::log::{Log, LogError};
use crate::store::role::Role;
use crate::store::superblock::{Superblock, SuperblockError};
use crate::text::units::human;
use crate::write::volume::{FileBytes, Volume};

/// Entries per batch: few, so that other systems see files early.
const BATCH_ENTRIES: usize = 256;
/// Bytes of file data per batch; limits the work that an interrupted copy loses.
const BATCH_BYTES: u64 = 64 << 20;

/// Why nothing can be added to a file system.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is no usable superblock.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// The log is not usable.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An entry of the log is damaged: what follows it is unknown, and so is its memory.
    #[error("the log is damaged, so nothing can be added: see `famfs fsck`")]
    Damaged(#[source] LogError),
    /// The file system has extensions in use, which are not written yet.
    #[error("nothing can be changed")]
    Extended(#[from] Extended),
    /// This system may only read.
    #[error(
        "this system ({system}) is a client, only the master ({master}) can add files: \
         make it the master with `famfs takeover --yes`"
    )]
    Client {
        /// This system's UUID.
        system: Uuid,
        /// The superblock's system UUID.
        master: Uuid,
    },
    /// The path is taken, or its directory does not exist.
    #[error("cannot make \"{path}\"")]
    Path {
        /// The new file or directory.
        path: RelPath,
        /// What stands in the way.
        source: EntryProblem,
    },
    /// The path cannot be deleted.
    #[error("cannot delete \"{path}\"")]
    Delete {
        /// The file or directory.
        path: RelPath,
        /// What stands in the way.
        source: EntryProblem,
    },
    /// No free run of memory is long enough.
    #[error(
        "no space for \"{path}\": {} needed in one piece, {} free, the largest free piece has {}",
        human(*.size), human(*.free), human(*.largest)
    )]
    NoSpace {
        /// The new file.
        path: RelPath,
        /// Its size in bytes.
        size: u64,
        /// Free bytes in all.
        free: u64,
        /// Bytes of the longest free run.
        largest: u64,
    },
    /// There are too few buckets with a free run for a strip.
    #[error(
        "no space for \"{path}\": {strips} strips of {} needed in buckets of their own, {} free in \
         all", human(*.strip_len), human(*.free)
    )]
    NoStrips {
        /// The new file.
        path: RelPath,
        /// Strips of the file.
        strips: usize,
        /// Bytes of a strip.
        strip_len: u64,
        /// Free bytes in all.
        free: u64,
    },
    /// Another system has become the master.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Files cannot be spread as requested.
    #[error("cannot interleave files")]
    Striping(#[from] StripingError),
    /// Something that is not in the log is mounted in its place.
    #[error(
        "\"{path}\" exists, but is not in the log: a command was killed, or another program made \
         it; remove it, or unmount and mount again"
    )]
    Leftover {
        /// The new file or directory.
        path: RelPath,
    },
    /// The mounted file system refused.
    #[error("cannot {action} \"{path}\"")]
    Volume {
        /// The action that failed.
        action: &'static str,
        /// The file or directory.
        path: RelPath,
        /// The error of the system.
        source: io::Error,
    },
    /// A deletion is published, and what it deletes is still mounted here.
    #[error(
        "\"{path}\" is deleted, but cannot be removed from this mount; `famfs logplay` tries again"
    )]
    Remains {
        /// The file or directory.
        path: RelPath,
        /// The error of the system.
        source: io::Error,
    },
    /// A batch could not be published. Every later call of the session returns the same error.
    #[error(transparent)]
    Ended(Arc<WriteError>),
}

/// A file system open for additions.
pub struct Writer<'v> {
    volume: &'v dyn Volume,
    log: Log<'v>,
    plan: Plan,
    area: DataArea,
    lease: Option<&'v Keeper>,
    striping: Option<Striping>,
    /// Counts files, so that interleaved ones take turns with the buckets.
    turn: u64,
    batch: Vec<(u32, Body)>,
    /// Paths that the batch makes, with "is a directory".
    batch_paths: Vec<(RelPath, bool)>,
    /// Paths that the batch deletes, likewise.
    batch_deleted: Vec<(RelPath, bool)>,
    batch_bytes: u64,
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
        match (preview, log.counter_problem()) {
            (true, Some(problem)) => return Err(problem.into()),
            (true, None) => {}
            (false, _) => log.prepare_append()?,
        }
        let area = superblock.data_area(media.len());
        let mut plan = Plan::read(&log, area, extensions);
        if let Some(damage) = plan.stopped.take() {
            return Err(WriteError::Damaged(damage));
        }
        plan.require_conventional()?;
        Ok(Self {
            volume,
            plan,
            area,
            lease: None,
            striping: None,
            turn: log.next_index(),
            log,
            batch: Vec::new(),
            batch_paths: Vec::new(),
            batch_deleted: Vec::new(),
            batch_bytes: 0,
            preview,
            ended: None,
        })
    }

    /// Whether this session changes nothing.
    pub fn is_preview(&self) -> bool {
        self.preview
    }

    /// What the file system holds, additions of this session included.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Refuses a session after one of its batches was not published.
    fn check_live(&self) -> Result<(), WriteError> {
        match &self.ended {
            Some(why) => Err(WriteError::Ended(why.clone())),
            None => Ok(()),
        }
    }

    /// Refuses a session that needs more log entries than there are slots.
    pub fn check_slots(&self, needed: u64) -> Result<(), WriteError> {
        self.check_live()?;
        let free = self.log.free_slots().saturating_sub(self.batch.len() as u64);
        if needed > free {
            return Err(LogError::Full { needed, free, slots: self.log.slots() }.into());
        }
        Ok(())
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

    /// Takes memory for a file of `size` bytes, to be passed to [`Writer::create`].
    pub fn allocate(&mut self, path: &RelPath, size: u64) -> Result<FileMap, WriteError> {
        self.check_live()?;
        let space = &mut self.plan.space;
        let map = match &self.striping {
            Some(how) => space.allocate_striped(size, how, self.turn),
            None => space.allocate(size).map(|extent| FileMap::Simple(vec![extent])),
        };
        self.turn += 1;
        map.ok_or_else(|| self.no_space(path, size))
    }

    fn no_space(&self, path: &RelPath, size: u64) -> WriteError {
        let (path, space) = (path.clone(), &self.plan.space);
        let free = space.free();
        match self.striping.filter(|how| size >= how.chunk_size) {
            Some(how) => {
                let strip_len = how.strip_len(size).unwrap_or(u64::MAX);
                WriteError::NoStrips { path, strips: how.strips, strip_len, free }
            }
            None => WriteError::NoSpace { path, size, free, largest: space.largest_free() },
        }
    }

    /// Gives back memory that was not used for a file.
    pub fn release(&mut self, map: &FileMap) {
        for extent in map.extents() {
            self.plan.space.release(*extent);
        }
    }

    /// Adds a directory.
    pub fn mkdir(&mut self, path: &RelPath, owner: Owner) -> Result<(), WriteError> {
        self.check_new(path)?;
        if !self.preview {
            self.volume
                .make_dir(path, owner)
                .map_err(|source| volume_error("make directory", path, source))?;
        }
        let mut body = MkdirBody::new_zeroed();
        body.uid = U32::new(owner.uid);
        body.gid = U32::new(owner.gid);
        body.mode = U32::new(owner.mode);
        body.path = self.field(path)?;
        self.queue(path, EntryKind::Mkdir, body.as_bytes(), owner, NodeKind::Dir)
    }

    /// Adds a file of `size` bytes in the memory of `map`, after `fill` has written its bytes. If
    /// it fails, the file does not exist and the memory is free again.
    pub fn create<E: From<WriteError>>(
        &mut self,
        path: &RelPath,
        owner: Owner,
        size: u64,
        map: FileMap,
        fill: impl FnOnce(&dyn FileBytes) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.preview {
            let bytes = self.begin(path, owner, size, &map).inspect_err(|_| self.release(&map))?;
            let filled = fill(&*bytes).and_then(|()| {
                bytes.finish().map_err(|source| volume_error("write back", path, source).into())
            });
            drop(bytes);
            filled.inspect_err(|_| self.abandon(path, &map))?;
        }
        Ok(self.publish(path, owner, size, map)?)
    }

    /// Makes a file whose bytes are still to be written; it is not in the log before
    /// [`Writer::publish`].
    pub fn begin(
        &self,
        path: &RelPath,
        owner: Owner,
        size: u64,
        map: &FileMap,
    ) -> Result<Box<dyn FileBytes + 'v>, WriteError> {
        self.check_new(path)?;
        self.volume
            .make_file(path, owner, size, map)
            .map_err(|source| volume_error("make file", path, source))
    }

    /// Adds a file that was begun and whose bytes are complete and written back. If it cannot be
    /// added, it is removed like one that was abandoned.
    pub fn publish(
        &mut self,
        path: &RelPath,
        owner: Owner,
        size: u64,
        map: FileMap,
    ) -> Result<(), WriteError> {
        self.check_new(path).inspect_err(|_| self.abandon(path, &map))?;
        let mut body = FileBody::new_zeroed();
        body.size = U64::new(size);
        body.flags = U32::new(FILE_FLAGS);
        body.uid = U32::new(owner.uid);
        body.gid = U32::new(owner.gid);
        body.mode = U32::new(owner.mode);
        body.path = self.field(path)?;
        map.encode(&mut body);
        self.batch_bytes += size;
        self.queue(path, EntryKind::File, body.as_bytes(), owner, NodeKind::File { size, map })
    }

    /// Removes a file that was begun, and frees its memory.
    pub fn abandon(&mut self, path: &RelPath, map: &FileMap) {
        if !self.preview {
            // The earlier error is the one to report.
            let _ = self.volume.remove(path, false);
        }
        self.release(map);
    }

    /// Publishes what was added so far. If that fails, the session is over.
    pub fn commit(&mut self) -> Result<(), WriteError> {
        self.check_live()?;
        // A preview keeps its batch, so that the slots after it are counted right.
        if self.batch.is_empty() || self.preview {
            return Ok(());
        }
        self.publish_batch().map_err(|error| {
            let why = Arc::new(error);
            self.ended = Some(why.clone());
            WriteError::Ended(why)
        })
    }

    fn publish_batch(&mut self) -> Result<(), WriteError> {
        let batch = std::mem::take(&mut self.batch);
        let made = std::mem::take(&mut self.batch_paths);
        let deleted = std::mem::take(&mut self.batch_deleted);
        self.batch_bytes = 0;
        self.plan.sweep();
        let held = self.lease.map_or(Ok(()), Keeper::check);
        let end = self.log.next_index() + batch.len() as u64;
        let (appended, visible) = match held {
            Ok(()) => match self.log.append(&batch) {
                Ok(()) => (Ok(()), true),
                // The failure may have come after the store that publishes.
                Err(error) => (Err(error.into()), self.log.shows(end)),
            },
            Err(error) => (Err(error.into()), false),
        };
        let removed = match visible {
            true => self.remove_deleted(deleted),
            false => {
                self.discard(&made);
                Ok(())
            }
        };
        appended.and(removed)
    }

    /// Removes what was made for unpublished entries.
    fn discard(&self, made: &[(RelPath, bool)]) {
        for (path, is_dir) in made.iter().rev() {
            // The log's error is the one to report; a stub without entry is gone at the next mount.
            let _ = self.volume.remove(path, *is_dir);
        }
    }

    /// Removes what the published entries delete. What a crash or an error leaves, the next play of
    /// the log removes. An error keeps none of the others back.
    fn remove_deleted(&self, deleted: Vec<(RelPath, bool)>) -> Result<(), WriteError> {
        let mut first = Ok(());
        for (path, is_dir) in deleted {
            match self.volume.remove(&path, is_dir) {
                Err(source) if source.kind() != io::ErrorKind::NotFound && first.is_ok() => {
                    first = Err(WriteError::Remains { path, source });
                }
                _ => {}
            }
        }
        first
    }

    /// Deletes a file or an empty directory. Its memory stays taken until the log is compacted,
    /// and its path can be used again after [`Writer::commit`].
    pub fn delete(&mut self, path: &RelPath) -> Result<(), WriteError> {
        self.check_slots(1)?;
        let error = |source| WriteError::Delete { path: path.clone(), source };
        let node = self.plan.check_delete(path).map_err(error)?;
        let (made_by, is_dir) = (node.slot, node.kind == NodeKind::Dir);
        let mut body = DeleteBody::new_zeroed();
        body.slot = U64::new(made_by);
        body.path = self.field(path)?;
        let slot = self.log.next_index() + self.batch.len() as u64;
        self.plan.delete(slot, path, made_by).map_err(error)?;
        self.batch_deleted.push((path.clone(), is_dir));
        self.push(EntryKind::Delete, body.as_bytes())
    }

    /// Checks that a file or directory can be added.
    fn check_new(&self, path: &RelPath) -> Result<(), WriteError> {
        self.check_live()?;
        self.check_path(path)?;
        self.field(path)?;
        self.check_slots(1)
    }

    /// A path as a conventional entry holds it.
    fn field(&self, path: &RelPath) -> Result<[u8; MAX_PATH + 1], WriteError> {
        let field = path.to_field().map_err(EntryProblem::from);
        field.map_err(|source| WriteError::Path { path: path.clone(), source })
    }

    fn check_path(&self, path: &RelPath) -> Result<(), WriteError> {
        let problem = match self.plan.get(path) {
            Some(node) => Err(EntryProblem::Exists(node.slot)),
            None => self.plan.check_parent(path),
        };
        problem.map_err(|source| WriteError::Path { path: path.clone(), source })
    }

    fn queue(
        &mut self,
        path: &RelPath,
        kind: EntryKind,
        body: &[u8],
        owner: Owner,
        node: NodeKind,
    ) -> Result<(), WriteError> {
        let slot = self.log.next_index() + self.batch.len() as u64;
        self.batch_paths.push((path.clone(), node == NodeKind::Dir));
        self.plan.insert(Node { path: path.clone(), slot, owner, kind: node });
        self.push(kind, body)
    }

    /// Adds an entry to the batch, and publishes a batch that is large enough.
    fn push(&mut self, kind: EntryKind, body: &[u8]) -> Result<(), WriteError> {
        let mut bytes: Body = [0; size_of::<Body>()];
        bytes.copy_from_slice(body);
        self.batch.push((kind as u32, bytes));
        if self.batch.len() >= BATCH_ENTRIES || self.batch_bytes >= BATCH_BYTES {
            self.commit()?;
        }
        Ok(())
    }
}

impl Drop for Writer<'_> {
    /// Removes what was added and never committed.
    fn drop(&mut self) {
        if !self.preview {
            self.discard(&self.batch_paths);
        }
    }
}

fn volume_error(action: &'static str, path: &RelPath, source: io::Error) -> WriteError {
    let path = path.clone();
    match source.kind() {
        io::ErrorKind::AlreadyExists => WriteError::Leftover { path },
        _ => WriteError::Volume { action, path, source },
    }
}
