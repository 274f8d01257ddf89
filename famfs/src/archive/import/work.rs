// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the tree that archives make to what is to be done for it.
//!
//! What replaces something in the file system is made beside it under another name, and moved into
//! its place at the end: a mount shows files as soon as they are made, and a link may need what is
//! to be replaced.

use std::convert::Infallible;

use super::stage::{Dir, Kind, NewFile, ROOT, Stage};
use crate::format::component::Component;
use crate::format::path::{PathError, RelPath};
use crate::replay::tree::Tree;
use crate::replay::tree::object::ObjectKind;
use crate::replay::{Attributes, Owner};
use crate::text::terminal::escape_name;
use crate::write::change::NewAttributes;
use crate::write::dropped::Dropped;
use crate::write::writer::Writer;

/// What to do, in the order of the fields. Numbers are nodes, which come before what is in them.
pub(super) struct Work {
    stage: Stage,
    /// For each node the name under which it is made.
    made_as: Vec<Option<Box<[u8]>>>,
    /// New directories.
    pub dirs: Vec<usize>,
    /// For each new file its first name, if it has one in the end.
    pub names: Vec<Option<usize>>,
    /// New symbolic links.
    pub symlinks: Vec<usize>,
    /// Further names of files.
    pub links: Vec<(usize, Old)>,
    /// Slots of the names to delete, contents before their directory.
    pub deletions: Vec<u64>,
    /// Nodes that were made under another name.
    pub moves: Vec<usize>,
    /// Directories of the file system that get other attributes.
    pub attributes: Vec<(usize, NewAttributes)>,
    /// What is not kept.
    pub dropped: Dropped,
}

/// The file that gets another name.
#[derive(Clone, Copy)]
pub(super) enum Old {
    /// A new one.
    File(usize),
    /// One of the file system, by the slot that made it.
    Object(u64),
}

impl Work {
    /// Finds out what is to be done.
    pub fn of(stage: Stage, tree: &Tree, extensions: bool) -> Self {
        let needed = needed(&stage);
        let mut work = Self {
            made_as: vec![None; stage.nodes.len()],
            dirs: Vec::new(),
            names: vec![None; stage.files.len()],
            symlinks: Vec::new(),
            links: Vec::new(),
            deletions: Vec::new(),
            moves: Vec::new(),
            attributes: Vec::new(),
            dropped: Dropped::default(),
            stage,
        };
        for (node, needed) in needed.iter().enumerate() {
            if !needed {
                continue;
            }
            work.add(node, tree);
            work.drop_attributes(node, extensions);
        }
        work.find_deletions(tree, &needed);
        work
    }

    fn add(&mut self, node: usize, tree: &Tree) {
        match &self.stage.nodes[node].kind {
            Kind::Existing(_) => return,
            Kind::Dir(Dir { existing: Some(slot), attributes, .. }) => {
                let found = tree.object(*slot);
                if let (Some(new), Some(found)) = (attributes, found) {
                    let old = Attributes { owner: found.owner, mtime: found.mtime };
                    let change = difference(&old, new);
                    if !change.is_empty() {
                        self.attributes.push((node, change));
                    }
                }
                return;
            }
            Kind::Dir(_) => self.dirs.push(node),
            Kind::Symlink { .. } => self.symlinks.push(node),
            Kind::Link(object) => self.links.push((node, Old::Object(*object))),
            Kind::File(file) => match self.names[*file] {
                Some(_) => self.links.push((node, Old::File(*file))),
                None => self.names[*file] = Some(node),
            },
        }
        if node != ROOT && self.existing_name(node, tree).is_some() {
            self.made_as[node] = Some(self.free_name(node, tree));
            self.moves.push(node);
        }
    }

    /// Slot of the directory of the file system that a node is in.
    fn existing_dir(&self, node: usize) -> Option<u64> {
        self.stage.dir(self.stage.nodes[node].parent)?.existing
    }

    /// Slot of what the file system has at the name of a node.
    fn existing_name(&self, node: usize, tree: &Tree) -> Option<u64> {
        let name = Component::new(&self.stage.nodes[node].name).ok()?;
        tree.find(self.existing_dir(node)?, &name)
    }

    /// A name that nothing has in the directory of a node.
    fn free_name(&self, node: usize, tree: &Tree) -> Box<[u8]> {
        let dir = self.stage.nodes[node].parent;
        let emptied = self.stage.dir(dir).map_or(0, |dir| dir.emptied);
        let is_taken = |name: &[u8]| {
            let existing = self.existing_dir(node).zip(Component::new(name).ok());
            existing.is_some_and(|(dir, name)| tree.find(dir, &name).is_some())
                || self.stage.names.contains_key(&(dir, emptied, name.into()))
        };
        let names = (0..u64::MAX).map(|n| format!(".import-{node}-{n}").into_bytes());
        names.into_iter().find(|name| !is_taken(name)).unwrap_or_default().into()
    }

    /// What the file system has and the tree has no longer.
    fn find_deletions(&mut self, tree: &Tree, needed: &[bool]) {
        let mut tops = Vec::new();
        // What is replaced.
        tops.extend(self.moves.iter().filter_map(|node| self.existing_name(*node, tree)));
        let is_live = |dir: usize| dir == ROOT || needed[dir];
        for ((dir, emptied, name), node) in &self.stage.names {
            let Some(Dir { existing: Some(slot), emptied: now, .. }) = self.stage.dir(*dir) else {
                continue;
            };
            // What an emptied directory had is found below.
            if node.is_none() && *emptied == 0 && *now == 0 && is_live(*dir) {
                tops.extend(Component::new(name).ok().and_then(|name| tree.find(*slot, &name)));
            }
        }
        for dir in 0..self.stage.nodes.len() {
            if let Some(Dir { existing: Some(slot), emptied: 1.., .. }) = self.stage.dir(dir)
                && is_live(dir)
            {
                let Ok(()) = tree.walk(*slot, |_, listed| {
                    if listed.name.parent == *slot {
                        tops.push(listed.slot);
                    }
                    Ok::<(), Infallible>(())
                });
            }
        }
        tops.sort_unstable();
        tops.dedup();
        for slot in tops {
            let Some(listed) = tree.listed(slot) else { continue };
            let first = self.deletions.len();
            self.deletions.push(slot);
            if matches!(listed.object.kind, ObjectKind::Dir { .. }) {
                let Ok(()) = tree.walk(listed.name.object, |_, listed| {
                    self.deletions.push(listed.slot);
                    Ok::<(), Infallible>(())
                });
            }
            self.deletions[first..].reverse();
        }
    }

    fn drop_attributes(&mut self, node: usize, extensions: bool) {
        let found = &self.stage.nodes[node];
        let holes = match &found.kind {
            Kind::File(file) => self.stage.files[*file].map.is_some() && !extensions,
            _ => false,
        };
        let holes = holes.then_some(crate::write::dropped::Attribute::Holes);
        let lost: Vec<_> = found.lost.iter().copied().chain(holes).collect();
        let is_new = match &found.kind {
            Kind::Dir(dir) => dir.attributes.is_some(),
            Kind::Existing(_) => false,
            _ => true,
        };
        self.dropped.times += u64::from(is_new && !extensions);
        if !lost.is_empty() {
            let name = self.stage.path(node, |node| &self.stage.nodes[node].name);
            let name = name.map_or(escape_name(&found.name), |path| path.to_string());
            self.dropped.add(&name, lost);
        }
    }

    /// Number of log entries, apart from lists of pieces.
    pub fn entries(&self) -> u64 {
        let files = self.names.iter().flatten().count();
        let symlinks = self.symlinks.iter();
        let lists = symlinks.map(|node| Writer::lists_of_target(self.symlink(*node).0));
        let others = [
            self.dirs.len(),
            files,
            self.symlinks.len(),
            self.links.len(),
            self.deletions.len(),
            self.moves.len(),
            self.attributes.len(),
        ];
        others.iter().sum::<usize>() as u64 + lists.sum::<u64>()
    }

    /// Files that are made.
    pub fn files(&self) -> impl Iterator<Item = (usize, &NewFile)> {
        let all = self.stage.files.iter().enumerate();
        all.filter(|(file, _)| self.names[*file].is_some())
    }

    /// A file.
    pub fn file(&self, file: usize) -> &NewFile {
        &self.stage.files[file]
    }

    /// Attributes of a new directory; `implied` is the owner of one without a member.
    pub fn dir(&self, node: usize, implied: Owner) -> Attributes {
        let given = self.stage.dir(node).and_then(|dir| dir.attributes);
        given.unwrap_or(Attributes { owner: implied, mtime: None })
    }

    /// Target and attributes of a new symbolic link.
    pub fn symlink(&self, node: usize) -> (&[u8], Attributes) {
        match &self.stage.nodes[node].kind {
            Kind::Symlink { target, attributes } => (target, *attributes),
            _ => (&[], Attributes { owner: Owner { uid: 0, gid: 0, mode: 0 }, mtime: None }),
        }
    }

    /// The path under which a node is made.
    pub fn path(&self, node: usize) -> Result<RelPath, PathError> {
        let name_of = |node: usize| match &self.made_as[node] {
            Some(name) => &**name,
            None => &*self.stage.nodes[node].name,
        };
        self.stage.path(node, name_of)
    }

    /// The path of a node in the end. What is above it has its own name already.
    pub fn last_path(&self, node: usize) -> Result<RelPath, PathError> {
        self.stage.path(node, |node| &self.stage.nodes[node].name)
    }
}

/// Which nodes are there in the end, and have a reason to be: they or something below them have a
/// member.
fn needed(stage: &Stage) -> Vec<bool> {
    let mut live = vec![true; stage.nodes.len()];
    for (index, node) in stage.nodes.iter().enumerate().skip(1) {
        let emptied = stage.dir(node.parent).map_or(0, |dir| dir.emptied);
        let found = stage.names.get(&(node.parent, emptied, node.name.clone()));
        live[index] = live[node.parent] && found == Some(&Some(index));
    }
    let mut needed = vec![false; stage.nodes.len()];
    for (index, node) in stage.nodes.iter().enumerate().skip(1).rev() {
        let has_reason = match &node.kind {
            Kind::Dir(dir) => dir.attributes.is_some() || dir.existing.is_some(),
            _ => true,
        };
        needed[index] = live[index] && (needed[index] || has_reason);
        if needed[index] {
            needed[node.parent] = true;
        }
    }
    needed[ROOT] = true;
    needed
}

/// What is to be changed of attributes.
fn difference(old: &Attributes, new: &Attributes) -> NewAttributes {
    let changed = |old, new| (old != new).then_some(new);
    NewAttributes {
        mode: changed(old.owner.mode, new.owner.mode),
        uid: changed(old.owner.uid, new.owner.uid),
        gid: changed(old.owner.gid, new.owner.gid),
        mtime: new.mtime.filter(|new| old.mtime != Some(*new)),
    }
}
