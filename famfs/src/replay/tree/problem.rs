// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why an entry does not change the tree.

use crate::format::component::{Component, ComponentError};
use crate::format::extension::{MAX_LONG_PATH, MAX_PIECES, MAX_TARGET};
use crate::format::piece::PieceError;
use crate::replay::node::OwnerError;

/// Why an entry does not change the tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeProblem {
    /// A field that must be zero is not.
    #[error("{0} are not zero: a later version may have given them a meaning")]
    NotZero(&'static str),
    /// A field has a value without meaning.
    #[error("{field} is {found}, expected {expected}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Value on the media.
        found: u64,
        /// What is legal.
        expected: &'static str,
    },
    /// The name is not legal.
    #[error(transparent)]
    Component(#[from] ComponentError),
    /// The name is the tools' own.
    #[error("name \"{0}\" is reserved in the root directory")]
    Reserved(Component),
    /// The pieces are not a file's.
    #[error(transparent)]
    Piece(#[from] PieceError),
    /// Nothing is there that the slot made.
    #[error("slot {0} made no directory that still exists")]
    NoParent(u64),
    /// What should be the directory is not one.
    #[error("slot {0} made something other than a directory")]
    NoDirectory(u64),
    /// The name is taken.
    #[error("\"{name}\" already exists in its directory; slot {slot} made it")]
    Exists {
        /// The name.
        name: Component,
        /// Slot that made what is there.
        slot: u64,
    },
    /// Another name, or none, is where a move replaces one.
    #[error("\"{name}\" is to replace what slot {expected} made, but it is not there")]
    NotReplaced {
        /// The name.
        name: Component,
        /// Slot that the move names.
        expected: u64,
    },
    /// A directory can only take the place of a directory, and others only that of others.
    #[error("a {new} cannot replace a {old}")]
    OtherKind {
        /// What it is.
        new: &'static str,
        /// What is there.
        old: &'static str,
    },
    /// The whole path needs too many bytes.
    #[error("paths with \"{name}\" would have up to {len} bytes, expected at most {MAX_LONG_PATH}")]
    PathTooLong {
        /// The name.
        name: Component,
        /// Bytes of the longest path.
        len: usize,
    },
    /// What a slot made is not there, or never was.
    #[error("slot {0} made nothing that still exists")]
    NotThere(u64),
    /// A directory would be in itself.
    #[error("directory \"{0}\" would be inside itself")]
    Loop(Component),
    /// Only files have several names.
    #[error("slot {slot} made a {kind}, expected a file")]
    NoFile {
        /// The slot.
        slot: u64,
        /// What it made.
        kind: &'static str,
    },
    /// A directory with names in it.
    #[error("the directory is not empty: {0} names are in it")]
    NotEmpty(u64),
    /// A conventional deletion of a file that has other names.
    #[error("the file has other names")]
    MoreNames,
    /// The file entry holds bytes of others.
    #[error("pages of other files in it: {0}")]
    InUse(u64),
    /// The slot has no file entry that holds bytes of others.
    #[error("slot {0} is not a file below .famfs, so it cannot hold data")]
    NoStore(u64),
    /// Pages that the file entry does not have.
    #[error(
        "pages {page} to {end} of slot {slot} are to hold its bytes, but that has only {pages}"
    )]
    OutsideStore {
        /// Slot of the file entry.
        slot: u64,
        /// First page.
        page: u64,
        /// Page behind the last one.
        end: u64,
        /// Pages of the file entry.
        pages: u64,
    },
    /// An interleaved file is used as a whole.
    #[error(
        "slot {0} is interleaved and can only hold one file as a whole, from its first page on"
    )]
    Interleaved(u64),
    /// A page belongs to two files.
    #[error("page {page} of slot {slot} belongs to what slot {owner} made")]
    Shared {
        /// Slot of the file entry.
        slot: u64,
        /// The page.
        page: u64,
        /// Slot of the other owner, or of the same.
        owner: u64,
    },
    /// Too many pieces, or none.
    #[error("{found} pieces, expected 1 to {MAX_PIECES}")]
    TooManyPieces {
        /// Value on the media.
        found: u32,
    },
    /// A target that no link can have.
    #[error("the target has {found} bytes, expected 1 to {MAX_TARGET}")]
    TargetLength {
        /// Value on the media.
        found: u32,
    },
    /// A target with a NUL.
    #[error("the target has a NUL in it")]
    TargetNul,
    /// Entries are missing that pieces or target should be in.
    #[error("its pieces or target need {needed} LIST entries right before it, found {found}")]
    NoLists {
        /// Entries that its count needs.
        needed: usize,
        /// Entries that are there.
        found: usize,
    },
    /// A group inside a group.
    #[error("a group within a group")]
    NestedGroup,
    /// The owner is not one.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The size is more than a file can have.
    #[error("file size is {0}, expected at most 9223372036854775807")]
    Size(u64),
}
