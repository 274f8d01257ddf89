// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why nothing can be added to a file system.

use std::io;
use std::sync::Arc;

use uuid::Uuid;

use crate::format::path::RelPath;
use crate::replay::EntryProblem;
use crate::store::alloc::StripingError;
use crate::store::lease::LeaseError;
use crate::store::log::LogError;
use crate::store::superblock::SuperblockError;
use crate::text::units::human;

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
    /// The log has entries of extensions, and the file system does not say that it has any.
    #[error(
        "{count} log entries are of extensions, but the mark of extensions was lost, so nothing can \
         be added: `famfs upgrade` restores the mark"
    )]
    Unmarked {
        /// Number of such entries.
        count: u64,
    },
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
    /// Without extensions, the log has no entry for it.
    #[error(
        "cannot write {}: this file system has no extensions, so it holds no {what}; `famfs \
         upgrade` turns them on", name(.path.as_ref())
    )]
    NeedsExtensions {
        /// What was to be made or changed; `None` is the root, or everything.
        path: Option<RelPath>,
        /// What it is.
        what: &'static str,
    },
    /// The attributes or the place of something cannot be changed.
    #[error("cannot change {}", name(.path.as_ref()))]
    Change {
        /// What was to be changed; `None` is the root.
        path: Option<RelPath>,
        /// What stands in the way.
        source: EntryProblem,
    },
    /// No free run of memory is long enough, or all that is free is not enough.
    #[error(
        "no space for \"{path}\": {} needed, {} free, the largest free piece has {}{}",
        human(*.size), human(*.free), human(*.largest), compact_hint(*.deleted)
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
        /// Bytes that removed files still hold.
        deleted: u64,
    },
    /// There are too few buckets with a free run for a strip.
    #[error(
        "no space for \"{path}\": {strips} strips of {} needed in buckets of their own, {} free in \
         all{}", human(*.strip_len), human(*.free), compact_hint(*.deleted)
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
        /// Bytes that a compaction frees.
        deleted: u64,
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
    /// A change is published, and this mount does not show it.
    #[error(
        "the change of {} is published, but cannot be carried out in this mount; `famfs logplay` \
         tries again", name(.path.as_ref())
    )]
    Remains {
        /// What was changed; `None` is the root.
        path: Option<RelPath>,
        /// The error of the system.
        source: io::Error,
    },
    /// The mount does not let this process keep others from changing it.
    #[error("cannot lock the mount, or note what it shows")]
    Played(#[source] io::Error),
    /// A batch could not be published. Every later call of the session returns the same error.
    #[error(transparent)]
    Ended(Arc<WriteError>),
}

impl WriteError {
    /// How many log slots were needed at once, if there were too few.
    #[must_use]
    pub fn slots_needed(&self) -> Option<u64> {
        match self {
            Self::Log(LogError::Full { needed, .. }) => Some(*needed),
            Self::Ended(why) => why.slots_needed(),
            _ => None,
        }
    }
}

/// What an error about space says of the memory of deleted files.
pub(crate) fn compact_hint(deleted: u64) -> String {
    match deleted {
        0 => String::new(),
        _ => format!(
            "; {} of deleted files are being released: `famfs reclaim` gives them back, or names \
             who holds them",
            human(deleted)
        ),
    }
}

/// A path in an error; `None` is the root.
fn name(path: Option<&RelPath>) -> String {
    format!("\"{}\"", path.map_or("/".to_owned(), RelPath::to_string))
}
