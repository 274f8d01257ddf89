// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds those nodes by path that the tree cannot find. The paths stay in the nodes, and their
//! hashes are kept so that growing touches no path.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::format::path::RelPath;

/// Indexes of nodes, by their paths. The caller supplies the nodes, always the same ones.
///
/// The hasher has a random key, so that the writer of a log cannot choose paths that collide.
#[derive(Debug, Default)]
pub struct NameIndex {
    /// Hash and index of each.
    table: HashTable<(u64, usize)>,
    hasher: RandomState,
}

impl NameIndex {
    /// Finds the index of a path; `path_of` gives the path of an index.
    pub fn get<'n>(&self, path: &RelPath, path_of: impl Fn(usize) -> &'n RelPath) -> Option<usize> {
        let hash = self.hasher.hash_one(path);
        let found = self.table.find(hash, |(_, index)| path_of(*index) == path)?;
        Some(found.1)
    }

    /// Adds the index of a path, which must not have one yet.
    pub fn insert(&mut self, path: &RelPath, index: usize) {
        let hash = self.hasher.hash_one(path);
        self.table.insert_unique(hash, (hash, index), |(hash, _)| *hash);
    }

    /// Removes a path; returns its index.
    pub fn remove<'n>(
        &mut self,
        path: &RelPath,
        path_of: impl Fn(usize) -> &'n RelPath,
    ) -> Option<usize> {
        let hash = self.hasher.hash_one(path);
        let found = self.table.find_entry(hash, |(_, index)| path_of(*index) == path).ok()?;
        Some(found.remove().0.1)
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.table.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_added_and_not_removed() {
        let paths: Vec<RelPath> =
            (0..1000).map(|n| RelPath::new(format!("p{n}").as_bytes()).unwrap()).collect();
        let path_of = |index: usize| &paths[index];
        let mut names = NameIndex::default();
        for (index, path) in paths.iter().enumerate().take(999) {
            names.insert(path, index);
        }
        for index in (0..999).step_by(2) {
            assert_eq!(names.remove(&paths[index], path_of), Some(index));
        }
        for (index, path) in paths.iter().enumerate() {
            let expected = (index % 2 == 1 && index < 999).then_some(index);
            assert_eq!(names.get(path, path_of), expected, "{path}");
        }
        assert_eq!(names.remove(&paths[0], path_of), None);
        names.clear();
        assert_eq!(names.get(&paths[1], path_of), None);
    }
}
