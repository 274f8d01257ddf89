// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tree of a file system: names in directories, and what they name.
//!
//! A directory, file or symbolic link is known by the slot that made it, and so is each name; a
//! file has as many slots of names as it has hard links. Conventional entries make names and files
//! as well. Nothing in a hostile log makes a loop, a path that is too long, or two files of one
//! page. Memory follows the log's length: each entry adds at most one name and sixteen pieces.

mod by_slot;
pub mod change;
mod entry;
pub mod list;
mod lists;
mod names;
pub mod object;
pub mod problem;
pub mod resolve;
pub mod store;

use std::collections::HashMap;

use by_slot::BySlot;

use crate::format::component::Component;
use crate::format::extension::{MAX_LONG_PATH, NO_ENTRY, PAGE};
use crate::format::map::{Extent, Memory};
use crate::format::path::RelPath;
use crate::format::piece::Piece;
use crate::replay::node::{Node, NodeKind, Owner};
use lists::Lists;
use names::Names;
use object::{FileBytes, Name, Object, ObjectKind};
use problem::TreeProblem;
use store::Store;
pub use store::{FreeRun, StoreUse, ranges};

/// Owner and permissions of the root directory until an entry changes them.
const ROOT_OWNER: Owner = Owner { uid: 0, gid: 0, mode: 0o755 };

/// Names and what they name.
#[derive(Debug)]
pub struct Tree {
    /// The root directory, which no slot made.
    root: Object,
    objects: BySlot<Object>,
    names: Names,
    store: Store,
    /// What the name in the next slot may need.
    lists: Lists,
    /// Whether the directory of the store is reserved.
    extensions: bool,
    /// Number of extension entries that count.
    extended: u64,
    /// Slot of the last move of each name that moved.
    moves: HashMap<u64, u64>,
    /// Whether a name was ever moved or removed.
    changed: bool,
    /// The slot whose entry is being taken.
    slot: u64,
    /// Memory of the files that are gone, each with the slot that removed its last name.
    removed: Vec<(u64, Extent)>,
}

impl Tree {
    /// An empty tree, with extensions or without.
    pub fn new(extensions: bool) -> Self {
        let root = ObjectKind::Dir { children: 0, below: 0 };
        let root = Object { owner: ROOT_OWNER, mtime: None, links: 1, kind: root };
        Self {
            root,
            objects: BySlot::default(),
            names: Names::default(),
            moves: HashMap::new(),
            store: Store::default(),
            lists: Lists::default(),
            extensions,
            extended: 0,
            changed: false,
            slot: 0,
            removed: Vec::new(),
        }
    }

    /// Whether the conventional entries are all there is, and none of them is in the store.
    pub fn is_conventional(&self) -> bool {
        self.extended == 0 && self.store.is_empty()
    }

    /// Whether all that any entry made is still there, under the name that it made, and no file of
    /// the store is unused.
    pub(super) fn is_whole(&self) -> bool {
        !self.changed && !self.store.has_unused()
    }

    /// Number of extension entries that count.
    pub fn extended(&self) -> u64 {
        self.extended
    }

    /// What a slot made, if it is still there; [`NO_ENTRY`] is the root.
    pub fn object(&self, slot: u64) -> Option<&Object> {
        if slot == NO_ENTRY { Some(&self.root) } else { self.objects.get(slot) }
    }

    /// The memory of files that are gone and whose entries are not void, each with the slot of the
    /// entry that removed the last name, in the order of these slots.
    pub fn removed(&self) -> &[(u64, Extent)] {
        &self.removed
    }

    fn object_mut(&mut self, slot: u64) -> Option<&mut Object> {
        if slot == NO_ENTRY { Some(&mut self.root) } else { self.objects.get_mut(slot) }
    }

    /// The name that a slot made, if it is still there.
    pub fn name(&self, slot: u64) -> Option<&Name> {
        self.names.get(slot)
    }

    /// Slot of the last entry that put a name, or a directory above it, where it is: by making or
    /// moving it.
    pub fn placed_by(&self, name_slot: u64) -> u64 {
        let placed = |(slot, _)| self.moves.get(&slot).copied().unwrap_or(slot);
        self.ancestors(name_slot).map(placed).max().unwrap_or(name_slot)
    }

    /// Slots of the names of what a slot made; the root has none.
    pub fn names_of(&self, object: u64) -> impl Iterator<Item = u64> {
        self.names.of(object)
    }

    /// The path of the name that a slot made, if it is still there.
    pub fn path_of(&self, name_slot: u64) -> Option<RelPath> {
        let mut parts: Vec<&[u8]> =
            self.ancestors(name_slot).map(|(_, name)| name.component.as_bytes()).collect();
        parts.reverse();
        // A tree has no longer paths, and no name that a path cannot have.
        RelPath::new(&parts.join(&b'/')).ok()
    }

    /// Slot of a name in a directory.
    pub fn find(&self, parent: u64, component: &Component) -> Option<u64> {
        self.names.find(parent, component.as_bytes())
    }

    /// The ranges of the device that hold a file, each with its offset in the file. What lies
    /// between them is zero.
    pub fn extents(&self, bytes: &FileBytes, size: u64) -> Vec<(u64, Extent)> {
        match bytes {
            FileBytes::Own(map) => ranges(map, 0, size, 0),
            FileBytes::Pieces { pieces } => {
                pieces.iter().flat_map(|piece| self.store.extents(piece)).collect()
            }
        }
    }

    /// The ranges of the device that hold a piece, each with its offset in the file.
    pub fn piece_extents(&self, piece: &Piece) -> Vec<(u64, Extent)> {
        self.store.extents(piece)
    }

    /// Where a file's bytes are on the device.
    pub fn memory(&self, bytes: &FileBytes, size: u64) -> Memory {
        match bytes {
            FileBytes::Own(map) => Memory::Map(map.clone()),
            FileBytes::Pieces { pieces, .. } => {
                let interleaved =
                    pieces.first().and_then(|piece| self.store.interleaved(piece.slot));
                match interleaved {
                    Some(map) => Memory::Map(map.clone()),
                    None => Memory::Pieces(self.extents(bytes, size)),
                }
            }
        }
    }

    /// Bytes that a file holds for itself alone: whole pages, without its holes.
    pub fn allocated(&self, bytes: &FileBytes) -> u64 {
        match bytes {
            FileBytes::Own(map) => map.extents().iter().map(|extent| extent.len).sum(),
            FileBytes::Pieces { pieces } => {
                pieces.iter().map(|piece| piece.pages).sum::<u64>() * PAGE
            }
        }
    }

    /// The runs of pages of the store that a new file may have: no file has them, and none that was
    /// removed since the last compaction had them, which others may still have mapped. Interleaved
    /// files of the store are left out, because each can only hold one file as a whole.
    pub fn free_runs(&self) -> impl Iterator<Item = FreeRun> {
        self.store.free_runs()
    }

    /// Whether a slot made a file of the store that holds nothing.
    pub(super) fn is_unused(&self, slot: u64) -> bool {
        self.store.is_unused(slot)
    }

    /// Whether a slot made a file of the store that holds nothing, not even of removed files.
    pub(super) fn is_idle_store(&self, slot: u64) -> bool {
        self.store.is_idle(slot)
    }

    /// Bytes of pages that a compaction makes free in files of the store that stay.
    pub fn reusable_pages(&self) -> u64 {
        self.store.reusable()
    }

    /// What the files of the store are used for.
    pub fn store_use(&self) -> StoreUse {
        self.store.usage()
    }

    /// What stands against a new conventional file or directory.
    pub(super) fn check_plain(&self, parent: u64, name: Component) -> Result<(), TreeProblem> {
        match self.check_place(parent, &name, 0)? {
            Some(slot) => Err(TreeProblem::Exists { name, slot }),
            None => Ok(()),
        }
    }

    /// Adds a conventional file or directory that nothing stands against.
    pub(super) fn add_plain(&mut self, slot: u64, name: Name, owner: Owner, kind: &NodeKind) {
        let kind = match kind {
            NodeKind::Dir => ObjectKind::Dir { children: 0, below: 0 },
            NodeKind::File { size, map } => {
                ObjectKind::File { size: *size, bytes: FileBytes::Own(map.clone()) }
            }
        };
        self.objects.insert(slot, Object { owner, mtime: None, links: 0, kind });
        self.add_name(slot, name);
    }

    /// Adds what a conventional entry made in the store: a file there holds bytes of others.
    pub(super) fn add_store(&mut self, node: &Node) {
        if let NodeKind::File { size, map } = &node.kind {
            self.store.add(node.slot, *size, map);
        }
    }

    /// Removes what a conventional deletion deletes, if it is still there. A file whose bytes are
    /// others' stays, and so do one with more names and a directory with names in it.
    pub(super) fn delete_plain(&mut self, slot: u64, by: u64) -> Result<(), TreeProblem> {
        self.slot = by;
        self.store.remove(slot)?;
        if self.object(slot).is_some_and(|object| object.links > 1)
            || self.names.get(slot).is_none() && self.object(slot).is_some()
        {
            return Err(TreeProblem::MoreNames);
        }
        if self.names.get(slot).is_none() {
            return Ok(());
        }
        self.check_empty(slot)?;
        self.drop_name(slot);
        Ok(())
    }

    /// A name and those of the directories above it, each with its slot; the root has none.
    fn ancestors(&self, name_slot: u64) -> impl Iterator<Item = (u64, &Name)> {
        let mut at = name_slot;
        std::iter::from_fn(move || {
            let slot = at;
            // A directory has one name, of its own slot; the root has none.
            let name = self.names.get(slot)?;
            at = name.parent;
            Some((slot, name))
        })
    }

    /// Whether a name may be in a directory, with paths of up to `below` bytes below it. Returns
    /// the slot of the name that is there already.
    fn check_place(
        &self,
        parent: u64,
        component: &Component,
        below: usize,
    ) -> Result<Option<u64>, TreeProblem> {
        match self.object(parent).map(|object| &object.kind) {
            Some(ObjectKind::Dir { .. }) => {}
            Some(_) => return Err(TreeProblem::NoDirectory(parent)),
            None => return Err(TreeProblem::NoParent(parent)),
        }
        if self.extensions && parent == NO_ENTRY && component.is_reserved() {
            return Err(TreeProblem::Reserved(component.clone()));
        }
        let above = self.ancestors(parent).map(|(_, name)| name.component.as_bytes().len() + 1);
        let len = above.sum::<usize>() + reach(component, below);
        if len > MAX_LONG_PATH {
            return Err(TreeProblem::PathTooLong { name: component.clone(), len });
        }
        Ok(self.names.find(parent, component.as_bytes()))
    }

    /// Whether what a name names may go: anything but a directory with names in it.
    fn check_empty(&self, name_slot: u64) -> Result<(), TreeProblem> {
        let object = self.names.get(name_slot).and_then(|name| self.object(name.object));
        match object.map(|object| &object.kind) {
            Some(ObjectKind::Dir { children, .. }) if *children > 0 => {
                Err(TreeProblem::NotEmpty(*children))
            }
            _ => Ok(()),
        }
    }

    /// Adds a name that may be where it is.
    fn add_name(&mut self, slot: u64, name: Name) {
        let mut below = 0;
        if let Some(object) = self.object_mut(name.object) {
            object.links += 1;
            if let ObjectKind::Dir { below: reached, .. } = object.kind {
                below = reached;
            }
        }
        if let Some(Object { kind: ObjectKind::Dir { children, .. }, .. }) =
            self.object_mut(name.parent)
        {
            *children += 1;
        }
        // At most as many steps as a path has bytes.
        let mut reached = reach(&name.component, below);
        let mut at = name.parent;
        while let Some(Object { kind: ObjectKind::Dir { below, .. }, .. }) = self.object_mut(at) {
            *below = reached.max(*below);
            let Some(above) = self.names.get(at) else { break };
            reached += above.component.as_bytes().len() + 1;
            at = above.parent;
        }
        self.names.insert(slot, name);
    }

    /// Notes whose memory somebody may still use.
    fn remember_memory(&mut self, gone: &Object) {
        let ObjectKind::File { bytes, .. } = &gone.kind else { return };
        let slot = self.slot;
        match bytes {
            FileBytes::Own(map) => {
                self.removed.extend(map.extents().iter().map(|extent| (slot, *extent)));
            }
            FileBytes::Pieces { pieces } => {
                let extents = pieces.iter().flat_map(|piece| self.store.extents(piece));
                self.removed.extend(extents.map(|(_, extent)| (slot, extent)));
            }
        }
    }

    /// Takes a name out, and what it names with its last name.
    fn drop_name(&mut self, slot: u64) {
        let Some(name) = self.names.remove(slot) else { return };
        self.moves.remove(&slot);
        self.changed = true;
        if let Some(Object { kind: ObjectKind::Dir { children, .. }, .. }) =
            self.object_mut(name.parent)
        {
            *children -= 1;
        }
        if let Some(object) = self.object_mut(name.object) {
            object.links -= 1;
            if object.links == 0
                && let Some(object) = self.objects.remove(name.object)
            {
                self.remember_memory(&object);
                self.store.retire(object.pieces());
            }
        }
    }
}

/// Bytes of a path from a name on, if paths of `below` bytes are below it.
fn reach(component: &Component, below: usize) -> usize {
    component.as_bytes().len() + if below > 0 { below + 1 } else { 0 }
}
