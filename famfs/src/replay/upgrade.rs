// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Turns on the extensions of an existing file system, or restores its mark of extensions.
//!
//! The mark is checked by its checksum, and a wrong one keeps everybody out. So its magic number,
//! without which there is no mark, is durable after all the rest of it: a crash at any store leaves
//! a file system with extensions or one without.

use std::mem::offset_of;

use zerocopy::IntoBytes;

use crate::format::extension::{EXTENSIONS_OFFSET, Extensions, STORE_DIR};
use crate::media::{Media, MediaError};
use crate::replay::{ContentsError, EntryError, Plan};
use crate::store::log::{Log, LogError};
use crate::store::superblock::{Superblock, SuperblockError};

/// Why a file system cannot get extensions.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// It cannot be read.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// There is no usable superblock.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// An entry of the log or its header is damaged.
    #[error("the log is damaged, so extensions cannot be turned on: see `famfs fsck`")]
    Damaged(#[source] LogError),
    /// An entry is left out, or would be with extensions.
    #[error("an entry of the log is left out, so extensions cannot be turned on: see `famfs fsck`")]
    LeftOut(#[source] Box<EntryError>),
    /// Entries are complete and not published.
    #[error(
        "an append was interrupted, and {count} entries are not published: add or delete a file, \
         which publishes them, and try again"
    )]
    Interrupted {
        /// Number of such entries.
        count: u64,
    },
    /// The place of the store is taken.
    #[error(
        "\"{STORE_DIR}\" exists, from log slot {slot}, and with extensions the name is reserved: \
         copy what you need of it, delete it with `famfs rm -r {STORE_DIR}`, and try again"
    )]
    Reserved {
        /// The slot that made it.
        slot: u64,
    },
    /// The mark was lost, and with it the log is not good either.
    #[error(
        "the mark of extensions was lost, and is not restored, because the log has other damage: \
         restore the pool from a copy, or save with `famfs export` what can still be read"
    )]
    NotRestored(#[source] Box<UpgradeError>),
    /// The mark was lost, and a later version of the format may have written the log.
    #[error(
        "the mark of extensions was lost, and is not restored, because {count} log entries are of \
         types that this version does not know: use the version that wrote them"
    )]
    Unknown {
        /// Number of such entries.
        count: u64,
    },
    /// The memory does not hold what was written.
    #[error(
        "the memory does not keep what is written to it: this system may only read it, like a VM \
         with access = \"ro\"; nothing was changed"
    )]
    NotKept,
    /// The mark cannot be written.
    #[error("cannot write the mark of extensions")]
    Media(#[from] MediaError),
}

/// What [`mark`] would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// Nothing: there are extensions.
    None,
    /// Turn extensions on.
    TurnOn,
    /// Restore the mark of a file system with extensions, which was lost or is damaged.
    Restore,
}

/// Checks that a file system can get extensions, or get them back.
pub fn check(media: &dyn Media) -> Result<Upgrade, UpgradeError> {
    let superblock = Superblock::read(media)?;
    let damaged = match superblock.has_extensions(media) {
        Ok(true) => return Ok(Upgrade::None),
        Ok(false) => false,
        Err(SuperblockError::ExtensionsChecksum { .. }) => true,
        Err(err) => return Err(err.into()),
    };
    let log = Log::open(media, superblock.log_len).map_err(ContentsError::from)?;
    if let Some(problem) = superblock.size_problem(media.len()) {
        return Err(problem.into());
    }
    if let Some(problem) = log.counter_problem() {
        return Err(UpgradeError::Damaged(problem));
    }
    let area = superblock.data_area(media.len());
    let plan = Plan::read(&log, area, false);
    // The log as it will be read.
    let with_extensions = Plan::read(&log, area, true);
    if damaged || plan.unmarked > 0 {
        let plan = sound(with_extensions);
        let plan = plan.map_err(|err| UpgradeError::NotRestored(Box::new(err)))?;
        return match plan.unknown {
            0 => Ok(Upgrade::Restore),
            count => Err(UpgradeError::Unknown { count }),
        };
    }
    let plan = sound(plan)?;
    if let Some(count) = log.interrupted() {
        return Err(UpgradeError::Interrupted { count });
    }
    if let Some(node) = plan.nodes().iter().find(|node| node.path.first() == STORE_DIR.as_bytes()) {
        return Err(UpgradeError::Reserved { slot: node.slot });
    }
    sound(with_extensions).map(|_| Upgrade::TurnOn)
}

/// Refuses a plan that does not have every entry.
fn sound(mut plan: Plan) -> Result<Plan, UpgradeError> {
    if let Some(damage) = plan.stopped.take() {
        return Err(UpgradeError::Damaged(damage));
    }
    match plan.refused.is_empty() {
        true => Ok(plan),
        false => Err(UpgradeError::LeftOut(Box::new(plan.refused.swap_remove(0)))),
    }
}

/// Writes the mark of extensions, after [`check`]. `media` needs to have no more than the
/// superblock's 2 MiB.
pub fn mark(media: &dyn Media) -> Result<Superblock, UpgradeError> {
    let superblock = Superblock::read(media)?;
    let mark = Extensions::new(superblock.fs_uuid.into_bytes());
    let (magic, rest) = mark.as_bytes().split_at(offset_of!(Extensions, version));
    let rest_offset = EXTENSIONS_OFFSET + magic.len() as u64;
    // An earlier file system may have left one, which must not count while half of it is this one.
    let no_magic = [0; 8];
    for (offset, bytes) in
        [(EXTENSIONS_OFFSET, &no_magic[..]), (rest_offset, rest), (EXTENSIONS_OFFSET, magic)]
    {
        media.write_at(offset, bytes)?;
        media.persist(offset, bytes.len() as u64)?;
    }
    if !superblock.has_extensions(media)? {
        return Err(UpgradeError::NotKept);
    }
    Ok(superblock)
}
