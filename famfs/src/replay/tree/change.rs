// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one entry changes in a tree, told by paths as they are at that moment: for whoever carries
//! it out somewhere else, entry by entry.

use zerocopy::transmute;

use super::Tree;
use super::object::ObjectKind;
use crate::format::extension::{AttrBody, GroupBody, LinkBody, MoveBody, RemoveBody};
use crate::format::path::RelPath;
use crate::format::{DeleteBody, Entry, EntryKind};

/// What an entry changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new file, directory or symbolic link.
    Made {
        /// Slot of its name, and of what it names.
        slot: u64,
        /// Its path.
        path: RelPath,
    },
    /// Another name of a file.
    Linked {
        /// Slot of the new name.
        slot: u64,
        /// A path that the file had before.
        old: RelPath,
        /// The new path.
        new: RelPath,
    },
    /// Other attributes.
    Attributes {
        /// Slot that made what has them.
        object: u64,
        /// One of its paths; `None` of the root.
        path: Option<RelPath>,
    },
    /// A name is elsewhere, and what was there is gone.
    Moved {
        /// Slot of the name.
        slot: u64,
        /// Where it was.
        from: RelPath,
        /// Where it is.
        to: RelPath,
        /// Whether something was there.
        replaces: bool,
    },
    /// A name is gone.
    Removed {
        /// Where it was.
        path: RelPath,
        /// Whether it named a directory.
        is_dir: bool,
    },
    /// The entries up to this slot, without it, belong together: all of them or none.
    Group {
        /// The slot after the last one of the group.
        end: u64,
    },
}

impl Change {
    /// Where it is seen; `None` is the root, or no single place.
    pub fn path(&self) -> Option<&RelPath> {
        match self {
            Self::Made { path, .. } | Self::Removed { path, .. } => Some(path),
            Self::Linked { new, .. } => Some(new),
            Self::Moved { to, .. } => Some(to),
            Self::Attributes { path, .. } => path.as_ref(),
            Self::Group { .. } => None,
        }
    }
}

/// What is known of a change before its entry counts.
pub(crate) struct Before {
    /// Path of the name that goes or moves, and whether it names a directory.
    path: Option<(RelPath, bool)>,
    /// Whether the name that is to be replaced is there.
    replaces: bool,
}

impl Before {
    /// What the tree says of the names that an entry takes away.
    pub fn of(tree: &Tree, entry: &Entry) -> Self {
        let (slot, replaced) = match EntryKind::of(entry) {
            Some(EntryKind::Move) => {
                let body: MoveBody = transmute!(entry.body);
                (body.name_slot.get(), tree.name(body.replaces.get()).is_some())
            }
            Some(EntryKind::Remove) => {
                let body: RemoveBody = transmute!(entry.body);
                (body.name_slot.get(), false)
            }
            Some(EntryKind::Delete) => {
                let body: DeleteBody = transmute!(entry.body);
                (body.slot.get(), false)
            }
            _ => return Self { path: None, replaces: false },
        };
        let is_dir = tree
            .listed(slot)
            .is_some_and(|listed| matches!(listed.object.kind, ObjectKind::Dir { .. }));
        Self { path: tree.path_of(slot).map(|path| (path, is_dir)), replaces: replaced }
    }

    /// What an entry that counts has changed; `None` if no path tells of it.
    pub fn change(self, tree: &Tree, slot: u64, entry: &Entry) -> Option<Change> {
        Some(match EntryKind::of(entry)? {
            // What is in the store has no path.
            EntryKind::File | EntryKind::Mkdir | EntryKind::Name => {
                Change::Made { slot, path: tree.path_of(slot)? }
            }
            EntryKind::Link => {
                let body: LinkBody = transmute!(entry.body);
                let old = tree.names_of(body.target.get()).find(|name| *name != slot)?;
                Change::Linked { slot, old: tree.path_of(old)?, new: tree.path_of(slot)? }
            }
            EntryKind::Attr => {
                let body: AttrBody = transmute!(entry.body);
                let object = body.target.get();
                let path = tree.names_of(object).next().and_then(|name| tree.path_of(name));
                Change::Attributes { object, path }
            }
            EntryKind::Move => {
                let body: MoveBody = transmute!(entry.body);
                let slot = body.name_slot.get();
                let (from, _) = self.path?;
                Change::Moved { slot, from, to: tree.path_of(slot)?, replaces: self.replaces }
            }
            EntryKind::Remove | EntryKind::Delete => {
                let (path, is_dir) = self.path?;
                Change::Removed { path, is_dir }
            }
            EntryKind::Group => {
                let body: GroupBody = transmute!(entry.body);
                Change::Group { end: slot.saturating_add(1).saturating_add(body.count.get()) }
            }
            EntryKind::Daxdev | EntryKind::Void | EntryKind::List => return None,
        })
    }
}
