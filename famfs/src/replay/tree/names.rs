// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names by the slot that made them, by directory and component, and by what they name.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::by_slot::BySlot;
use super::object::Name;
use crate::format::component::Component;

/// Names in both orders. The hashers have random keys: whoever writes a log cannot choose names
/// that collide.
#[derive(Debug, Default)]
pub struct Names {
    by_slot: BySlot<Name>,
    /// Hash of directory and component, and slot, of each; the names stay where they are.
    by_place: HashTable<(u64, u64)>,
    /// For objects with hard links: the slots of the names that another slot made than the object.
    links: HashMap<u64, BTreeSet<u64>>,
    hasher: RandomState,
}

impl Names {
    /// The name that a slot made.
    pub fn get(&self, slot: u64) -> Option<&Name> {
        self.by_slot.get(slot)
    }

    /// Slot of the name in a directory.
    pub fn find(&self, parent: u64, component: &Component) -> Option<u64> {
        let hash = self.hasher.hash_one((parent, component));
        let found = self.by_place.find(hash, |(_, slot)| self.is_at(*slot, parent, component))?;
        Some(found.1)
    }

    /// Adds a name whose slot and place are free.
    pub fn insert(&mut self, slot: u64, name: Name) {
        let hash = self.hasher.hash_one((name.parent, &name.component));
        self.by_place.insert_unique(hash, (hash, slot), |(hash, _)| *hash);
        if name.object != slot {
            self.links.entry(name.object).or_default().insert(slot);
        }
        self.by_slot.insert(slot, name);
    }

    /// Takes a name out.
    pub fn remove(&mut self, slot: u64) -> Option<Name> {
        let name = self.by_slot.remove(slot)?;
        let hash = self.hasher.hash_one((name.parent, &name.component));
        if let Ok(found) = self.by_place.find_entry(hash, |(_, found)| *found == slot) {
            found.remove();
        }
        if let Some(links) = self.links.get_mut(&name.object) {
            links.remove(&slot);
            if links.is_empty() {
                self.links.remove(&name.object);
            }
        }
        Some(name)
    }

    /// Slots of the names of an object.
    pub fn of(&self, object: u64) -> impl Iterator<Item = u64> {
        let own = self.by_slot.get(object).is_some().then_some(object);
        own.into_iter().chain(self.links.get(&object).into_iter().flatten().copied())
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.by_slot.len()
    }

    /// All names with their slots, in the order of slots.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Name)> {
        self.by_slot.iter()
    }

    fn is_at(&self, slot: u64, parent: u64, component: &Component) -> bool {
        let name = self.by_slot.get(slot);
        name.is_some_and(|name| name.parent == parent && name.component == *component)
    }
}
