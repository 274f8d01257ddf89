// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The names of a tree in the order of their paths.

use std::convert::Infallible;

use serde::Serialize;

use super::Tree;
use super::object::{Name, Object, ObjectKind};
use crate::format::extension::NO_ENTRY;
use crate::format::path::RelPath;

/// A name of a list.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'t> {
    /// Slot of the name.
    pub slot: u64,
    /// The name.
    pub name: &'t Name,
    /// What it names.
    pub object: &'t Object,
}

/// A path, and what is there.
#[derive(Clone, Debug)]
pub struct Entry<'t> {
    /// The path.
    pub path: RelPath,
    /// What it names.
    pub listed: Listed<'t>,
}

/// What a tree adds up to, conventional files and directories included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Extension entries that count.
    pub entries: u64,
    /// Names; a file has one for each hard link.
    pub names: u64,
    /// Files.
    pub files: u64,
    /// Directories without the root.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Sum of the files' sizes in bytes.
    pub file_bytes: u64,
    /// Bytes that they take, without their holes.
    pub allocated: u64,
}

impl Tree {
    /// Adds it all up.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { entries: self.extended, ..Counts::default() };
        counts.names = self.names.len() as u64;
        for (_, object) in self.objects.iter() {
            match &object.kind {
                ObjectKind::Dir { .. } => counts.directories += 1,
                ObjectKind::Symlink { .. } => counts.symlinks += 1,
                ObjectKind::File { size, bytes } => {
                    counts.files += 1;
                    counts.file_bytes = counts.file_bytes.saturating_add(*size);
                    counts.allocated += self.allocated(bytes);
                }
            }
        }
        counts
    }

    /// Calls `each` with every path below a directory, relative to it: a directory before what is
    /// in it, names in the order of their bytes. An error of it ends the walk.
    pub fn walk<'t, E>(
        &'t self,
        dir: u64,
        mut each: impl FnMut(&[u8], Listed<'t>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut names: Vec<(u64, &Name)> = self.names.iter().collect();
        names.sort_unstable_by_key(|(_, name)| (name.parent, &name.component));
        let children = |parent: u64| {
            let start = names.partition_point(|(_, name)| name.parent < parent);
            let end = names.partition_point(|(_, name)| name.parent <= parent);
            start..end
        };
        let mut path = Vec::new();
        // What is left of each open directory, with the length of the path to it.
        let mut open = vec![(children(dir), 0)];
        while let Some((left, len)) = open.last_mut() {
            path.truncate(*len);
            let Some(index) = left.next() else {
                open.pop();
                continue;
            };
            let (slot, name) = names[index];
            let Some(object) = self.object(name.object) else { continue };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.component.as_bytes());
            each(&path, Listed { slot, name, object })?;
            if matches!(object.kind, ObjectKind::Dir { .. }) {
                open.push((children(name.object), path.len()));
            }
        }
        Ok(())
    }

    /// What is at a path, and everything below it, in the order of [`Tree::walk`]; of the root only
    /// what is below it. Symbolic links are not followed. Empty if there is nothing.
    pub fn at_and_below(&self, path: Option<&RelPath>) -> Vec<Entry<'_>> {
        let (mut entries, mut top, mut dir) = (Vec::new(), Vec::new(), NO_ENTRY);
        if let Some(path) = path {
            let Some(listed) = self.get(path) else { return entries };
            entries.push(Entry { path: path.clone(), listed });
            if !matches!(listed.object.kind, ObjectKind::Dir { .. }) {
                return entries;
            }
            top = [path.as_bytes(), b"/"].concat();
            dir = listed.name.object;
        }
        let Ok(()) = self.walk(dir, |below, listed| {
            // A tree has no longer paths, and no name that a path cannot have.
            if let Ok(path) = RelPath::new(&[&top, below].concat()) {
                entries.push(Entry { path, listed });
            }
            Ok::<(), Infallible>(())
        });
        entries
    }

    /// Slot of the name at a path, given by its components below the root.
    pub fn look_up(&self, path: &[u8]) -> Option<u64> {
        let (mut dir, mut found) = (NO_ENTRY, None);
        for part in path.split(|&byte| byte == b'/') {
            let slot = self.names.find(dir, part)?;
            (dir, found) = (self.name(slot)?.object, Some(slot));
        }
        found
    }

    /// What is at a path. Symbolic links are not followed.
    pub fn get(&self, path: &RelPath) -> Option<Listed<'_>> {
        self.listed(self.look_up(path.as_bytes())?)
    }

    /// The name that a slot made, and what it names.
    pub fn listed(&self, slot: u64) -> Option<Listed<'_>> {
        let name = self.name(slot)?;
        Some(Listed { slot, name, object: self.object(name.object)? })
    }
}
