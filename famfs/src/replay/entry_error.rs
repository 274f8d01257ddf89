// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why an entry of the log is left out of the plan.

use crate::format::extension::EXTENSIONS_OFFSET;
use crate::format::map::MapError;
use crate::format::path::{PathError, RelPath};
use crate::replay::node::OwnerError;
use crate::replay::tree::problem::TreeProblem;

/// An entry with a good checksum that cannot be played; the plan leaves it out.
#[derive(Debug, thiserror::Error)]
#[error("log slot {slot} at {offset:#x}{}", .path.as_ref().map(|p| format!(": \"{p}\"")).unwrap_or_default())]
pub struct EntryError {
    /// Slot of the entry.
    pub slot: u64,
    /// Offset of the entry in the device or pool.
    pub offset: u64,
    /// Path of the entry, if it has a legal one.
    pub path: Option<RelPath>,
    /// Why it was left out.
    #[source]
    pub problem: EntryProblem,
}

/// Why an entry was left out of the plan.
#[derive(Debug, thiserror::Error)]
pub enum EntryProblem {
    /// The owner is not one.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// It does not fit the tree of a file system with extensions.
    #[error(transparent)]
    Tree(#[from] TreeProblem),
    /// The file system does not say that it has extensions.
    #[error(
        "it is of extensions, but the mark of extensions at {EXTENSIONS_OFFSET:#x} of the file \
         system was lost, so it and all others of this kind do not count: `famfs upgrade` restores \
         the mark"
    )]
    Unmarked,
    /// The path is not legal.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The map is not legal.
    #[error(transparent)]
    Map(#[from] MapError),
    /// An earlier entry has the path.
    #[error("it already exists, from log slot {0}")]
    Exists(u64),
    /// Something has the path of what is to be made.
    #[error("it already exists: a {kind}, from log slot {slot}")]
    Taken {
        /// What it is.
        kind: &'static str,
        /// Slot of its name.
        slot: u64,
    },
    /// The directory that it should be in has no entry before this one.
    #[error("its directory \"{0}\" does not exist")]
    NoParent(RelPath),
    /// There is nothing to delete.
    #[error("nothing to delete: it does not exist")]
    NotThere,
    /// The path to delete belongs to another entry.
    #[error("the deletion is for what slot {expected} made, but the path is from slot {found}")]
    OtherSlot {
        /// Slot of what is there.
        found: u64,
        /// Slot that the deletion names.
        expected: u64,
    },
    /// The directory is not empty.
    #[error("the directory is not empty: {0} files and directories are in it")]
    NotEmpty(u32),
    /// Its parent is no directory.
    #[error("\"{path}\" is a {kind}, expected a directory")]
    NoDirectory {
        /// The parent.
        path: RelPath,
        /// What it is.
        kind: &'static str,
    },
    /// Its memory belongs to another file, or twice to this one.
    #[error("it shares memory with {0}")]
    Overlap(String),
}
