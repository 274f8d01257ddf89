// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What became of a log in a mounted tree: what appeared, and what could not.

use std::io;

use crate::format::path::RelPath;
use crate::replay::tree::object::{Object, ObjectKind};

/// Why something of the log does not appear as it should.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The system refused.
    #[error("cannot {action} \"{path}\"{}", slot.map_or(String::new(), |slot| format!(" of log slot {slot}")))]
    System {
        /// What was to be done.
        action: &'static str,
        /// The file, directory or link.
        path: RelPath,
        /// Slot of its entry, if it is still there.
        slot: Option<u64>,
        /// The error of the system.
        source: io::Error,
    },
    /// The system refused to change the root directory.
    #[error("cannot set the attributes of the root directory")]
    Root(#[source] io::Error),
    /// What a killed command left cannot be removed.
    #[error("cannot remove what a killed command left in .meta")]
    Waiting(#[source] io::Error),
    /// The file exists, but its memory is not that of the log.
    #[error(
        "\"{path}\" of log slot {slot} is mounted with other memory than the log says: the file \
         system was formatted again or compacted meanwhile; unmount it and mount it again"
    )]
    OtherMemory {
        /// The file.
        path: RelPath,
        /// Slot of its entry.
        slot: u64,
    },
    /// Something else is in its place.
    #[error("\"{path}\" of log slot {slot} is in the way: found {found}, expected {expected}")]
    InTheWay {
        /// The file, directory or link.
        path: RelPath,
        /// Slot of its entry.
        slot: u64,
        /// What is there.
        found: String,
        /// What the log says.
        expected: String,
    },
}

/// What appeared, and what could not.
#[derive(Debug, Default)]
pub struct Applied {
    /// Files made.
    pub files: u64,
    /// Directories made.
    pub directories: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Further names of files made: hard links.
    pub links: u64,
    /// Names that were removed.
    pub removed: u64,
    /// Names that moved.
    pub moved: u64,
    /// Names that existed already.
    pub existed: u64,
    /// Symbolic links that lead out, and were left out.
    pub unsafe_links: Vec<RelPath>,
    /// What could not be made, changed or removed.
    pub errors: Vec<ApplyError>,
}

impl Applied {
    /// Number of names made.
    pub fn made(&self) -> u64 {
        self.files + self.directories + self.symlinks + self.links
    }

    /// Counts a new name; `first` if it is the first one of what it names.
    pub(super) fn count(&mut self, object: &Object, first: bool) {
        *match object.kind {
            _ if !first => &mut self.links,
            ObjectKind::Dir { .. } => &mut self.directories,
            ObjectKind::File { .. } => &mut self.files,
            ObjectKind::Symlink { .. } => &mut self.symlinks,
        } += 1;
    }

    /// Adds what a later step did.
    pub(super) fn add(&mut self, later: Self) {
        self.files += later.files;
        self.directories += later.directories;
        self.symlinks += later.symlinks;
        self.links += later.links;
        self.removed += later.removed;
        self.moved += later.moved;
        self.existed += later.existed;
        self.unsafe_links.extend(later.unsafe_links);
        self.errors.extend(later.errors);
    }
}

/// A name that appeared.
#[derive(Clone, Copy, Debug)]
pub struct Appeared<'t> {
    /// Slot of the name.
    pub slot: u64,
    /// Where it is.
    pub path: &'t RelPath,
    /// What it names.
    pub object: &'t Object,
}
