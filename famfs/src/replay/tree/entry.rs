// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What each extension entry does to a tree.

use zerocopy::little_endian::{I64, U32};
use zerocopy::{FromBytes, transmute};

use super::Tree;
use super::object::{FileBytes, Name, Object, ObjectKind, Taken};
use super::problem::TreeProblem;
use crate::format::component::Component;
use crate::format::extension::{
    AttrBody, ENTRY_PIECES, GroupBody, KIND_DIR, KIND_FILE, KIND_SYMLINK, LinkBody, ListBody,
    MAX_PIECES, MAX_TARGET, MoveBody, NO_ENTRY, NameBody, PLACE_ENTRY, PLACE_LIST, RawPiece,
    RemoveBody, SET_GID, SET_MODE, SET_MTIME, SET_UID, TAIL_LEN,
};
use crate::format::piece::Piece;
use crate::format::{self, Body, EntryKind};
use crate::replay::node::Owner;
use crate::replay::node::Time;

/// Largest nanosecond of a time.
const MAX_NSEC: u32 = 999_999_999;
/// Bytes of a piece.
const PIECE_LEN: usize = size_of::<RawPiece>();
/// Largest size of a file: what an offset of the system can tell.
const MAX_SIZE: u64 = i64::MAX.cast_unsigned();

impl Tree {
    /// Carries out an extension entry. `is_void` tells which slots before it do not count.
    pub fn take(
        &mut self,
        slot: u64,
        kind: EntryKind,
        body: &Body,
        is_void: impl Fn(u64) -> bool,
    ) -> Result<Taken, TreeProblem> {
        self.slot = slot;
        let taken = match kind {
            EntryKind::Name => self.take_name(slot, &transmute!(*body))?,
            EntryKind::Link => {
                let body: LinkBody = transmute!(*body);
                zero("bytes behind the link", &body.rest)?;
                match body.target.get() {
                    target if is_void(target) => Taken::Idle,
                    _ => self.take_link(slot, &body)?,
                }
            }
            EntryKind::Attr => {
                let body: AttrBody = transmute!(*body);
                zero("bytes behind the attributes", &body.rest)?;
                zero("bytes behind the attributes", &body.pad.to_bytes())?;
                match body.target.get() {
                    target if is_void(target) => Taken::Idle,
                    _ => self.take_attributes(&body)?,
                }
            }
            EntryKind::Move => {
                let body: MoveBody = transmute!(*body);
                zero("bytes behind the move", &body.rest)?;
                let replaces = match body.replaces.get() {
                    slot if slot == NO_ENTRY || is_void(slot) => None,
                    slot => Some(slot),
                };
                match body.name_slot.get() {
                    slot if is_void(slot) => Taken::Idle,
                    slot => self.take_move(slot, &body, replaces)?,
                }
            }
            EntryKind::Remove => {
                let body: RemoveBody = transmute!(*body);
                zero("bytes behind the removal", &body.rest)?;
                match body.name_slot.get() {
                    slot if is_void(slot) => Taken::Idle,
                    slot => self.take_removal(slot)?,
                }
            }
            // The reader of the log has seen that the group is whole, unless it is in another one.
            EntryKind::Group => {
                let body: GroupBody = transmute!(*body);
                zero("bytes behind the group's head", &body.rest)?;
                Taken::Done(0)
            }
            EntryKind::List => {
                let body: ListBody = transmute!(*body);
                zero("bytes behind the list", &body.rest)?;
                self.lists.add(slot, body.bytes);
                Taken::Idle
            }
            EntryKind::File
            | EntryKind::Mkdir
            | EntryKind::Delete
            | EntryKind::Daxdev
            | EntryKind::Void => Taken::Idle,
        };
        if let Taken::Done(lists) = taken {
            self.extended += 1 + lists;
        }
        Ok(taken)
    }

    fn take_name(&mut self, slot: u64, body: &NameBody) -> Result<Taken, TreeProblem> {
        zero("bytes before the name", &body.pad.to_bytes())?;
        let component = Component::from_field(&body.name)?;
        let owner = Owner::parse(body.uid, body.gid, body.mode)?;
        let mtime = Some(time(body.mtime_sec, body.mtime_nsec)?);
        let parent = body.parent.get();
        if let Some(slot) = self.check_place(parent, &component, 0)? {
            return Err(TreeProblem::Exists { name: component, slot });
        }
        let (kind, lists) = match body.kind.get() {
            KIND_FILE => self.file(slot, body)?,
            KIND_DIR => (directory(body)?, 0),
            KIND_SYMLINK => self.symlink(slot, body)?,
            found => return Err(field("kind", found, "1 (file), 2 (directory) or 3 (link)")),
        };
        self.objects.insert(slot, Object { owner, mtime, links: 0, kind });
        self.add_name(slot, Name { parent, component, object: slot });
        Ok(Taken::Done(lists))
    }

    /// The file of a name, and how many entries before it hold its pieces. Its pages are taken if
    /// it can be made.
    fn file(&mut self, slot: u64, body: &NameBody) -> Result<(ObjectKind, u64), TreeProblem> {
        let (size, count) = (body.size.get(), body.count.get());
        if size > MAX_SIZE {
            return Err(TreeProblem::Size(size));
        }
        let len = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(PIECE_LEN);
        let (bytes, lists) = match body.place.get() {
            PLACE_ENTRY if len > ENTRY_PIECES * PIECE_LEN => {
                return Err(field("count", count, "at most 6 pieces in an entry"));
            }
            PLACE_LIST if !(1..=MAX_PIECES).contains(&count) => {
                return Err(TreeProblem::TooManyPieces { found: count });
            }
            _ => self.contents(slot, body, len, "bytes behind the pieces")?,
        };
        // The bytes are those of whole pieces.
        let raw = bytes.chunks_exact(PIECE_LEN);
        let raw: Vec<_> = raw.filter_map(|bytes| RawPiece::read_from_bytes(bytes).ok()).collect();
        let pieces = Piece::parse_all(&raw, size)?;
        self.store.take(&pieces, slot)?;
        Ok((ObjectKind::File { size, bytes: FileBytes::Pieces { pieces } }, lists))
    }

    /// The symbolic link of a name, and how many entries before it hold its target.
    fn symlink(&mut self, slot: u64, body: &NameBody) -> Result<(ObjectKind, u64), TreeProblem> {
        let count = body.count.get();
        if !(1..=MAX_TARGET).contains(&count) {
            return Err(TreeProblem::TargetLength { found: count });
        }
        if body.size.get() != u64::from(count) {
            return Err(TreeProblem::Field {
                field: "size",
                found: body.size.get(),
                expected: "the number of bytes of the target",
            });
        }
        let len = usize::try_from(count).unwrap_or(usize::MAX);
        if body.place.get() == PLACE_ENTRY && len > TAIL_LEN {
            return Err(field("count", count, "at most 208 bytes in an entry"));
        }
        let (target, lists) = self.contents(slot, body, len, "bytes behind the target")?;
        if target.contains(&0) {
            return Err(TreeProblem::TargetNul);
        }
        Ok((ObjectKind::Symlink { target: target.into() }, lists))
    }

    /// The pieces or the target of a name, of `len` bytes, and how many entries before it hold
    /// them. `rest` says what must be zero.
    fn contents(
        &mut self,
        slot: u64,
        body: &NameBody,
        len: usize,
        rest: &'static str,
    ) -> Result<(Vec<u8>, u64), TreeProblem> {
        let (mut bytes, lists) = match body.place.get() {
            PLACE_ENTRY => (body.tail.to_vec(), 0),
            PLACE_LIST => {
                zero("bytes behind the name", &body.tail)?;
                self.lists.take(slot, len)?
            }
            found => return Err(field("place", found, "0 (in the entry) or 1 (in LIST entries)")),
        };
        zero(rest, &bytes[len..])?;
        bytes.truncate(len);
        Ok((bytes, lists))
    }

    fn take_link(&mut self, slot: u64, body: &LinkBody) -> Result<Taken, TreeProblem> {
        let component = Component::from_field(&body.name)?;
        let (target, parent) = (body.target.get(), body.parent.get());
        let object = self.object(target).ok_or(TreeProblem::NotThere(target))?;
        if !matches!(object.kind, ObjectKind::File { .. }) {
            return Err(TreeProblem::NoFile { slot: target, kind: object.kind_name() });
        }
        if let Some(slot) = self.check_place(parent, &component, 0)? {
            return Err(TreeProblem::Exists { name: component, slot });
        }
        self.add_name(slot, Name { parent, component, object: target });
        Ok(Taken::Done(0))
    }

    fn take_attributes(&mut self, body: &AttrBody) -> Result<Taken, TreeProblem> {
        let (target, mask) = (body.target.get(), body.mask.get());
        if mask == 0 || mask & !(SET_MODE | SET_UID | SET_GID | SET_MTIME) != 0 {
            return Err(field("mask", mask, "1 to 15"));
        }
        let mtime = time(body.mtime_sec, body.mtime_nsec)?;
        let new = Owner::parse(body.uid, body.gid, body.mode)?;
        let object = self.object_mut(target).ok_or(TreeProblem::NotThere(target))?;
        let Object { owner, mtime: old_mtime, .. } = object;
        if mask & SET_MODE != 0 {
            owner.mode = new.mode;
        }
        if mask & SET_UID != 0 {
            owner.uid = new.uid;
        }
        if mask & SET_GID != 0 {
            owner.gid = new.gid;
        }
        if mask & SET_MTIME != 0 {
            *old_mtime = Some(mtime);
        }
        Ok(Taken::Done(0))
    }

    fn take_move(
        &mut self,
        slot: u64,
        body: &MoveBody,
        replaces: Option<u64>,
    ) -> Result<Taken, TreeProblem> {
        let component = Component::from_field(&body.name)?;
        let parent = body.parent.get();
        let object_slot = self.names.get(slot).ok_or(TreeProblem::NotThere(slot))?.object;
        let object = self.object(object_slot).ok_or(TreeProblem::NotThere(slot))?;
        let below = match object.kind {
            ObjectKind::Dir { below, .. } => below,
            ObjectKind::File { .. } | ObjectKind::Symlink { .. } => 0,
        };
        let is_dir = matches!(object.kind, ObjectKind::Dir { .. });
        let there = self.check_place(parent, &component, below)?;
        if is_dir && self.ancestors(parent).any(|(dir, _)| dir == object_slot) {
            let moved = self.names.get(slot).map(|name| name.component.clone());
            return Err(TreeProblem::Loop(moved.unwrap_or(component)));
        }
        match (there, replaces) {
            (Some(there), Some(replaced)) if there == replaced && there != slot => {
                self.check_replace(slot, there)?;
                self.drop_name(there);
            }
            (Some(slot), _) => return Err(TreeProblem::Exists { name: component, slot }),
            (None, Some(expected)) => {
                return Err(TreeProblem::NotReplaced { name: component, expected });
            }
            (None, None) => {}
        }
        // What it names must not go with its old name.
        if let Some(object) = self.object_mut(object_slot) {
            object.links += 1;
        }
        self.drop_name(slot);
        if let Some(object) = self.object_mut(object_slot) {
            object.links -= 1;
        }
        self.add_name(slot, Name { parent, component, object: object_slot });
        self.moves.insert(slot, self.slot);
        Ok(Taken::Done(0))
    }

    /// Whether a name may take the place of another one, which goes.
    fn check_replace(&self, new: u64, old: u64) -> Result<(), TreeProblem> {
        let object = |slot: u64| {
            let name = self.names.get(slot).ok_or(TreeProblem::NotThere(slot))?;
            self.object(name.object).ok_or(TreeProblem::NotThere(slot))
        };
        let (new, old_object) = (object(new)?, object(old)?);
        let is_dir = |object: &Object| matches!(object.kind, ObjectKind::Dir { .. });
        if is_dir(new) != is_dir(old_object) {
            let (new, old) = (new.kind_name(), old_object.kind_name());
            return Err(TreeProblem::OtherKind { new, old });
        }
        // Its other names would keep an entry for ever that makes the moved name.
        if old_object.links > 1 {
            return Err(TreeProblem::MoreNames);
        }
        self.check_empty(old)
    }

    fn take_removal(&mut self, slot: u64) -> Result<Taken, TreeProblem> {
        if self.names.get(slot).is_none() {
            return Err(TreeProblem::NotThere(slot));
        }
        self.check_empty(slot)?;
        self.drop_name(slot);
        Ok(Taken::Done(0))
    }
}

fn directory(body: &NameBody) -> Result<ObjectKind, TreeProblem> {
    for (name, found) in [
        ("size", body.size.get()),
        ("count", body.count.get().into()),
        ("place", body.place.get().into()),
    ] {
        if found != 0 {
            return Err(TreeProblem::Field { field: name, found, expected: "0 of a directory" });
        }
    }
    zero("bytes behind the name", &body.tail)?;
    Ok(ObjectKind::Dir { children: 0, below: 0 })
}

fn time(sec: I64, nsec: U32) -> Result<Time, TreeProblem> {
    if nsec.get() > MAX_NSEC {
        return Err(field("nanoseconds", nsec.get(), "at most 999999999"));
    }
    Ok(Time { sec: sec.get(), nsec: nsec.get() })
}

fn field(field: &'static str, found: u32, expected: &'static str) -> TreeProblem {
    TreeProblem::Field { field, found: found.into(), expected }
}

fn zero(what: &'static str, bytes: &[u8]) -> Result<(), TreeProblem> {
    match format::is_zero(bytes) {
        true => Ok(()),
        false => Err(TreeProblem::NotZero(what)),
    }
}
