// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What stands at the targets of a copy, and what is to be changed of it.

use std::collections::{HashMap, HashSet};

use crate::format::map::Memory;
use crate::format::path::RelPath;
use crate::replay::tree::Tree;
use crate::replay::tree::list::Listed;
use crate::replay::tree::object::{Object, ObjectKind};
use crate::replay::{Attributes, EntryProblem, Owner};
use crate::text::terminal::escape_name;
use crate::write::change::NewAttributes;
use crate::write::sources::{Item, What};
use crate::write::writer::WriteError;

/// What is at an item's target.
pub(super) enum Found {
    /// Nothing.
    New,
    /// A file of the same size.
    File(Memory),
    /// The same directory, symbolic link or hard link.
    Same,
    /// A file or link whose place the item takes.
    InPlaceOf,
}

/// Targets that were looked at.
pub(super) struct Targets<'t> {
    tree: &'t Tree,
    /// What the targets have when the copy is done with them.
    seen: HashMap<RelPath, Attributes>,
    /// Slots of the existing files that the copy writes to.
    written: HashSet<u64>,
    /// Whether items may take the place of files and links.
    replace: bool,
    /// The paths where they do.
    replaced: HashSet<RelPath>,
}

impl<'t> Targets<'t> {
    pub fn new(tree: &'t Tree, replace: bool) -> Self {
        let (seen, written, replaced) = (HashMap::new(), HashSet::new(), HashSet::new());
        Self { tree, seen, written, replace, replaced }
    }

    /// Notes that an item takes the place of what is at its target.
    pub fn replaces(&mut self, path: &RelPath) {
        self.replaced.insert(path.clone());
    }

    /// What is at a target, and the attributes that it has; the reason if the item cannot go there.
    pub fn look(&mut self, item: &Item) -> Result<(Found, Option<Attributes>), String> {
        let path = &item.path;
        let listed = self.tree.get(path);
        let before = listed.as_ref().map(|listed| attributes(listed.object));
        let seen = self.seen.insert(path.clone(), item.attributes);
        match (seen, &item.what) {
            (None, _) => {}
            // Directories of several sources become one.
            (Some(seen), What::Dir) => return Ok((Found::Same, Some(seen))),
            (Some(_), _) => return Err("another source has the same target".to_owned()),
        }
        let Some(listed) = listed else { return Ok((Found::New, None)) };
        let found = match (&listed.object.kind, &item.what) {
            (ObjectKind::Dir { .. }, What::Dir) => Found::Same,
            (ObjectKind::Symlink { target: there }, What::Symlink(wanted)) if there == wanted => {
                Found::Same
            }
            (ObjectKind::File { .. }, What::Link(first)) => {
                let of_first = self.tree.get(first).map(|listed| listed.name.object);
                let same = of_first == Some(listed.name.object) && !self.replaced.contains(first);
                if !same && !self.replace {
                    return Err(format!(
                        "\"{path}\" exists and is not another name of \"{first}\""
                    ));
                }
                if same { Found::Same } else { Found::InPlaceOf }
            }
            (ObjectKind::File { size, bytes }, What::File(layout)) if *size == layout.size() => {
                match self.written.insert(listed.name.object) {
                    true => Found::File(self.tree.memory(bytes, *size)),
                    false if self.replace => Found::InPlaceOf,
                    false => {
                        return Err(format!(
                            "\"{path}\" exists as another name of a file that another source \
                             replaces"
                        ));
                    }
                }
            }
            (ObjectKind::Dir { .. }, _) | (_, What::Dir) => {
                return Err(in_the_way(path, &listed, &item.what));
            }
            _ if self.replace => Found::InPlaceOf,
            _ => return Err(in_the_way(path, &listed, &item.what)),
        };
        Ok((found, before))
    }

    /// Refuses an item whose directory neither exists nor is part of this copy.
    pub fn check_parent(&self, item: &Item) -> Result<(), WriteError> {
        let Some(parent) = item.path.parent() else { return Ok(()) };
        if self.seen.contains_key(&parent) {
            return Ok(());
        }
        let source = match self.tree.get(&parent).map(|listed| listed.object) {
            Some(Object { kind: ObjectKind::Dir { .. }, .. }) => return Ok(()),
            Some(object) => EntryProblem::NoDirectory { path: parent, kind: object.kind_name() },
            None => EntryProblem::NoParent(parent),
        };
        Err(WriteError::Path { path: item.path.clone(), source })
    }
}

fn attributes(object: &Object) -> Attributes {
    Attributes { owner: object.owner, mtime: object.mtime }
}

/// Why an item cannot have its target.
pub(super) fn in_the_way(path: &RelPath, there: &Listed<'_>, wanted: &What) -> String {
    match (&there.object.kind, wanted) {
        (ObjectKind::File { size, .. }, What::File(layout)) => {
            format!("\"{path}\" exists with {size} bytes, not {}", layout.size())
        }
        (ObjectKind::Symlink { target }, What::Symlink(wanted)) => {
            let [target, wanted] = [target, wanted].map(|target| escape_name(target));
            format!("\"{path}\" is a symbolic link to \"{target}\", not to \"{wanted}\"")
        }
        (_, What::Dir) => format!("\"{path}\" is a {}, not a directory", there.object.kind_name()),
        _ => format!("\"{path}\" is a {}", there.object.kind_name()),
    }
}

/// What is to be changed of attributes, so that they are the wanted ones.
pub(super) fn differing(found: &Attributes, wanted: &Attributes) -> NewAttributes {
    let Owner { uid, gid, mode } = wanted.owner;
    NewAttributes {
        mode: (found.owner.mode != mode).then_some(mode),
        uid: (found.owner.uid != uid).then_some(uid),
        gid: (found.owner.gid != gid).then_some(gid),
        mtime: wanted.mtime.filter(|time| found.mtime != Some(*time)),
    }
}

/// The mode of an existing file while its bytes are replaced: nobody may read the new bytes who may
/// not in the end, nor the old ones who might not before. `None` if it can stay.
pub(super) fn interim_mode(found: Owner, new: &NewAttributes) -> Option<u32> {
    let mode = match (new.uid, new.gid) {
        (None, None) => found.mode & new.mode.unwrap_or(found.mode),
        _ => 0,
    };
    (mode != found.mode).then_some(mode)
}
