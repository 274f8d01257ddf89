// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that was taken for a new file.

use crate::format::extension::{ENTRY_PIECES, LIST_PIECES};
use crate::format::map::{FileMap, Memory};

/// A file entry that holds bytes of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// It is in the log, in this slot.
    Slot(u64),
    /// It is to be added; its number in the session.
    New(usize),
}

/// A run of pages in a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub holder: Holder,
    /// First page in the holder.
    pub page: u64,
    /// Number of pages.
    pub pages: u64,
}

/// How the memory is entered in the log.
#[derive(Clone, Debug)]
pub(super) enum How {
    /// In the file's own conventional entry.
    Own(FileMap),
    /// In pages of holders, each with its first page in the file.
    Pieces(Vec<(u64, Run)>),
}

/// Memory for a new file of a certain size: for [`Writer::begin`], and then for
/// [`Writer::publish`] or [`Writer::abandon`].
///
/// [`Writer::begin`]: crate::write::writer::Writer::begin
/// [`Writer::publish`]: crate::write::writer::Writer::publish
/// [`Writer::abandon`]: crate::write::writer::Writer::abandon
#[derive(Clone, Debug)]
pub struct Room {
    pub(super) size: u64,
    pub(super) how: How,
    pub(super) memory: Memory,
    /// The file takes the place of what is at its path.
    pub(super) replaces: bool,
}

impl Room {
    /// Memory that is a conventional entry's own.
    pub fn own(size: u64, map: FileMap) -> Self {
        Self { size, memory: Memory::Map(map.clone()), how: How::Own(map), replaces: false }
    }

    /// The same for a file that takes the place of what is at its path.
    #[must_use]
    pub fn replacing(self) -> Self {
        Self { replaces: true, ..self }
    }

    /// Entries that its pieces need besides that of the name.
    pub(crate) fn lists(&self) -> u64 {
        match &self.how {
            How::Pieces(pieces) if pieces.len() > ENTRY_PIECES => {
                (pieces.len() as u64).div_ceil(LIST_PIECES.into())
            }
            How::Own(_) | How::Pieces(_) => 0,
        }
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where it is on the device.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}
