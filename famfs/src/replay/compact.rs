// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Frees what deleted files hold: their memory, and their log slots.
//!
//! A deleted file's memory is free once its entry is void. First the entry of the file and then all
//! others about it become void, by one atomic store each ([`Entry::voided`]), the contents of a
//! directory before the directory. So a crash at any store leaves a log that plays to the same
//! files. Then all that is not void moves into slots without gaps ([`Log::renumber`]). Entries that
//! later ones have made pointless stay, as long as what they are about is there.
//!
//! A process that still has a deleted file mapped would see a new file's bytes in it. So the caller
//! must make sure that nobody holds the pool.
//!
//! [`Entry::voided`]: crate::format::Entry::voided

use crate::format::map::DataArea;
use crate::media::Media;
use crate::replay::dead::Dead;
use crate::replay::{EntryError, Plan, read_undisturbed};
use crate::store::log::{Log, LogError};
use crate::store::members;
use crate::store::superblock::{Superblock, SuperblockError};

/// Why a log cannot be compacted.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// There is no usable superblock.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// The log is not usable.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An entry of the log is damaged.
    #[error("the log is damaged, so nothing can be freed: see `famfs fsck`")]
    Damaged(#[source] LogError),
    /// An entry was left out of the plan, and might count once another one is void.
    #[error("an entry of the log is left out, so nothing can be freed: see `famfs fsck`")]
    LeftOut(#[source] Box<EntryError>),
    /// A later version of the format may delete in other ways.
    #[error(
        "{count} log entries are of types that this version does not know, so it does not know \
         what is deleted: use the version that wrote them"
    )]
    Unknown {
        /// Number of such entries.
        count: u64,
    },
}

/// What a compaction freed, or would free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Deleted files, directories and symbolic links that are gone for good.
    pub deletions: u64,
    /// Bytes of whole units.
    pub bytes: u64,
    /// Bytes of pages in files of the store that hold others too.
    pub page_bytes: u64,
    /// Log slots.
    pub slots: u64,
    /// Void entries that stay where they are, because the log is too long to move the others.
    pub voids: u64,
}

/// Frees what deleted files hold; with `dry_run` only reports how much that is.
pub fn compact(media: &dyn Media, dry_run: bool) -> Result<Compacted, CompactError> {
    let (mut log, plan, _) = open(media, dry_run)?;
    let dead = Dead::of(&log, &plan)?;
    let mut voids = [plan.voids(), &dead.made, &dead.rest].concat();
    voids.sort_unstable();
    let end = log.published();
    let mut next = end;
    while next > 0 && voids.last() == Some(&(next - 1)) {
        voids.pop();
        next -= 1;
    }
    let gaps = voids.len() as u64;
    let mut compacted = Compacted {
        deletions: dead.objects,
        bytes: dead.units,
        page_bytes: dead.pages,
        slots: end - next + gaps,
        voids: 0,
    };
    if dry_run {
        return Ok(compacted);
    }
    for slot in dead.made.iter().chain(&dead.rest) {
        log.void(*slot)?;
    }
    if next < end {
        log.give_back(next)?;
    }
    // Nobody uses the pool, and whoever comes begins to follow the log anew.
    let fs_uuid = Superblock::read(media)?.fs_uuid;
    for ended in members::read(media, fs_uuid, None).map_err(LogError::from)? {
        members::drop_silent(media, fs_uuid, &ended).map_err(LogError::from)?;
    }
    if gaps > 0 && !log.renumber(None)? {
        compacted.slots -= gaps;
        compacted.voids = gaps;
    }
    Ok(compacted)
}

/// Opens a log of which entries may become void, and reads it: it must be good in all of its
/// entries.
pub(super) fn open(
    media: &dyn Media,
    dry_run: bool,
) -> Result<(Log<'_>, Plan, DataArea), CompactError> {
    let superblock = Superblock::read(media)?;
    if let Some(problem) = superblock.size_problem(media.len()) {
        return Err(problem.into());
    }
    let extensions = superblock.has_extensions(media)?;
    Log::open(media, superblock.log_len)?.prepare(dry_run)?;
    let (log, mut plan, area) = read_undisturbed(media, &superblock, extensions)?;
    if let Some(damage) = plan.stopped.take() {
        return Err(CompactError::Damaged(damage));
    }
    if !plan.refused.is_empty() {
        return Err(CompactError::LeftOut(Box::new(plan.refused.swap_remove(0))));
    }
    if plan.unknown > 0 {
        return Err(CompactError::Unknown { count: plan.unknown });
    }
    Ok((log, plan, area))
}
