// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Turns on the extensions of an existing file system.
//!
//! The mark is checked by its checksum, and a wrong one keeps everybody out. So its magic number,
//! without which there is no mark, is durable after all the rest of it: a crash at any store leaves
//! a file system with extensions or one without.

use std::mem::offset_of;

use zerocopy::IntoBytes;

use crate::format::extension::{EXTENSIONS_OFFSET, Extensions, STORE_DIR};
use crate::media::{Media, MediaError};
use crate::replay::{Contents, ContentsError, EntryError, Plan};
use crate::store::log::LogError;
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
    /// There are entries that would count from now on.
    #[error(
        "the log has {count} entries of extensions, which do not count now and would then: the mark \
         of extensions was lost; save the files with `famfs export`, make a new file system, and \
         restore them"
    )]
    Extended {
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

/// Checks that a file system can get extensions; returns false if it has them.
pub fn check(media: &dyn Media) -> Result<bool, UpgradeError> {
    let Contents { superblock, log, plan } = Contents::read(media)?;
    if superblock.has_extensions(media)? {
        return Ok(false);
    }
    if let Some(problem) = superblock.size_problem(media.len()) {
        return Err(problem.into());
    }
    if let Some(problem) = log.counter_problem() {
        return Err(UpgradeError::Damaged(problem));
    }
    let plan = sound(plan)?;
    if let Some(count) = log.interrupted() {
        return Err(UpgradeError::Interrupted { count });
    }
    if let Some(node) = plan.nodes().iter().find(|node| node.path.first() == STORE_DIR.as_bytes()) {
        return Err(UpgradeError::Reserved { slot: node.slot });
    }
    // The log as it will be read.
    let plan = Plan::read(&log, superblock.data_area(media.len()), true);
    match plan.tree().extended() {
        0 => sound(plan).map(|_| true),
        count => Err(UpgradeError::Extended { count }),
    }
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

/// Turns extensions on, after [`check`]. `media` needs to have no more than the superblock's 2 MiB.
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
