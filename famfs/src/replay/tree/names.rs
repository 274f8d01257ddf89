// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names by the slot that made them, by directory and component, and by what they name.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::by_slot::BySlot;
use super::object::Name;

/// Names in both orders. The hashers have random keys: whoever writes a log cannot choose names
/// that collide.
#[derive(Debug, Default)]
pub struct Names {
    by_slot: BySlot<Name>,
    by_place: HashTable<Place>,
    /// For objects with hard links: the slots of the names that another slot made than the object.
    links: HashMap<u64, BTreeSet<u64>>,
    hasher: RandomState,
}

/// Hash of directory and component, and slot, of a name. The name stays where it is; the hash is
/// kept so that growing touches no name. Twelve bytes, because there is one for each name.
#[derive(Clone, Copy, Debug)]
struct Place {
    hash: [u8; 4],
    slot: [u8; 8],
}

impl Place {
    fn new(hash: u64, slot: u64) -> Self {
        let [a, b, c, d, ..] = hash.to_le_bytes();
        Self { hash: [a, b, c, d], slot: slot.to_le_bytes() }
    }

    fn slot(self) -> u64 {
        u64::from_le_bytes(self.slot)
    }

    /// The hash with which the table works, from the part of it that is kept. The table looks at
    /// both ends.
    fn hash(self) -> u64 {
        let hash = u64::from(u32::from_le_bytes(self.hash));
        hash << 32 | hash
    }
}

impl Names {
    /// The name that a slot made.
    pub fn get(&self, slot: u64) -> Option<&Name> {
        self.by_slot.get(slot)
    }

    /// Slot of the name in a directory.
    pub fn find(&self, parent: u64, component: &[u8]) -> Option<u64> {
        let wanted = self.place(parent, component, 0);
        let found = self.by_place.find(wanted.hash(), |place| {
            place.hash == wanted.hash && self.is_at(place.slot(), parent, component)
        })?;
        Some(found.slot())
    }

    /// Adds a name whose slot and place are free.
    pub fn insert(&mut self, slot: u64, name: Name) {
        let place = self.place(name.parent, name.component.as_bytes(), slot);
        self.by_place.insert_unique(place.hash(), place, |place| place.hash());
        if name.object != slot {
            self.links.entry(name.object).or_default().insert(slot);
        }
        self.by_slot.insert(slot, name);
    }

    /// Takes a name out.
    pub fn remove(&mut self, slot: u64) -> Option<Name> {
        let name = self.by_slot.remove(slot)?;
        let place = self.place(name.parent, name.component.as_bytes(), slot);
        if let Ok(found) = self.by_place.find_entry(place.hash(), |found| found.slot() == slot) {
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

    fn place(&self, parent: u64, component: &[u8], slot: u64) -> Place {
        Place::new(self.hasher.hash_one((parent, component)), slot)
    }

    fn is_at(&self, slot: u64, parent: u64, component: &[u8]) -> bool {
        let name = self.by_slot.get(slot);
        name.is_some_and(|name| name.parent == parent && name.component.as_bytes() == component)
    }
}
