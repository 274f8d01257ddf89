// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Carries out the changes of a log in a mounted tree, one by one, in order. What was done already,
//! by the writer on this machine, is no error.

use std::collections::HashSet;
use std::io;
use std::rc::Rc;

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use crate::format::extension::NO_ENTRY;
use crate::format::path::RelPath;
use crate::kernel::apply::{Appeared, Applied, ApplyError};
use crate::kernel::group::{Group, Place};
use crate::kernel::safe_links::leads_out;
use crate::kernel::target::{Dir, Found, Target, describe, set_time};
use crate::replay::tree::Tree;
use crate::replay::tree::change::Change;
use crate::replay::tree::list::Listed;
use crate::replay::tree::object::ObjectKind;

/// What is carried out of a row of changes.
#[derive(Default)]
pub struct Progress {
    /// What appeared, and what could not.
    pub applied: Applied,
    /// Symbolic links that lead out of the tree are left out.
    pub safe_links: bool,
    /// Slots of the directories whose times have changed.
    touched: HashSet<u64>,
    group: Option<Group>,
    /// The directory of the last change.
    last: Option<(Place, Rc<Dir>)>,
}

impl Progress {
    /// Nothing is carried out yet.
    pub fn new(safe_links: bool) -> Self {
        Self { safe_links, ..Self::default() }
    }

    /// Carries out what the entry of a slot has changed. `tree` is the tree right after it. `each`
    /// gets what appears.
    pub fn carry(
        &mut self,
        target: &Target<'_>,
        tree: &Tree,
        slot: u64,
        change: &Change,
        each: &mut dyn FnMut(Appeared<'_>),
    ) {
        if self.group.as_ref().is_some_and(|group| slot >= group.end()) {
            self.publish(target, tree);
        }
        let done = match change {
            Change::Made { slot, path } => self.make(target, tree, *slot, path, each),
            Change::Linked { slot, old, new } => self.link(target, tree, *slot, (old, new), each),
            Change::Attributes { object, path } => {
                self.attributes(target, tree, *object, path.as_ref())
            }
            Change::Moved { slot, from, to, replaces } => {
                self.rename(target, tree, *slot, (from, to), *replaces)
            }
            Change::Removed { path, is_dir } => self.remove(target, tree, path, *is_dir),
            Change::Group { end } => self.begin_group(target, tree, *end),
        };
        self.applied.errors.extend(done.err());
        if self.group.as_ref().is_some_and(|group| slot + 1 >= group.end()) {
            self.publish(target, tree);
        }
    }

    /// Ends a row of changes: directories get the times of the log again.
    pub fn finish(&mut self, target: &Target<'_>, tree: &Tree) {
        self.publish(target, tree);
        for slot in std::mem::take(&mut self.touched) {
            if let Err(source) = self.set_dir_time(target, tree, slot) {
                self.applied.errors.push(match tree.path_of(slot) {
                    Some(path) => system("set the time of", &path, slot)(source),
                    None => ApplyError::Root(source),
                });
            }
        }
        self.last = None;
    }

    fn set_dir_time(&mut self, target: &Target<'_>, tree: &Tree, slot: u64) -> io::Result<()> {
        let Some(object) = tree.object(slot) else { return Ok(()) };
        if object.mtime.is_none() || !matches!(object.kind, ObjectKind::Dir { .. }) {
            return Ok(());
        }
        if slot == NO_ENTRY {
            return set_time(target.root(), b".", object.mtime, AtFlags::empty());
        }
        let Some(path) = tree.path_of(slot) else { return Ok(()) };
        let (dir, name) = self.locate(target, &path)?;
        set_time(&*dir, &name, object.mtime, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// The open directory that a path's last name is in, and the name there.
    fn locate(&mut self, target: &Target<'_>, path: &RelPath) -> io::Result<(Rc<Dir>, Vec<u8>)> {
        let (place, name) = match &self.group {
            Some(group) => group.place(path),
            None => (Place::of_parent(path), path.name().to_vec()),
        };
        if let Some((last, dir)) = &self.last
            && *last == place
        {
            return Ok((dir.clone(), name));
        }
        let dir = Rc::new(place.open(target)?);
        self.last = Some((place, dir.clone()));
        Ok((dir, name))
    }

    fn make(
        &mut self,
        target: &Target<'_>,
        tree: &Tree,
        slot: u64,
        path: &RelPath,
        each: &mut dyn FnMut(Appeared<'_>),
    ) -> Result<(), ApplyError> {
        let Some(Listed { name, object, .. }) = tree.listed(slot) else { return Ok(()) };
        let error = system("make", path, slot);
        self.touched.insert(name.parent);
        if let ObjectKind::Dir { .. } = object.kind {
            self.touched.insert(name.object);
        }
        if self.safe_links && leads_out(path, object) {
            self.applied.unsafe_links.push(path.clone());
            return Ok(());
        }
        self.stage(target, tree, slot, path).map_err(&error)?;
        let (dir, at) = self.locate(target, path).map_err(&error)?;
        match target.make(&dir, &at, tree, object) {
            Ok(()) => {
                self.applied.count(object, true);
                each(Appeared { slot, path, object });
                return Ok(());
            }
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            Err(err) => return Err(error(err)),
        }
        match target.examine(&dir, &at, tree, object).map_err(&error)? {
            Found::Same(stat) => {
                self.applied.existed += 1;
                target.set_attributes(&dir, &at, object, &stat).map_err(&error)
            }
            Found::OtherMemory => Err(ApplyError::OtherMemory { path: path.clone(), slot }),
            Found::Other(found) => {
                let (path, expected) = (path.clone(), describe(object));
                Err(ApplyError::InTheWay { path, slot, found, expected })
            }
            Found::Missing | Found::Stub => Err(error(io::ErrorKind::AlreadyExists.into())),
        }
    }

    fn link(
        &mut self,
        target: &Target<'_>,
        tree: &Tree,
        slot: u64,
        (old, new): (&RelPath, &RelPath),
        each: &mut dyn FnMut(Appeared<'_>),
    ) -> Result<(), ApplyError> {
        let Some(Listed { name, object, .. }) = tree.listed(slot) else { return Ok(()) };
        let error = system("make", new, slot);
        self.touched.insert(name.parent);
        self.stage(target, tree, slot, new).map_err(&error)?;
        let (old_dir, old_at) = self.locate(target, old).map_err(&error)?;
        let (dir, at) = self.locate(target, new).map_err(&error)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match rustix::fs::linkat(&*old_dir, &*old_at, &*dir, &*at, AtFlags::empty()) {
            Ok(()) => {
                self.applied.count(object, false);
                each(Appeared { slot, path: new, object });
                return Ok(());
            }
            Err(Errno::EXIST) => {}
            Err(err) => return Err(error(err.into())),
        }
        let inode = |dir: &Dir, name: &[u8]| {
            let stat = rustix::fs::statat(dir, name, flags).map_err(|err| error(err.into()))?;
            Ok((stat.st_dev, stat.st_ino))
        };
        match inode(&old_dir, &old_at)? == inode(&dir, &at)? {
            true => {
                self.applied.existed += 1;
                Ok(())
            }
            false => Err(ApplyError::InTheWay {
                path: new.clone(),
                slot,
                found: "something else".to_owned(),
                expected: format!("another name of \"{old}\""),
            }),
        }
    }

    fn attributes(
        &mut self,
        target: &Target<'_>,
        tree: &Tree,
        slot: u64,
        path: Option<&RelPath>,
    ) -> Result<(), ApplyError> {
        let Some(object) = tree.object(slot) else { return Ok(()) };
        if let ObjectKind::Dir { .. } = object.kind {
            self.touched.insert(slot);
            // What it gives to new names changes with its group and mode.
            self.last = None;
        }
        let Some(path) = path else {
            return match slot {
                NO_ENTRY => target.set_root(object).map_err(ApplyError::Root),
                _ => Ok(()),
            };
        };
        if self.safe_links && leads_out(path, object) {
            return Ok(());
        }
        let error = system("set the attributes of", path, slot);
        let (dir, at) = self.locate(target, path).map_err(&error)?;
        let stat = rustix::fs::statat(&*dir, &*at, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|err| error(err.into()))?;
        target.set_attributes(&dir, &at, object, &stat).map_err(&error)
    }

    fn rename(
        &mut self,
        target: &Target<'_>,
        tree: &Tree,
        slot: u64,
        (from, to): (&RelPath, &RelPath),
        replaces: bool,
    ) -> Result<(), ApplyError> {
        let Some(listed) = tree.listed(slot) else { return Ok(()) };
        let error = system("move", to, slot);
        self.publish(target, tree);
        self.touch_parent(tree, from);
        self.touched.insert(listed.name.parent);
        if self.safe_links {
            self.drop_unsafe(target, tree, listed, (from, to))?;
        }
        let (from_dir, from_at) = self.locate(target, from).map_err(&error)?;
        let (dir, at) = self.locate(target, to).map_err(&error)?;
        let renamed = rename(&from_dir, &from_at, &dir, &at, replaces);
        self.last = None;
        match renamed {
            Ok(()) => {
                self.applied.moved += 1;
                Ok(())
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                match target.examine(&dir, &at, tree, listed.object).map_err(&error)? {
                    Found::Same(_) => Ok(()),
                    _ => Err(error(err)),
                }
            }
            Err(err) => Err(error(err)),
        }
    }

    /// Removes the symbolic links that will lead out of the tree when they or a directory above
    /// have moved.
    fn drop_unsafe(
        &mut self,
        target: &Target<'_>,
        tree: &Tree,
        moved: Listed<'_>,
        (from, to): (&RelPath, &RelPath),
    ) -> Result<(), ApplyError> {
        let mut found = Vec::new();
        let mut look = |rest: &[u8], listed: Listed<'_>| {
            let path = |dir: &RelPath| RelPath::new(&[dir.as_bytes(), rest].concat());
            if let (Ok(old), Ok(new)) = (path(from), path(to)) {
                match (leads_out(&old, listed.object), leads_out(&new, listed.object)) {
                    (false, true) => found.push((old, new, listed.slot)),
                    // It may appear now, which the walk through the whole tree sees to.
                    (true, false) => self
                        .applied
                        .errors
                        .push(system("make", &new, listed.slot)(io::ErrorKind::NotFound.into())),
                    _ => {}
                }
            }
        };
        look(b"", moved);
        if let ObjectKind::Dir { .. } = moved.object.kind {
            let _ = tree.walk(moved.name.object, |path, listed| {
                look(&[b"/", path].concat(), listed);
                Ok::<(), ()>(())
            });
        }
        for (old, new, slot) in found {
            let error = system("remove", &old, slot);
            let (dir, at) = self.locate(target, &old).map_err(&error)?;
            match rustix::fs::unlinkat(&*dir, &*at, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => self.applied.unsafe_links.push(new),
                Err(err) => return Err(error(err.into())),
            }
        }
        Ok(())
    }

    fn remove(
        &mut self,
        target: &Target<'_>,
        tree: &Tree,
        path: &RelPath,
        is_dir: bool,
    ) -> Result<(), ApplyError> {
        let error = |source| ApplyError::System {
            action: "remove",
            path: path.clone(),
            slot: None,
            source,
        };
        if !is_dir && self.group.as_mut().is_some_and(|group| group.keep(path)) {
            self.touch_parent(tree, path);
            return Ok(());
        }
        self.publish(target, tree);
        self.touch_parent(tree, path);
        let (dir, at) = self.locate(target, path).map_err(error)?;
        let removed = unlink(&dir, &at, is_dir);
        self.last = None;
        if removed.map_err(error)? {
            self.applied.removed += 1;
        }
        Ok(())
    }

    fn touch_parent(&mut self, tree: &Tree, path: &RelPath) {
        let dir = match path.parent() {
            None => Some(NO_ENTRY),
            Some(parent) => tree.get(&parent).map(|listed| listed.name.object),
        };
        self.touched.extend(dir);
    }

    fn begin_group(
        &mut self,
        target: &Target<'_>,
        tree: &Tree,
        end: u64,
    ) -> Result<(), ApplyError> {
        self.publish(target, tree);
        self.group = Some(Group::new(end));
        Ok(())
    }

    /// In a group, has a new name in a directory that was there before it appear at its end, also
    /// in the place of another one.
    fn stage(
        &mut self,
        target: &Target<'_>,
        tree: &Tree,
        slot: u64,
        path: &RelPath,
    ) -> io::Result<()> {
        if !self.group.as_ref().is_some_and(|group| group.is_top(path)) {
            return Ok(());
        }
        // The writer on this machine has made it.
        let (dir, at) = self.locate(target, path)?;
        let object = tree.listed(slot).map(|listed| listed.object);
        let there = object.map(|object| target.examine(&dir, &at, tree, object)).transpose()?;
        if let (Some(there), Some(group)) = (there, &mut self.group) {
            match there {
                Found::Missing => group.stage(target, slot, path)?,
                Found::Same(_) => group.stays(path),
                _ if group.is_going(path) => group.stage(target, slot, path)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Has what a group made appear.
    fn publish(&mut self, target: &Target<'_>, tree: &Tree) {
        let Some(group) = &self.group else { return };
        if group.is_used() {
            for slot in self.touched.iter().copied().collect::<Vec<_>>() {
                // It is done once more at the end.
                let _ = self.set_dir_time(target, tree, slot);
            }
        }
        self.last = None;
        if let Some(group) = self.group.take() {
            let published = group.publish(target);
            self.applied.removed += published.removed;
            self.applied.errors.extend(published.errors);
        }
    }
}

fn system<'p>(
    action: &'static str,
    path: &'p RelPath,
    slot: u64,
) -> impl Fn(io::Error) -> ApplyError + Copy + 'p {
    move |source| ApplyError::System { action, path: path.clone(), slot: Some(slot), source }
}

/// Removes a name; whether it was there.
fn unlink(dir: &Dir, name: &[u8], is_dir: bool) -> io::Result<bool> {
    let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match rustix::fs::unlinkat(dir, name, flags) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(err) => Err(err.into()),
    }
}

/// Moves a name, in place of another one or where none is.
fn rename(from: &Dir, old: &[u8], to: &Dir, new: &[u8], replaces: bool) -> io::Result<()> {
    if !replaces {
        return Ok(rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE)?);
    }
    rustix::fs::renameat(from, old, to, new)?;
    // If both names were of one file, neither is gone.
    match rustix::fs::unlinkat(from, old, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(err) => Err(err.into()),
    }
}
