// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From log entries to a plan: the directories and files that a log describes. Pure: nothing is
//! created here, and nothing in a hostile log can make the plan name anything outside the file
//! system or let two files share memory.

pub mod compact;
mod contents;
pub mod dead;
pub mod dump;
mod entry_error;
pub mod fsck;
pub mod names;
mod node;
mod owners;
pub mod picture;
pub mod reclaim;
pub mod size;
pub mod tree;
pub mod upgrade;

use std::collections::HashSet;
use std::ops::Range;

pub use contents::{Contents, ContentsError, read_undisturbed};
pub use entry_error::{EntryError, EntryProblem};
pub use node::{Attributes, Deletion, NO_ID, Node, NodeKind, Owner, OwnerError, Time};
use zerocopy::transmute;

use crate::format::component::Component;
use crate::format::extension::{GroupBody, NO_ENTRY, STORE_DIR};
use crate::format::map::{DataArea, FileMap};
use crate::format::path::RelPath;
use crate::format::{self, DeleteBody, Entry, EntryKind, FileBody, MkdirBody};
use crate::replay::names::NameIndex;
use crate::replay::owners::Owners;
use crate::replay::tree::Tree;
use crate::replay::tree::change::{Before, Change};
use crate::replay::tree::object::{Name, Taken};
use crate::replay::tree::problem::TreeProblem;
use crate::store::alloc::SpaceMap;
use crate::store::log::{Log, LogError};

/// Gets the slot of an entry, what it changed, and the tree as it is then.
type Each<'e> = dyn FnMut(&Tree, u64, Change) + 'e;

/// All that a log describes.
#[derive(Debug)]
pub struct Plan {
    nodes: Vec<Node>,
    /// Number of direct children of each node.
    children: Vec<u32>,
    /// Nodes that were deleted but not yet removed.
    dead: HashSet<usize>,
    deletions: Vec<Deletion>,
    /// Slots of entries without effect.
    idle: Vec<u64>,
    /// Slots of entries that no longer count.
    voids: Vec<u64>,
    /// Nodes of the store by path; all nodes, once a name of the tree was moved or removed alone.
    by_path: NameIndex,
    /// Whether `by_path` has all nodes. Until then the tree has each at its path.
    indexed: bool,
    /// Names and what they name.
    tree: Tree,
    /// Whether the file system has extensions.
    extensions: bool,
    /// Slots of the last group, without its head.
    group: Range<u64>,
    /// Extent owners, built on the first collision.
    owners: Option<Owners>,
    /// Free and taken memory.
    pub space: SpaceMap,
    /// Entries that were left out.
    pub refused: Vec<EntryError>,
    /// Number of those that share memory with an earlier file.
    pub collisions: u64,
    /// Entries of unknown types, which later versions of the format may add.
    pub unknown: u64,
    /// Entries of [extensions](format::extension) in a file system without the mark of them, which
    /// must have been lost. The first one is among the refused.
    pub unmarked: u64,
    /// The damaged entry at which reading ended.
    pub stopped: Option<LogError>,
    /// The first slot that was not read yet.
    next: u64,
    /// Checksum of the entry before it.
    last: Option<u64>,
}

impl Plan {
    /// Reads a log's entries in order, up to the first damaged one. Entries of
    /// [extensions](format::extension) count if the superblock says that there are any.
    pub fn read(log: &Log<'_>, area: DataArea, extensions: bool) -> Self {
        let mut plan = Self::unread(area, extensions);
        plan.read_on(log, area);
        plan
    }

    /// A plan that is still to be read.
    pub fn unread(area: DataArea, extensions: bool) -> Self {
        Self {
            nodes: Vec::new(),
            children: Vec::new(),
            dead: HashSet::new(),
            deletions: Vec::new(),
            idle: Vec::new(),
            voids: Vec::new(),
            by_path: NameIndex::default(),
            indexed: false,
            tree: Tree::new(extensions),
            extensions,
            group: 0..0,
            owners: None,
            space: SpaceMap::new(area),
            refused: Vec::new(),
            collisions: 0,
            unknown: 0,
            unmarked: 0,
            stopped: None,
            next: 0,
            last: None,
        }
    }

    /// Reads the entries that were published since, from where reading ended. A damaged entry is
    /// tried once more.
    pub fn read_on(&mut self, log: &Log<'_>, area: DataArea) {
        self.read_before(log, area, u64::MAX);
    }

    /// The same for the entries before a slot.
    pub fn read_before(&mut self, log: &Log<'_>, area: DataArea, end: u64) {
        self.read_entries(log, area, end, None);
    }

    /// The same for all of them. `each` gets the slot of an entry, what it changed, and the tree as
    /// it is then.
    pub fn read_each(
        &mut self,
        log: &Log<'_>,
        area: DataArea,
        mut each: impl FnMut(&Tree, u64, Change),
    ) {
        self.read_entries(log, area, u64::MAX, Some(&mut each));
    }

    fn read_entries(
        &mut self,
        log: &Log<'_>,
        area: DataArea,
        end: u64,
        mut each: Option<&mut Each<'_>>,
    ) {
        self.stopped = None;
        for entry in log.entries_from(self.next) {
            if self.next >= end {
                break;
            }
            let entry = entry.and_then(|(slot, entry)| {
                self.enter_group(log, slot, &entry)?;
                Ok((slot, entry))
            });
            match entry {
                Ok((slot, entry)) => {
                    let before = each.is_some().then(|| Before::of(&self.tree, &entry));
                    let counts = self.take(slot, &entry, area, log.media().origin());
                    if let (true, Some(each), Some(before)) = (counts, &mut each, before)
                        && let Some(change) = before.change(&self.tree, slot, &entry)
                    {
                        each(&self.tree, slot, change);
                    }
                    self.next = slot + 1;
                    self.last = Some(entry.crc.get());
                }
                Err(err) => {
                    self.stopped = Some(err);
                    break;
                }
            }
        }
        self.sweep();
    }

    /// At the head of a group, makes sure that all of it is there before any of it counts.
    fn enter_group(&mut self, log: &Log<'_>, slot: u64, entry: &Entry) -> Result<(), LogError> {
        let is_head = self.extensions && EntryKind::of(entry) == Some(EntryKind::Group);
        if !is_head || self.group.contains(&slot) {
            return Ok(());
        }
        let body: GroupBody = transmute!(entry.body);
        let count = body.count.get();
        log.check_group(slot, count)?;
        self.group = slot + 1..slot + 1 + count;
        Ok(())
    }

    /// Names and what they name. The nodes are what conventional entries describe, which readers
    /// see that know no extensions.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Whether extension entries count.
    pub fn has_extensions(&self) -> bool {
        self.extensions
    }

    /// The first slot that was not read yet.
    pub fn next_slot(&self) -> u64 {
        self.next
    }

    /// The checksum of the last entry that was read.
    pub fn last_checksum(&self) -> Option<u64> {
        self.last
    }

    /// Directories and files, directories before their contents.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The directories and files of the entries from a slot on.
    pub fn nodes_since(&self, slot: u64) -> &[Node] {
        &self.nodes[self.nodes.partition_point(|node| node.slot < slot)..]
    }

    /// What the entries from a slot on deleted, in their order.
    pub fn deletions_since(&self, slot: u64) -> &[Deletion] {
        &self.deletions[self.deletions.partition_point(|deletion| deletion.slot < slot)..]
    }

    /// The deletion in a slot, if there is one.
    pub fn deletion(&self, slot: u64) -> Option<&Deletion> {
        let found = self.deletions.binary_search_by_key(&slot, |deletion| deletion.slot);
        found.ok().map(|index| &self.deletions[index])
    }

    /// Slots of entries without effect: those about what is void, and lists that no name needs.
    /// They are harmless, and void after a compaction.
    pub fn idle(&self) -> &[u64] {
        &self.idle
    }

    /// Slots of entries that a compaction made void.
    pub fn voids(&self) -> &[u64] {
        &self.voids
    }

    /// Whether the entry of a slot is void or without effect.
    fn is_void(&self, slot: u64) -> bool {
        is_in(&self.voids, slot) || is_in(&self.idle, slot)
    }

    /// The conventional file or directory that a slot made, if it is not deleted.
    pub fn node(&self, slot: u64) -> Option<&Node> {
        self.index_of_slot(slot).map(|index| &self.nodes[index])
    }

    /// Finds a file or directory.
    pub fn get(&self, path: &RelPath) -> Option<&Node> {
        self.index_of(path).map(|index| &self.nodes[index])
    }

    /// Numbers of files and directories.
    pub fn counts(&self) -> (usize, usize) {
        let dirs = self.nodes.iter().filter(|node| node.kind == NodeKind::Dir).count();
        (self.nodes.len() - dirs, dirs)
    }

    /// Checks that the directory of a new node exists; the root always does.
    pub fn check_parent(&self, path: &RelPath) -> Result<(), EntryProblem> {
        let Some(parent) = path.parent() else { return Ok(()) };
        match self.get(&parent) {
            None => Err(EntryProblem::NoParent(parent)),
            Some(Node { kind: NodeKind::File { .. }, .. }) => {
                Err(EntryProblem::NoDirectory { path: parent, kind: "file" })
            }
            Some(_) => Ok(()),
        }
    }

    /// Adds a node whose path is free, whose directory exists and whose memory is its own.
    pub fn insert(&mut self, node: Node) {
        let parent = self.parent_index(&node.path);
        match self.place(&node.path, parent) {
            Some((parent, component)) => {
                let name = Name { parent, component, object: node.slot };
                self.tree.add_plain(node.slot, name, node.owner, &node.kind);
            }
            None => self.tree.add_store(&node),
        }
        self.push(node, parent);
    }

    /// Adds a node in the directory with an index; in the root there is none.
    fn push(&mut self, node: Node, parent: Option<usize>) {
        let index = self.nodes.len();
        if let Some(owners) = &mut self.owners {
            owners.add(index, &node);
        }
        if let Some(parent) = parent {
            self.children[parent] += 1;
        }
        if self.indexed || self.is_in_store(&node.path) {
            self.by_path.insert(&node.path, index);
        }
        self.nodes.push(node);
        self.children.push(0);
    }

    /// Indexes all nodes, because the tree may have one elsewhere from now on.
    fn index_all(&mut self) {
        for (index, node) in self.nodes.iter().enumerate() {
            if !self.dead.contains(&index) && !self.is_in_store(&node.path) {
                self.by_path.insert(&node.path, index);
            }
        }
        self.indexed = true;
    }

    /// Checks that a file or directory can be deleted; returns its node.
    pub fn check_delete(&self, path: &RelPath) -> Result<&Node, EntryProblem> {
        let Some(index) = self.index_of(path) else { return Err(EntryProblem::NotThere) };
        match self.children[index] {
            0 => Ok(&self.nodes[index]),
            count => Err(EntryProblem::NotEmpty(count)),
        }
    }

    /// Deletes what an earlier slot made. It stays among the nodes until [`Plan::sweep`].
    pub fn delete(&mut self, slot: u64, path: &RelPath, made_by: u64) -> Result<(), EntryProblem> {
        let node = self.check_delete(path)?.clone();
        if node.slot != made_by {
            return Err(EntryProblem::OtherSlot { found: node.slot, expected: made_by });
        }
        self.tree.delete_plain(made_by, slot)?;
        if let Some(parent) = self.parent_index(path) {
            self.children[parent] -= 1;
        }
        let nodes = &self.nodes;
        self.by_path.remove(path, |index| &nodes[index].path);
        self.dead.extend(self.index_of_slot(made_by));
        self.deletions.push(Deletion { slot, node });
        Ok(())
    }

    /// Takes an entry that is about to be published in a slot. One that breaks a rule changes
    /// nothing. A file's memory must not be taken yet.
    pub fn add(
        &mut self,
        slot: u64,
        entry: &Entry,
        area: DataArea,
    ) -> Result<Option<Change>, EntryProblem> {
        let before = Before::of(&self.tree, entry);
        let refused = self.refused.len();
        let counts = self.take(slot, entry, area, 0);
        match self.refused.drain(refused..).next() {
            Some(error) => Err(error.problem),
            None if counts => Ok(before.change(&self.tree, slot, entry)),
            None => Ok(None),
        }
    }

    /// The tree, and the memory of the device, to take some.
    pub fn tree_and_space(&mut self) -> (&Tree, &mut SpaceMap) {
        (&self.tree, &mut self.space)
    }

    /// Removes the deleted nodes.
    pub fn sweep(&mut self) {
        if self.dead.is_empty() {
            return;
        }
        let dead = std::mem::take(&mut self.dead);
        let nodes = std::mem::take(&mut self.nodes);
        self.by_path.clear();
        self.owners = None;
        self.children.clear();
        // Directories come before their contents, so this counts the children again.
        for (index, node) in nodes.into_iter().enumerate() {
            if !dead.contains(&index) {
                let parent = self.parent_index(&node.path);
                self.push(node, parent);
            }
        }
    }

    fn index_of(&self, path: &RelPath) -> Option<usize> {
        if self.indexed || self.is_in_store(path) {
            return self.by_path.get(path, |index| &self.nodes[index].path);
        }
        self.index_of_slot(self.tree.look_up(path.as_bytes())?)
    }

    /// Index of the node that a slot made.
    fn index_of_slot(&self, slot: u64) -> Option<usize> {
        // Each node has a slot of its own, so none has a larger index; few have a much smaller one.
        let end = usize::try_from(slot).ok()?.saturating_add(1).min(self.nodes.len());
        let mut step = 1;
        while step < end && self.nodes[end - step].slot > slot {
            step *= 2;
        }
        let start = end.saturating_sub(step);
        let found = self.nodes[start..end].binary_search_by_key(&slot, |node| node.slot);
        found.ok().map(|index| start + index)
    }

    fn parent_index(&self, path: &RelPath) -> Option<usize> {
        self.index_of(&path.parent()?)
    }

    pub(super) fn is_in_store(&self, path: &RelPath) -> bool {
        self.extensions && path.first() == STORE_DIR.as_bytes()
    }

    /// Where a path is in the tree, if it is not in the store: slot of its directory, whose node
    /// has the index `parent`, and its name there.
    fn place(&self, path: &RelPath, parent: Option<usize>) -> Option<(u64, Component)> {
        if self.is_in_store(path) {
            return None;
        }
        let parent = parent.map_or(NO_ENTRY, |index| self.nodes[index].slot);
        Some((parent, Component::new(path.name()).ok()?))
    }

    /// Takes an entry; returns whether it counts.
    fn take(&mut self, slot: u64, entry: &Entry, area: DataArea, origin: u64) -> bool {
        let offset = format::slot_offset(slot) + origin;
        let (path, made) = match EntryKind::of(entry) {
            Some(EntryKind::File) => {
                let body: FileBody = transmute!(entry.body);
                (RelPath::from_field(&body.path), self.file(&body, area))
            }
            Some(EntryKind::Mkdir) => {
                let body: MkdirBody = transmute!(entry.body);
                let owner = Owner::parse(body.uid, body.gid, body.mode);
                let made = owner.map(|owner| (owner, NodeKind::Dir)).map_err(EntryProblem::from);
                (RelPath::from_field(&body.path), made)
            }
            Some(EntryKind::Void) => {
                self.voids.push(slot);
                return false;
            }
            Some(EntryKind::Delete) => {
                let body: DeleteBody = transmute!(entry.body);
                let path = RelPath::from_field(&body.path);
                let deleted = path.clone().map_err(EntryProblem::from);
                let deleted = deleted.and_then(|path| self.delete(slot, &path, body.slot.get()));
                let counts = deleted.is_ok();
                if matches!(deleted, Err(EntryProblem::NotThere)) {
                    // A compaction was interrupted after the file's own entry.
                    self.idle.push(slot);
                } else if let Err(problem) = deleted {
                    self.refused.push(EntryError { slot, offset, path: path.ok(), problem });
                }
                return counts;
            }
            Some(
                kind @ (EntryKind::Name
                | EntryKind::Link
                | EntryKind::Attr
                | EntryKind::Move
                | EntryKind::Remove
                | EntryKind::Group
                | EntryKind::List),
            ) => {
                if !self.extensions {
                    if self.unmarked == 0 {
                        let problem = EntryProblem::Unmarked;
                        self.refused.push(EntryError { slot, offset, path: None, problem });
                    }
                    self.unmarked += 1;
                    return false;
                }
                if !self.indexed && matches!(kind, EntryKind::Move | EntryKind::Remove) {
                    self.index_all();
                }
                let taken = match kind {
                    EntryKind::Group if self.group.contains(&slot) => Err(TreeProblem::NestedGroup),
                    _ => {
                        let (voids, idle) = (&self.voids, &self.idle);
                        let is_void = |slot: u64| is_in(voids, slot) || is_in(idle, slot);
                        self.tree.take(slot, kind, &entry.body, is_void)
                    }
                };
                let counts = matches!(taken, Ok(Taken::Done(_)));
                match taken {
                    // The last idle entries are those right before this one.
                    Ok(Taken::Done(lists)) => {
                        let lists = usize::try_from(lists).unwrap_or(0);
                        self.idle.truncate(self.idle.len() - lists);
                    }
                    Ok(Taken::Idle) => self.idle.push(slot),
                    Err(problem) => {
                        let problem = problem.into();
                        self.refused.push(EntryError { slot, offset, path: None, problem });
                    }
                }
                return counts;
            }
            Some(EntryKind::Daxdev) | None => {
                self.unknown += 1;
                return false;
            }
        };
        let (path, problem) = match (path, made) {
            (Ok(path), Ok((owner, kind))) => match self.check_free(&path) {
                Ok(()) => {
                    self.insert(Node { path, slot, owner, kind });
                    return true;
                }
                Err(problem) => (Some(path), problem),
            },
            (path, Err(problem)) => (path.ok(), problem),
            (Err(problem), Ok(_)) => (None, problem.into()),
        };
        self.refused.push(EntryError { slot, offset, path, problem });
        false
    }

    /// Checks that a new node may have a path.
    fn check_free(&self, path: &RelPath) -> Result<(), EntryProblem> {
        match self.get(path) {
            Some(taken) => Err(EntryProblem::Exists(taken.slot)),
            None => {
                self.check_parent(path)?;
                if let Some((parent, component)) = self.place(path, self.parent_index(path)) {
                    self.tree.check_plain(parent, component)?;
                }
                Ok(())
            }
        }
    }

    /// Checks a file entry and marks its memory, which stays taken even if its path is refused.
    fn file(&mut self, body: &FileBody, area: DataArea) -> Result<(Owner, NodeKind), EntryProblem> {
        let map = FileMap::parse(body, area)?;
        let mut fresh = true;
        for extent in map.extents() {
            fresh &= self.space.mark(*extent);
        }
        if !fresh {
            self.collisions += 1;
            return Err(EntryProblem::Overlap(self.owner_of_overlap(&map)));
        }
        let owner = Owner::parse(body.uid, body.gid, body.mode)?;
        Ok((owner, NodeKind::File { size: body.size.get(), map }))
    }

    /// Names a file that shares memory with `map`.
    fn owner_of_overlap(&mut self, map: &FileMap) -> String {
        let owners = self.owners.get_or_insert_with(|| Owners::of(&self.nodes));
        match owners.find(map) {
            Some(index) => {
                let node = &self.nodes[index];
                format!("\"{}\" of slot {}", node.path, node.slot)
            }
            None => "itself, or a file that was left out or deleted".to_owned(),
        }
    }
}

/// Whether a slot is among some in ascending order.
fn is_in(slots: &[u64], slot: u64) -> bool {
    slots.binary_search(&slot).is_ok()
}
