// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a writing session changes of what is there: attributes, places, and that it is there.

use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use crate::format::extension::{
    AttrBody, MoveBody, NO_ENTRY, RemoveBody, SET_GID, SET_MODE, SET_MTIME, SET_UID,
};
use crate::format::path::RelPath;
use crate::format::{DeleteBody, EntryKind};
use crate::replay::EntryProblem;
use crate::replay::Time;
use crate::replay::tree::change::Change;
use crate::replay::tree::object::ObjectKind;
use crate::replay::tree::problem::TreeProblem;
use crate::write::make::{component, needs_extensions, path_error};
use crate::write::writer::{WriteError, Writer};

/// New attributes; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewAttributes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// User.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Time of the last change of the contents.
    pub mtime: Option<Time>,
}

impl NewAttributes {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Writer<'_> {
    /// Changes attributes of what is at a path, or of the root; a symbolic link is not followed.
    pub fn set_attributes(
        &mut self,
        path: Option<&RelPath>,
        new: &NewAttributes,
    ) -> Result<(), WriteError> {
        self.check_live()?;
        if new.is_empty() {
            return Ok(());
        }
        self.check_slots(1)?;
        let object = match path {
            Some(path) => self.name_at(path).map_err(|problem| change_error(path, problem))?.1,
            None => NO_ENTRY,
        };
        if !self.plan.has_extensions() {
            let (path, what) = (path.cloned(), "changes of attributes");
            return Err(WriteError::NeedsExtensions { path, what });
        }
        let mut body = AttrBody::new_zeroed();
        body.target = U64::new(object);
        let mut mask = 0;
        for (bit, value, field) in [
            (SET_MODE, new.mode, &mut body.mode),
            (SET_UID, new.uid, &mut body.uid),
            (SET_GID, new.gid, &mut body.gid),
        ] {
            if let Some(value) = value {
                mask |= bit;
                *field = U32::new(value);
            }
        }
        if let Some(time) = new.mtime {
            mask |= SET_MTIME;
            body.mtime_sec = I64::new(time.sec);
            body.mtime_nsec = U32::new(time.nsec);
        }
        body.mask = U32::new(mask);
        self.change(path, EntryKind::Attr, body.as_bytes())
    }

    /// Moves a name. What is at the new place is replaced if `replace` says so: a directory only if
    /// it is empty.
    pub fn rename(
        &mut self,
        from: &RelPath,
        to: &RelPath,
        replace: bool,
    ) -> Result<(), WriteError> {
        self.check_slots(1)?;
        let found = self.name_at(from);
        let (name, object) = found.map_err(|problem| change_error(from, problem))?;
        if !self.plan.has_extensions() {
            return Err(needs_extensions(to, "moves"));
        }
        let source = self.plan.tree().object(object).map(|object| &object.kind);
        let is_dir = matches!(source, Some(ObjectKind::Dir { .. }));
        let there = self.plan.tree().get(to);
        let there = there.map(|there| (there.slot, there.name.object, there.object.links));
        let replaces = match there {
            // Two names of one file, or the name itself: as rename(2), nothing is to be done.
            Some((_, other, _)) if other == object => return Ok(()),
            Some((slot, ..)) if !replace => {
                return Err(path_error(to, self.taken(slot)));
            }
            Some((_, _, 2..)) if is_dir => {
                let problem = TreeProblem::OtherKind { new: "directory", old: "file" };
                return Err(path_error(to, problem.into()));
            }
            // A move replaces no name of a file that has others; both entries count, or none.
            Some((_, _, 2..)) if !self.is_atomic() => {
                self.check_slots(3)?;
                self.atomic()?;
                self.delete(to)?;
                self.rename(from, to, false)?;
                return self.commit();
            }
            Some((_, _, 2..)) => {
                self.check_slots(2)?;
                self.delete(to)?;
                NO_ENTRY
            }
            Some((slot, ..)) => slot,
            None => NO_ENTRY,
        };
        let mut body = MoveBody::new_zeroed();
        body.name_slot = U64::new(name);
        body.parent = U64::new(self.parent_slot(to)?);
        body.replaces = U64::new(replaces);
        body.name = component(to)?.to_field();
        self.change(Some(to), EntryKind::Move, body.as_bytes())
    }

    /// Deletes a file, a symbolic link or an empty directory. The memory of a file stays taken
    /// until the log is compacted.
    pub fn delete(&mut self, path: &RelPath) -> Result<(), WriteError> {
        self.check_slots(1)?;
        let error = |source| WriteError::Delete { path: path.clone(), source };
        let (name, _) = self.name_at(path).map_err(error)?;
        // What a conventional entry made and still names is deleted by a conventional entry.
        let links = self.plan.tree().listed(name).map(|listed| listed.object.links);
        let node = self.plan.check_delete(path).ok().filter(|node| node.slot == name);
        if self.plan.has_extensions() && (node.is_none() || links != Some(1)) {
            let mut body = RemoveBody::new_zeroed();
            body.name_slot = U64::new(name);
            self.add(EntryKind::Remove, body.as_bytes()).map_err(error)?;
            return self.publish_if_large();
        }
        let found = self.plan.tree().listed(name);
        let is_dir = found.is_some_and(|found| matches!(found.object.kind, ObjectKind::Dir { .. }));
        let mut body = DeleteBody::new_zeroed();
        body.slot = U64::new(name);
        body.path = self.field(path)?;
        let slot = self.next_slot();
        self.plan.delete(slot, path, name).map_err(error)?;
        let change = Change::Removed { path: path.clone(), is_dir };
        self.add_planned(EntryKind::Delete, body.as_bytes(), Some(change));
        self.publish_if_large()
    }

    /// Adds an entry that changes what is at a path.
    fn change(
        &mut self,
        path: Option<&RelPath>,
        kind: EntryKind,
        bytes: &[u8],
    ) -> Result<(), WriteError> {
        let error = |source| WriteError::Change { path: path.cloned(), source };
        self.add(kind, bytes).map_err(error)?;
        self.publish_if_large()
    }

    /// What has the name of a slot already.
    pub(super) fn taken(&self, slot: u64) -> EntryProblem {
        let kind = self.plan.tree().listed(slot).map_or("name", |listed| listed.object.kind_name());
        EntryProblem::Taken { kind, slot }
    }

    /// Slots of the name at a path and of what it names.
    fn name_at(&self, path: &RelPath) -> Result<(u64, u64), EntryProblem> {
        let found = self.plan.tree().get(path).map(|listed| (listed.slot, listed.name.object));
        found.ok_or(EntryProblem::NotThere)
    }
}

fn change_error(path: &RelPath, source: EntryProblem) -> WriteError {
    WriteError::Change { path: Some(path.clone()), source }
}
