// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which entries of a log a compaction makes void, and in which order: those of files, directories
//! and symbolic links that are gone, and of files of the store that hold nothing.
//!
//! What made something can become void as soon as no entry that stays names it as a directory, and
//! what it took the place of is void. From then on all other entries about it have no effect, in
//! whatever order they become void. So files go first, then directories from the inside out. A
//! directory through which something moved that is still there stays, and so do directories that
//! have been in each other.
//!
//! While others use the pool, only what is gone from the plan of the log's first entries becomes
//! void ([`Dead::released`]): those whose removals everybody has released.

use std::collections::{BTreeMap, HashMap};

use zerocopy::transmute;

use crate::format::extension::{
    AttrBody, GroupBody, LinkBody, MoveBody, NO_ENTRY, NameBody, RemoveBody,
};
use crate::format::path::RelPath;
use crate::format::references;
use crate::format::{DeleteBody, Entry, EntryKind, FileBody, MAX_PATH, MkdirBody};
use crate::replay::node::{Node, NodeKind};
use crate::replay::{Deletion, Plan};
use crate::store::log::{Log, LogError};

/// Entries of a log that a compaction makes void, and what that frees.
#[derive(Debug, Default)]
pub struct Dead {
    /// Slots of those that made something, in the order in which they may become void.
    pub made: Vec<u64>,
    /// Slots of those that have no effect once the first ones are void, in order.
    pub rest: Vec<u64>,
    /// Number of files, directories and symbolic links that they made.
    pub objects: u64,
    /// Bytes of whole units.
    pub units: u64,
    /// Bytes of pages in files of the store that stay.
    pub pages: u64,
}

/// Something that is gone.
#[derive(Default)]
struct Gone {
    /// Slots of the other entries about it.
    rest: Vec<u64>,
    /// Slots of what is gone too and has to wait for it: directories that its entries name, and
    /// what took its place.
    waiting: Vec<u64>,
}

/// What is known of the entries read so far.
struct Reader<'p> {
    plan: &'p Plan,
    deletions: HashMap<u64, &'p Deletion>,
    gone: BTreeMap<u64, Gone>,
    /// For how many entries of others something that is gone has to wait.
    awaited: HashMap<u64, u64>,
    /// What removed links are names of.
    links: HashMap<u64, u64>,
    /// Slots of conventional directories that are gone, by their path at this point of the log.
    dirs: HashMap<RelPath, u64>,
    /// Slot and last slot of each group.
    groups: Vec<(u64, u64)>,
}

/// What of it to find.
#[derive(Clone, Copy)]
enum Scope<'i> {
    All,
    /// No files of the store; and these entries without effect.
    Released(&'i [u64]),
    /// Only files of the store that hold nothing, not even of removed files.
    Store,
}

impl Dead {
    /// Finds what is dead in a log, as far as the plan has read it.
    pub fn of(log: &Log<'_>, plan: &Plan) -> Result<Self, LogError> {
        Self::find(log, plan, Scope::All)
    }

    /// What is dead in a plan of the first entries of a log, without files of the store, which
    /// later entries may use. `idle` are entries that have no effect in the whole log.
    pub(super) fn released(log: &Log<'_>, plan: &Plan, idle: &[u64]) -> Result<Self, LogError> {
        Self::find(log, plan, Scope::Released(idle))
    }

    /// The files of the store that hold nothing, not even of removed files.
    pub(super) fn in_store(log: &Log<'_>, plan: &Plan) -> Result<Self, LogError> {
        Self::find(log, plan, Scope::Store)
    }

    fn find(log: &Log<'_>, plan: &Plan, scope: Scope<'_>) -> Result<Self, LogError> {
        let nothing = plan.deletions_since(0).is_empty()
            && plan.idle().is_empty()
            && matches!(scope, Scope::All | Scope::Store | Scope::Released([]))
            && plan.voids().is_empty()
            && plan.tree().is_whole();
        if nothing || plan.unmarked > 0 {
            return Ok(Self::default());
        }
        let mut reader = Reader {
            plan,
            deletions: plan.deletions_since(0).iter().map(|d| (d.node.slot, d)).collect(),
            gone: BTreeMap::new(),
            awaited: HashMap::new(),
            links: HashMap::new(),
            dirs: HashMap::new(),
            groups: Vec::new(),
        };
        let read = usize::try_from(plan.next_slot()).unwrap_or(usize::MAX);
        for entry in log.entries_from(0).take(read) {
            let (slot, entry) = entry?;
            reader.add(slot, &entry);
        }
        Ok(reader.dead(scope))
    }
}

impl<'p> Reader<'p> {
    fn add(&mut self, slot: u64, entry: &Entry) {
        let refused = self.plan.refused.binary_search_by_key(&slot, |error| error.slot).is_ok();
        if refused || self.plan.is_void(slot) {
            return;
        }
        let Some(kind) = EntryKind::of(entry) else { return };
        match kind {
            EntryKind::File => {
                let body: FileBody = transmute!(entry.body);
                self.conventional(slot, &body.path, false);
            }
            EntryKind::Mkdir => {
                let body: MkdirBody = transmute!(entry.body);
                self.conventional(slot, &body.path, true);
            }
            EntryKind::Delete => {
                let body: DeleteBody = transmute!(entry.body);
                self.about(slot, body.slot.get(), None);
            }
            EntryKind::Daxdev | EntryKind::Void => {}
            _ if self.plan.has_extensions() => self.extension(slot, kind, entry),
            _ => {}
        }
    }

    fn extension(&mut self, slot: u64, kind: EntryKind, entry: &Entry) {
        match kind {
            EntryKind::Name => {
                let body: NameBody = transmute!(entry.body);
                self.about(slot, slot, Some(body.parent.get()));
                if let Some(gone) = self.gone.get_mut(&slot) {
                    gone.rest.extend(slot.saturating_sub(references::lists_of(&body).0)..slot);
                }
            }
            EntryKind::Link => {
                let body: LinkBody = transmute!(entry.body);
                let object = body.target.get();
                if self.plan.tree().name(slot).is_none() {
                    self.links.insert(slot, object);
                }
                self.about(slot, object, Some(body.parent.get()));
            }
            EntryKind::Attr => {
                let body: AttrBody = transmute!(entry.body);
                self.about(slot, body.target.get(), None);
            }
            EntryKind::Move => {
                let body: MoveBody = transmute!(entry.body);
                let object = self.object_of(body.name_slot.get());
                self.about(slot, object, Some(body.parent.get()));
                self.replaced(body.replaces.get(), object);
            }
            EntryKind::Remove => {
                let body: RemoveBody = transmute!(entry.body);
                self.about(slot, self.object_of(body.name_slot.get()), None);
            }
            EntryKind::Group => {
                let body: GroupBody = transmute!(entry.body);
                self.groups.push((slot, slot.saturating_add(body.count.get())));
            }
            _ => {}
        }
    }

    /// An entry that made a conventional file or directory.
    fn conventional(&mut self, slot: u64, path: &[u8; MAX_PATH + 1], is_dir: bool) {
        let Ok(path) = RelPath::from_field(path) else { return };
        let parent = path.parent().and_then(|parent| self.dirs.get(&parent).copied());
        self.about(slot, slot, parent);
        if is_dir && self.gone.contains_key(&slot) {
            self.dirs.insert(path, slot);
        } else {
            self.dirs.remove(&path);
        }
    }

    /// An entry about what slot `object` made, which it may put into a directory.
    fn about(&mut self, slot: u64, object: u64, parent: Option<u64>) {
        let parent = parent.filter(|parent| self.is_gone(*parent));
        if let Some(parent) = parent {
            *self.awaited.entry(parent).or_default() += 1;
        }
        if self.is_gone(object) {
            let gone = self.gone.entry(object).or_default();
            gone.waiting.extend(parent);
            if slot != object {
                gone.rest.push(slot);
            }
        }
    }

    /// A move that took the place of the only name of something. Without it the name would be back,
    /// so what moved has to wait until the other is void.
    fn replaced(&mut self, name_slot: u64, by: u64) {
        if name_slot == NO_ENTRY || self.plan.is_void(name_slot) || !self.is_gone(by) {
            return;
        }
        let object = self.object_of(name_slot);
        if self.is_gone(object) {
            *self.awaited.entry(by).or_default() += 1;
            self.gone.entry(object).or_default().waiting.push(by);
        }
    }

    /// Slot of what a name is or was a name of.
    fn object_of(&self, name_slot: u64) -> u64 {
        let name = self.plan.tree().name(name_slot).map(|name| name.object);
        name.or_else(|| self.links.get(&name_slot).copied()).unwrap_or(name_slot)
    }

    /// Whether what a slot made is gone, or is a file of the store that holds nothing.
    fn is_gone(&self, slot: u64) -> bool {
        if self.plan.tree().object(slot).is_some() {
            return false;
        }
        match self.plan.node(slot).filter(|node| self.plan.is_in_store(&node.path)) {
            Some(Node { kind: NodeKind::Dir, .. }) => false,
            Some(Node { kind: NodeKind::File { .. }, .. }) => self.plan.tree().is_unused(slot),
            None => true,
        }
    }

    /// The conventional file or directory that a slot made, deleted or not.
    fn node(&self, slot: u64) -> Option<&'p Node> {
        self.deletions.get(&slot).map(|deletion| &deletion.node).or_else(|| self.plan.node(slot))
    }

    fn is_in_store(&self, slot: u64) -> bool {
        self.node(slot).is_some_and(|node| self.plan.is_in_store(&node.path))
    }

    fn dead(mut self, scope: Scope<'_>) -> Dead {
        let mut dead = Dead { pages: self.plan.tree().reusable_pages(), ..Dead::default() };
        let rounds: &[bool] = match scope {
            // Files of the store go when nothing has pages in them any more.
            Scope::All => &[false, true],
            Scope::Released(_) => &[false],
            Scope::Store => &[true],
        };
        for &store in rounds {
            let stays =
                |slot: u64| matches!(scope, Scope::Store) && !self.plan.tree().is_idle_store(slot);
            let free = |slot: &u64| {
                !self.awaited.contains_key(slot)
                    && self.is_in_store(*slot) == store
                    && !stays(*slot)
            };
            let mut next: Vec<u64> = self.gone.keys().copied().filter(free).collect();
            while let Some(slot) = next.pop() {
                let Some(gone) = self.gone.remove(&slot) else { continue };
                dead.made.push(slot);
                dead.rest.extend(gone.rest);
                for waiting in gone.waiting {
                    if let Some(awaited) = self.awaited.get_mut(&waiting) {
                        *awaited -= 1;
                        if *awaited == 0 {
                            self.awaited.remove(&waiting);
                            next.push(waiting);
                        }
                    }
                }
            }
        }
        for slot in &dead.made {
            let node = self.node(*slot);
            if let Some(Node { kind: NodeKind::File { map, .. }, .. }) = node {
                dead.units += map.extents().iter().map(|extent| extent.len).sum::<u64>();
            }
            dead.objects +=
                u64::from(!self.is_in_store(*slot) || self.deletions.contains_key(slot));
        }
        match scope {
            Scope::All => dead.rest.extend(self.plan.idle()),
            Scope::Released(idle) => dead.rest.extend(idle),
            Scope::Store => {}
        }
        // A group with a void entry was whole once. Its head must not wait for entries that are
        // given back with the end of the log.
        let mut void = [self.plan.voids(), &dead.made, &dead.rest].concat();
        void.sort_unstable();
        for (head, last) in self.groups {
            let first = void.partition_point(|slot| *slot <= head);
            if void.get(first).is_some_and(|slot| *slot <= last) {
                dead.rest.push(head);
            }
        }
        dead.rest.sort_unstable();
        dead
    }
}
