// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A cheap look at a pool: whether its log has new removals or has become short, and whether those
//! who hold what was removed have got further. It reads new entries once, and the table of members.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use famfs::format::{Entry, EntryKind};
use famfs::media::{MediaError, PoolFile};
use famfs::replay::reclaim;
use famfs::store::log::{Log, LogError};
use famfs::store::members;
use famfs::store::superblock::{Superblock, SuperblockError};
use famfs::sys::dax::Access;
use famfs::system::neighbours::PoolId;
use rustix::fs::OFlags;
use uuid::Uuid;

/// Why nothing can be seen.
#[derive(Debug, thiserror::Error)]
pub enum GlanceError {
    /// The pool cannot be read.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// Its superblock cannot be read.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// Its log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// It is not the pool that the virtual machine has.
    #[error("{}: {found}, expected the pool file that the virtual machine has", path.display())]
    Other {
        /// Its path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// There may be something to give back.
    pub is_pending: bool,
    /// There are new removals, or new entries in a log that is short of slots, or a member has
    /// released more, or is gone, since the last look, or a reclamation was interrupted.
    pub is_news: bool,
}

/// How far the members are: the least that one has released, and who they are.
type Standing = (Option<u64>, Vec<(u64, Uuid)>);

/// What was seen of a pool.
#[derive(Debug)]
pub struct Glance {
    path: PathBuf,
    id: PoolId,
    /// The entries below this slot of a numbering were looked at; none yet if nothing is known.
    seen: Option<(Option<u64>, u64)>,
    /// The last removal may be held.
    is_pending: bool,
    /// Number of entries when the last removal was seen.
    removed: u64,
    standing: Standing,
    /// Whether the log has void entries, under this numbering and number of reclamations.
    voids: Option<(Option<u64>, u64, bool)>,
}

impl Glance {
    /// Nothing has been seen.
    pub fn new(path: &Path, id: PoolId) -> Self {
        let path = path.to_owned();
        let (seen, standing, voids) = (None, Standing::default(), None);
        Self { path, id, seen, is_pending: false, removed: 0, standing, voids }
    }

    /// Whether a reclamation goes on, or was killed: then no mount can write, or each reads the
    /// whole log again and again.
    pub fn is_interrupted(&self) -> Result<bool, GlanceError> {
        let media = self.open()?;
        let superblock = Superblock::read(&media)?;
        is_interrupted(&media, &Log::open(&media, superblock.log_len)?)
    }

    /// Looks. The first time, anything may be there to give back.
    pub fn look(&mut self) -> Result<Found, GlanceError> {
        let media = self.open()?;
        let superblock = Superblock::read(&media)?;
        let log = Log::open(&media, superblock.log_len)?;
        let (numbering, published) = (log.numbering(), log.published());
        let is_new = match self.seen {
            Some((before, seen)) if before == numbering && seen <= published => removes(&log, seen),
            // The entries have moved into other slots, or another file system was made.
            Some(_) => removes(&log, 0),
            None => true,
        };
        let has_grown = self.seen != Some((numbering, published));
        let is_new =
            is_new || is_interrupted(&media, &log)? || has_grown && self.is_short(&media, &log)?;
        self.seen = Some((numbering, published));
        if is_new {
            (self.is_pending, self.removed) = (true, published);
        }
        if !self.is_pending {
            return Ok(Found { is_pending: false, is_news: false });
        }
        let members = members::read(&media, superblock.fs_uuid, numbering)?;
        let least = members.iter().map(|member| member.released.min(self.removed)).min();
        let who = members.iter().map(|member| (member.place, member.system.boot)).collect();
        let standing = (least, who);
        let is_news = is_new || standing != self.standing;
        self.standing = standing;
        Ok(Found { is_pending: true, is_news })
    }

    /// Everything that was seen is given back.
    pub fn given_back(&mut self) {
        self.is_pending = false;
    }

    /// Whether the log is short, and has slots to give back. It is read as a whole only if nothing
    /// is known of it since the last reclamation: nothing else makes entries void.
    fn is_short(&mut self, media: &PoolFile, log: &Log<'_>) -> Result<bool, GlanceError> {
        if !reclaim::is_short(log.free_slots(), log.slots()) {
            return Ok(false);
        }
        let state = (log.numbering(), reclaim::number(media)?);
        if let Some((numbering, number, has_voids)) = self.voids
            && (numbering, number) == state
        {
            return Ok(has_voids);
        }
        let is_void = |entry: &Entry| EntryKind::of(entry) == Some(EntryKind::Void);
        let has_voids = log.entries_from(0).map_while(Result::ok).any(|(_, entry)| is_void(&entry));
        self.voids = Some((state.0, state.1, has_voids));
        Ok(has_voids)
    }

    fn open(&self) -> Result<PoolFile, GlanceError> {
        let other = |found| GlanceError::Other { path: self.path.clone(), found };
        let failed = |source| MediaError::Open { path: self.path.clone(), source };
        // If a pipe has its name now, this does not wait for its other end.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options().read(true).custom_flags(flags).open(&self.path);
        let file = file.map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        match () {
            () if PoolId::of(&metadata) != self.id => Err(other("another file has its name")),
            () if !metadata.is_file() => Err(other("a device, and who uses one is not known")),
            () => Ok(PoolFile::from_file(file, &self.path, Access::Read)?),
        }
    }
}

fn is_interrupted(media: &PoolFile, log: &Log<'_>) -> Result<bool, GlanceError> {
    Ok(log.is_moving() || !reclaim::number(media)?.is_multiple_of(2))
}

/// Whether an entry from a slot on takes a name away. What cannot be read is for `famfs fsck`.
fn removes(log: &Log<'_>, first: u64) -> bool {
    let takes = |entry: &Entry| {
        use EntryKind::{Delete, Move, Remove};
        matches!(EntryKind::of(entry), Some(Delete | Move | Remove))
    };
    log.entries_from(first).map_while(Result::ok).any(|(_, entry)| takes(&entry))
}
