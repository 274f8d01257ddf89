// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes what is missing of a tree, in one walk: a directory before what is in it, each name in its
//! open directory.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use rustix::fs::{AtFlags, Stat};

use crate::format::extension::NO_ENTRY;
use crate::format::path::{PathError, RelPath};
use crate::kernel::apply::{Appeared, Applied, ApplyError};
use crate::kernel::group::replace;
use crate::kernel::safe_links::leads_out;
use crate::kernel::target::{Dir, Found, Target, describe, set_time};
use crate::replay::Time;
use crate::replay::tree::Tree;
use crate::replay::tree::list::Listed;
use crate::replay::tree::object::{Object, ObjectKind};

/// Most directories of a path that are kept open; in a deeper one some are opened again.
const MAX_OPEN: usize = 64;

/// How to make a tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// Nothing is made, only found out.
    pub dry_run: bool,
    /// Nothing is there yet, so that nothing is looked at before it is made.
    pub fresh: bool,
    /// What exists gets the attributes of the log too.
    pub exact: bool,
    /// Symbolic links that lead out of the tree are left out.
    pub safe_links: bool,
    /// What entries from this slot on made or moved takes the place of what else is there: whoever
    /// played them was killed.
    pub unplayed: Option<u64>,
}

/// Makes what is missing of a tree. What cannot be made keeps nothing back but what is below it.
/// `each` gets what is made, or with `dry_run` would be.
pub fn grow(
    target: &Target<'_>,
    tree: &Tree,
    how: How,
    each: &mut dyn FnMut(Appeared<'_>),
) -> Applied {
    let root = Level { object: NO_ENTRY, path: None, state: State::Closed, mtime: None };
    let (applied, firsts) = (Applied::default(), HashMap::new());
    let mut walk = Walk { target, tree, how, each, applied, open: vec![root], firsts };
    if let Some(root) = tree.object(NO_ENTRY).filter(|_| how.exact && !how.dry_run) {
        if let Err(err) = target.set_root(root) {
            walk.applied.errors.push(ApplyError::Root(err));
        }
        walk.open[0].mtime = root.mtime;
    }
    // It cannot fail: a tree has only paths that are paths.
    let _ = tree.walk(NO_ENTRY, |path, listed| {
        walk.visit(RelPath::new(path)?, listed);
        Ok::<(), PathError>(())
    });
    while !walk.open.is_empty() {
        walk.leave();
    }
    walk.applied
}

/// A directory on the way to the current name.
struct Level {
    object: u64,
    /// `None` is the root.
    path: Option<RelPath>,
    state: State,
    mtime: Option<Time>,
}

#[derive(Clone)]
enum State {
    Open(Rc<Dir>),
    /// It is there.
    Closed,
    /// It would be made.
    Absent,
    /// It could not be made, and so nothing below it.
    Failed,
}

/// The first name of a file that has several.
struct First {
    path: RelPath,
    /// Slot of its directory.
    parent: u64,
    /// Device and inode, if it was there before.
    identity: Option<(u64, u64)>,
}

struct Walk<'a> {
    target: &'a Target<'a>,
    tree: &'a Tree,
    how: How,
    each: &'a mut dyn FnMut(Appeared<'_>),
    applied: Applied,
    open: Vec<Level>,
    /// By object.
    firsts: HashMap<u64, First>,
}

impl Walk<'_> {
    fn visit(&mut self, path: RelPath, listed: Listed<'_>) {
        while self.open.last().is_some_and(|level| level.object != listed.name.parent) {
            self.leave();
        }
        let state = match self.open.last().map(|level| level.state.clone()) {
            None | Some(State::Failed) => State::Failed,
            Some(State::Absent) => {
                self.made(&path, listed);
                State::Absent
            }
            Some(State::Open(_) | State::Closed) => {
                self.place(&path, listed).unwrap_or_else(|err| {
                    self.applied.errors.push(err);
                    State::Failed
                })
            }
        };
        if matches!(listed.object.kind, ObjectKind::Dir { .. }) {
            let (object, mtime) = (listed.name.object, listed.object.mtime);
            self.open.push(Level { object, path: Some(path), state, mtime });
            if let Some(far) = self.open.len().checked_sub(MAX_OPEN)
                && let State::Open(_) = self.open[far].state
            {
                self.open[far].state = State::Closed;
            }
        }
    }

    /// The innermost directory.
    fn dir(&mut self) -> io::Result<Rc<Dir>> {
        let outer = self.open.len().checked_sub(2).map(|outer| self.open[outer].state.clone());
        let Some(level) = self.open.last_mut() else { return Ok(Rc::new(self.target.open(None)?)) };
        if let State::Open(dir) = &level.state {
            return Ok(dir.clone());
        }
        let dir = Rc::new(match (outer, &level.path) {
            (Some(State::Open(outer)), Some(path)) => self.target.enter(&outer, path.name())?,
            (_, path) => self.target.open(path.as_ref())?,
        });
        level.state = State::Open(dir.clone());
        Ok(dir)
    }

    /// Sees to one name in the innermost directory; returns the state of what is there.
    fn place(&mut self, path: &RelPath, listed: Listed<'_>) -> Result<State, ApplyError> {
        let Listed { slot, object, .. } = listed;
        let error = |action| {
            move |source: io::Error| {
                let path = path.clone();
                ApplyError::System { action, path, slot: Some(slot), source }
            }
        };
        let dir = self.dir().map_err(error("open the directory of"))?;
        let name = path.name();
        if self.how.safe_links && leads_out(path, object) {
            self.applied.unsafe_links.push(path.clone());
            let found = self.target.examine(&dir, name, self.tree, object);
            if !self.how.dry_run && matches!(found.map_err(error("examine"))?, Found::Same(_)) {
                let removed = rustix::fs::unlinkat(&*dir, name, AtFlags::empty());
                removed.map_err(|err| error("remove")(err.into()))?;
            }
            return Ok(State::Closed);
        }
        let mut look = !self.how.fresh;
        loop {
            if look && let Some(state) = self.existing(&dir, path, listed)? {
                return Ok(state);
            }
            if look {
                self.find_another(listed);
            }
            if self.how.dry_run {
                self.made(path, listed);
                return Ok(State::Absent);
            }
            let made = match self.firsts.get(&listed.name.object) {
                Some(first) => self.link(&dir, name, Some(listed.name.parent), first),
                None => self.target.make(&dir, name, self.tree, object),
            };
            match made {
                Ok(()) => {
                    self.made(path, listed);
                    return Ok(State::Closed);
                }
                // Somebody was faster.
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists && !look => look = true,
                Err(err) => return Err(error("make")(err)),
            }
        }
    }

    /// Compares what exists with what should; `None` if it is still to be made.
    fn existing(
        &mut self,
        dir: &Dir,
        path: &RelPath,
        listed: Listed<'_>,
    ) -> Result<Option<State>, ApplyError> {
        let Listed { slot, object, .. } = listed;
        let error = |action, source| {
            let path = path.clone();
            ApplyError::System { action, path, slot: Some(slot), source }
        };
        let found = self
            .target
            .examine(dir, path.name(), self.tree, object)
            .map_err(|err| error("examine", err))?;
        match found {
            Found::OtherMemory | Found::Other(_) if self.is_unplayed(slot) => {
                self.find_another(listed);
                self.replace(path, listed).map(Some)
            }
            Found::Missing => Ok(None),
            Found::Stub => {
                if !self.how.dry_run {
                    rustix::fs::unlinkat(dir, path.name(), AtFlags::empty())
                        .map_err(|err| error("replace the incomplete", err.into()))?;
                }
                Ok(None)
            }
            Found::OtherMemory => Err(ApplyError::OtherMemory { path: path.clone(), slot }),
            Found::Other(found) => {
                let (path, expected) = (path.clone(), describe(object));
                Err(ApplyError::InTheWay { path, slot, found, expected })
            }
            Found::Same(stat) => {
                if !self.is_linked(path, listed, &stat)? {
                    return self.replace(path, listed).map(Some);
                }
                self.applied.existed += 1;
                if self.how.exact && !self.how.dry_run {
                    self.target
                        .set_attributes(dir, path.name(), object, &stat)
                        .map_err(|err| error("set the attributes of", err))?;
                }
                Ok(Some(State::Closed))
            }
        }
    }

    /// Whether what is at a name may be of before the entry that put there what should be.
    fn is_unplayed(&self, name_slot: u64) -> bool {
        self.how.unplayed.is_some_and(|first| self.tree.placed_by(name_slot) >= first)
    }

    /// Has what a name should be take the place of what is there.
    fn replace(&mut self, path: &RelPath, listed: Listed<'_>) -> Result<State, ApplyError> {
        let Listed { slot, object, .. } = listed;
        if !self.how.dry_run {
            let make = |aside: &Dir, name: &[u8]| match self.firsts.get(&listed.name.object) {
                Some(first) => self.link(aside, name, None, first),
                None => self.target.make(aside, name, self.tree, object),
            };
            replace(self.target, path, slot, make).map_err(|source| {
                let path = path.clone();
                ApplyError::System { action: "replace", path, slot: Some(slot), source }
            })?;
        }
        self.made(path, listed);
        Ok(if self.how.dry_run { State::Absent } else { State::Closed })
    }

    /// Whether what is at a name is also at the other names of its file. If not, that is an error,
    /// unless it may be another file of before.
    fn is_linked(
        &mut self,
        path: &RelPath,
        listed: Listed<'_>,
        stat: &Stat,
    ) -> Result<bool, ApplyError> {
        if self.is_unplayed(listed.slot) {
            self.find_another(listed);
        }
        let identity = Some((stat.st_dev, stat.st_ino));
        match self.firsts.get(&listed.name.object) {
            None => self.remember(path, listed, identity),
            Some(first) if first.identity == identity => {}
            Some(_) if self.is_unplayed(listed.slot) => return Ok(false),
            Some(first) => {
                let expected = format!("another name of \"{}\"", first.path);
                let found = format!("another {}", listed.object.kind_name());
                let (path, slot) = (path.clone(), listed.slot);
                return Err(ApplyError::InTheWay { path, slot, found, expected });
            }
        }
        Ok(true)
    }

    /// Looks for a name of a file that is there already, before the file is made: if there is one,
    /// for a name where no other file can be.
    fn find_another(&mut self, listed: Listed<'_>) {
        let object = listed.name.object;
        if !has_links(listed.object) || self.firsts.contains_key(&object) {
            return;
        }
        let mut names: Vec<_> = self.tree.names_of(object).collect();
        names.sort_by_key(|slot| self.is_unplayed(*slot));
        for slot in names {
            let (Some(path), Some(other)) = (self.tree.path_of(slot), self.tree.listed(slot))
            else {
                continue;
            };
            let found = self
                .target
                .open(path.parent().as_ref())
                .and_then(|dir| self.target.examine(&dir, path.name(), self.tree, other.object));
            // What is wrong with it is told when its turn comes.
            if let Ok(Found::Same(stat)) = found {
                self.remember(&path, other, Some((stat.st_dev, stat.st_ino)));
                return;
            }
        }
    }

    fn remember(&mut self, path: &RelPath, listed: Listed<'_>, identity: Option<(u64, u64)>) {
        if has_links(listed.object) {
            let first = First { path: path.clone(), parent: listed.name.parent, identity };
            self.firsts.insert(listed.name.object, first);
        }
    }

    /// Counts and reports what was made.
    fn made(&mut self, path: &RelPath, listed: Listed<'_>) {
        let Listed { slot, object, .. } = listed;
        let first = !self.firsts.contains_key(&listed.name.object);
        if first {
            self.remember(path, listed, None);
        }
        self.applied.count(object, first);
        (self.each)(Appeared { slot, path, object });
    }

    /// Makes another name of a file in a directory, which is that of a slot if there is one.
    fn link(&self, dir: &Dir, name: &[u8], parent: Option<u64>, first: &First) -> io::Result<()> {
        let old = first.path.name();
        match parent == Some(first.parent) {
            true => rustix::fs::linkat(dir, old, dir, name, AtFlags::empty())?,
            false => {
                let old_dir = self.target.root().open_parent(first.path.as_path())?;
                rustix::fs::linkat(old_dir, old, dir, name, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Goes out of the innermost directory, whose time does not change any more.
    fn leave(&mut self) {
        let Some(level) = self.open.pop() else { return };
        let there = matches!(level.state, State::Open(_) | State::Closed);
        if self.how.dry_run || level.mtime.is_none() || !there {
            return;
        }
        let set = match (&level.state, &level.path) {
            (State::Open(dir), _) => set_time(&**dir, b"", level.mtime, AtFlags::EMPTY_PATH),
            (_, Some(path)) => self.dir().and_then(|dir| {
                set_time(&*dir, path.name(), level.mtime, AtFlags::SYMLINK_NOFOLLOW)
            }),
            (_, None) => {
                let root = self.target.root();
                set_time(root, b".", level.mtime, AtFlags::empty())
            }
        };
        if let Err(source) = set {
            let slot = Some(level.object);
            self.applied.errors.push(match level.path {
                Some(path) => {
                    let action = "set the time of";
                    ApplyError::System { action, path, slot, source }
                }
                None => ApplyError::Root(source),
            });
        }
    }
}

fn has_links(object: &Object) -> bool {
    object.links > 1 && matches!(object.kind, ObjectKind::File { .. })
}
