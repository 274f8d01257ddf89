// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Things by the slot of the entry that made them.

/// A map from slots. Slots come in order and leave few gaps, so it is an array: it takes memory for
/// every slot up to the last one, which is never more than a few times what the log itself takes.
#[derive(Debug)]
pub struct BySlot<T> {
    items: Vec<Option<T>>,
    len: usize,
}

impl<T> Default for BySlot<T> {
    fn default() -> Self {
        Self { items: Vec::new(), len: 0 }
    }
}

impl<T> BySlot<T> {
    /// Number of things.
    pub fn len(&self) -> usize {
        self.len
    }

    /// What a slot made.
    pub fn get(&self, slot: u64) -> Option<&T> {
        self.items.get(index(slot)).and_then(Option::as_ref)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, slot: u64) -> Option<&mut T> {
        self.items.get_mut(index(slot)).and_then(Option::as_mut)
    }

    /// Adds what a slot of the log made.
    pub fn insert(&mut self, slot: u64, item: T) {
        let index = index(slot);
        if index >= self.items.len() {
            self.items.resize_with(index + 1, || None);
        }
        self.len += usize::from(self.items[index].replace(item).is_none());
    }

    /// Takes out what a slot made.
    pub fn remove(&mut self, slot: u64) -> Option<T> {
        let item = self.items.get_mut(index(slot))?.take();
        self.len -= usize::from(item.is_some());
        item
    }

    /// All of them with their slots, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        (0..).zip(&self.items).filter_map(|(slot, item)| Some((slot, item.as_ref()?)))
    }
}

/// No item has a larger index than an array can have.
fn index(slot: u64) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_and_go() {
        let mut map = BySlot::default();
        map.insert(3, 'c');
        map.insert(1, 'a');
        assert_eq!(map.iter().collect::<Vec<_>>(), [(1, &'a'), (3, &'c')]);
        assert_eq!((map.get(2), map.get(u64::MAX)), (None, None));
        assert_eq!(map.remove(9), None);
        assert_eq!((map.remove(1), map.remove(1), map.len()), (Some('a'), None, 1));
    }
}
