// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names, and the files, directories and symbolic links that they name.

use crate::format::component::Component;
use crate::format::map::FileMap;
use crate::format::piece::Piece;
use crate::replay::node::{Owner, Time};

/// A file, directory or symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Whose it is.
    pub owner: Owner,
    /// When its contents changed last; conventional entries do not tell.
    pub mtime: Option<Time>,
    /// Number of its names; one of the root.
    pub links: u64,
    /// What it is.
    pub kind: ObjectKind,
}

/// What an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A directory.
    Dir {
        /// Number of names in it.
        children: u64,
        /// Length in bytes of the longest path that there was below it.
        below: usize,
    },
    /// A file.
    File {
        /// Size in bytes.
        size: u64,
        /// Where its bytes are.
        bytes: FileBytes,
    },
    /// A symbolic link.
    Symlink {
        /// What it leads to.
        target: Box<[u8]>,
    },
}

/// Where a file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileBytes {
    /// In the memory of its own file entry.
    Own(FileMap),
    /// In pieces of other file entries; what no piece holds is zero.
    Pieces {
        /// The pieces in the order of the file.
        pieces: Box<[Piece]>,
    },
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Slot of the directory; [`NO_ENTRY`] is the root.
    pub parent: u64,
    /// The name.
    pub component: Component,
    /// Slot of what it names.
    pub object: u64,
}

impl Object {
    /// The pages that it holds in other file entries.
    pub fn pieces(&self) -> &[Piece] {
        match &self.kind {
            ObjectKind::File { bytes: FileBytes::Pieces { pieces }, .. } => pieces,
            _ => &[],
        }
    }

    /// What it is, in words.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            ObjectKind::Dir { .. } => "directory",
            ObjectKind::File { .. } => "file",
            ObjectKind::Symlink { .. } => "symbolic link",
        }
    }
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It counts, and so do this many entries right before it, which were idle until now.
    Done(u64),
    /// It has no effect (yet): what it changes is void, because a compaction was interrupted, or it
    /// is for the entry behind it.
    Idle,
}
