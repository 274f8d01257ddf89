// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a writing session makes: directories, files, symbolic links and hard links.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use crate::format::component::Component;
use crate::format::extension::{
    ENTRY_PIECES, KIND_DIR, KIND_FILE, KIND_SYMLINK, LIST_LEN, LinkBody, ListBody, NO_ENTRY,
    NameBody, PLACE_LIST,
};
use crate::format::map::FileMap;
use crate::format::path::RelPath;
use crate::format::piece::Piece;
use crate::format::{EntryKind, FILE_FLAGS, FileBody, MAX_PATH, MkdirBody};
use crate::replay::Time;
use crate::replay::tree::change::Change;
use crate::replay::tree::object::{Object, ObjectKind};
use crate::replay::tree::problem::TreeProblem;
use crate::replay::{Attributes, EntryProblem, Node, NodeKind, Owner};
use crate::write::layout::Layout;
use crate::write::room::{Holder, How, Room};
use crate::write::volume::FileBytes;
use crate::write::writer::{Made, WriteError, Writer};

/// Of the store's own files and directory: root's alone.
const STORE_FILE: Owner = Owner { uid: 0, gid: 0, mode: 0o600 };
const STORE_OWNER: Owner = Owner { uid: 0, gid: 0, mode: 0o700 };

impl<'v> Writer<'v> {
    /// Takes memory for a file, to be passed to [`Writer::create`].
    pub fn allocate(
        &mut self,
        path: &RelPath,
        layout: impl Into<Layout>,
    ) -> Result<Room, WriteError> {
        self.check_live()?;
        let layout = layout.into();
        let size = layout.size();
        self.turn += 1;
        let turn = self.turn - 1;
        let extensions = self.plan.has_extensions();
        let (tree, space) = self.plan.tree_and_space();
        let spread = self.striping.filter(|how| size >= how.chunk_size && layout.is_whole());
        let room = if extensions {
            match spread {
                Some(how) => space
                    .allocate_striped(size, &how, turn)
                    .map(|map| self.pages.whole(&layout, map)),
                None => self.pages.allocate(&layout, tree, space),
            }
        } else {
            if size == 0 {
                return Err(needs_extensions(path, "empty files"));
            }
            let map = match &self.striping {
                Some(how) => space.allocate_striped(size, how, turn),
                None => space.allocate(size).map(|extent| FileMap::Simple(extent.into())),
            };
            map.map(|map| Room::own(size, map))
        };
        room.ok_or_else(|| self.no_space(path, &layout))
    }

    fn no_space(&self, path: &RelPath, layout: &Layout) -> WriteError {
        let (path, space, size) = (path.clone(), &self.plan.space, layout.size());
        let free = self.free();
        match self.striping.filter(|how| size >= how.chunk_size) {
            Some(how) => {
                let strip_len = how.strip_len(size).unwrap_or(u64::MAX);
                let deleted = self.deleted();
                WriteError::NoStrips { path, strips: how.strips, strip_len, free, deleted }
            }
            None => {
                let (largest, deleted) = (space.largest_free(), self.deleted());
                WriteError::NoSpace { path, size, free, largest, deleted }
            }
        }
    }

    /// Gives back memory that was not used for a file.
    pub fn release(&mut self, room: &Room) {
        match &room.how {
            How::Own(map) => {
                for extent in map.extents() {
                    self.plan.space.release(*extent);
                }
            }
            How::Pieces(pieces) => self.pages.give_back(pieces, &mut self.plan.space),
        }
    }

    /// Adds a directory.
    pub fn mkdir(
        &mut self,
        path: &RelPath,
        attributes: impl Into<Attributes>,
    ) -> Result<(), WriteError> {
        let attributes = attributes.into();
        self.check_new(path)?;
        if !self.is_preview() {
            self.volume
                .make_dir(path, &attributes)
                .map_err(|source| volume_error("make directory", path, source))?;
            self.made.push((path.clone(), Made::Dir));
        }
        if self.plan.has_extensions() {
            let mut body = self.name_body(path, &attributes, KIND_DIR)?;
            body.size = U64::ZERO;
            self.add_entry(path, EntryKind::Name, body.as_bytes())?;
        } else {
            self.add_dir(path, attributes.owner)?;
        }
        self.publish_if_large()
    }

    /// Adds a conventional entry of a directory.
    fn add_dir(&mut self, path: &RelPath, owner: Owner) -> Result<(), WriteError> {
        let mut body = MkdirBody::new_zeroed();
        body.uid = U32::new(owner.uid);
        body.gid = U32::new(owner.gid);
        body.mode = U32::new(owner.mode);
        body.path = self.field(path)?;
        self.add_node(path, owner, NodeKind::Dir, EntryKind::Mkdir, body.as_bytes());
        Ok(())
    }

    /// Adds a symbolic link; any bytes but NUL may be its target.
    pub fn symlink(
        &mut self,
        path: &RelPath,
        target: &[u8],
        attributes: impl Into<Attributes>,
    ) -> Result<(), WriteError> {
        self.check_new(path)?;
        self.require_extensions(path, "symbolic links")?;
        let mut body = self.name_body(path, &attributes.into(), KIND_SYMLINK)?;
        let len = u32::try_from(target.len()).unwrap_or(u32::MAX);
        (body.size, body.count) = (U64::new(len.into()), U32::new(len));
        match body.tail.get_mut(..target.len()) {
            Some(tail) => tail.copy_from_slice(target),
            None => self.add_lists(path, &mut body, target)?,
        }
        self.add_entry(path, EntryKind::Name, body.as_bytes())?;
        self.publish_if_large()
    }

    /// Entries that a target needs besides that of the link.
    pub(crate) fn lists_of_target(target: &[u8]) -> u64 {
        match target.len() > size_of_val(&NameBody::new_zeroed().tail) {
            true => target.len().div_ceil(LIST_LEN) as u64,
            false => 0,
        }
    }

    /// Refuses what only a file system with extensions holds.
    pub(super) fn require_extensions(
        &self,
        path: &RelPath,
        what: &'static str,
    ) -> Result<(), WriteError> {
        match self.plan.has_extensions() {
            true => Ok(()),
            false => Err(needs_extensions(path, what)),
        }
    }

    /// Bytes that new files can have in all.
    pub(crate) fn free(&self) -> u64 {
        self.plan.space.free() + self.pages.free()
    }

    /// Gives a file another name.
    pub fn link(&mut self, old: &RelPath, new: &RelPath) -> Result<(), WriteError> {
        self.check_new(new)?;
        self.require_extensions(new, "hard links")?;
        let found = self.plan.tree().get(old).map(|listed| listed.name.object);
        let target = found.ok_or_else(|| path_error(old, EntryProblem::NotThere))?;
        let mut body = LinkBody::new_zeroed();
        body.target = U64::new(target);
        body.parent = U64::new(self.parent_slot(new)?);
        body.name = component(new)?.to_field();
        self.add_entry(new, EntryKind::Link, body.as_bytes())?;
        self.publish_if_large()
    }

    /// Adds a file in the memory of `room`, after `fill` has written its bytes. If it fails, the
    /// file does not exist and the memory is free again.
    pub fn create<E: From<WriteError>>(
        &mut self,
        path: &RelPath,
        attributes: impl Into<Attributes>,
        room: Room,
        fill: impl FnOnce(&dyn FileBytes) -> Result<(), E>,
    ) -> Result<(), E> {
        let attributes = attributes.into();
        if !self.is_preview() {
            let bytes = self.begin(path, attributes, &room).inspect_err(|_| self.release(&room))?;
            let filled = fill(&*bytes).and_then(|()| {
                bytes.finish().map_err(|source| volume_error("write back", path, source).into())
            });
            drop(bytes);
            filled.inspect_err(|_| self.abandon(path, &room))?;
        }
        Ok(self.publish(path, attributes, room)?)
    }

    /// Makes a file whose bytes are still to be written; it is not in the log before
    /// [`Writer::publish`].
    pub fn begin(
        &self,
        path: &RelPath,
        attributes: impl Into<Attributes>,
        room: &Room,
    ) -> Result<Box<dyn FileBytes + 'v>, WriteError> {
        let (attributes, size, memory) = (attributes.into(), room.size, &room.memory);
        let made = match room.replaces {
            true => {
                self.check_replaced(path)?;
                self.volume.make_replacement(path, &attributes, size, memory)
            }
            false => {
                self.check_new(path)?;
                self.volume.make_file(path, &attributes, size, memory)
            }
        };
        made.map_err(|source| volume_error("make file", path, source))
    }

    /// Adds a file that was begun and whose bytes are complete and written back. If it cannot be
    /// added, it is removed like one that was abandoned.
    pub fn publish(
        &mut self,
        path: &RelPath,
        attributes: impl Into<Attributes>,
        room: Room,
    ) -> Result<(), WriteError> {
        let attributes = attributes.into();
        let (made, published) = match room.replaces {
            true => {
                let add = |writer: &mut Self| writer.publish_file(path, &attributes, &room);
                (Made::Replacement, self.in_place_of(path, add))
            }
            false => (Made::File, self.publish_file(path, &attributes, &room)),
        };
        published.inspect_err(|_| self.abandon(path, &room))?;
        if !self.is_preview() {
            self.made.push((path.clone(), made));
        }
        self.batch_bytes += room.size;
        self.publish_if_large()
    }

    fn publish_file(
        &mut self,
        path: &RelPath,
        attributes: &Attributes,
        room: &Room,
    ) -> Result<(), WriteError> {
        self.check_new(path)?;
        let runs = match &room.how {
            How::Own(map) => return self.add_file(path, attributes.owner, room.size, map.clone()),
            How::Pieces(runs) => runs,
        };
        let mut pieces = Vec::with_capacity(runs.len());
        for (at, run) in runs {
            let slot = match run.holder {
                Holder::Slot(slot) => slot,
                Holder::New(number) => self.holder_slot(number)?,
            };
            pieces.push(Piece { slot, page: run.page, at: *at, pages: run.pages }.to_raw());
        }
        let mut body = self.name_body(path, attributes, KIND_FILE)?;
        body.size = U64::new(room.size);
        // There are at most 65,536 pieces.
        body.count = U32::new(u32::try_from(pieces.len()).unwrap_or(u32::MAX));
        let bytes = pieces.as_bytes();
        match pieces.len() <= ENTRY_PIECES {
            true => body.tail[..bytes.len()].copy_from_slice(bytes),
            false => self.add_lists(path, &mut body, bytes)?,
        }
        self.add_entry(path, EntryKind::Name, body.as_bytes())
    }

    /// Adds a conventional entry of a file.
    fn add_file(
        &mut self,
        path: &RelPath,
        owner: Owner,
        size: u64,
        map: FileMap,
    ) -> Result<(), WriteError> {
        let mut body = FileBody::new_zeroed();
        body.size = U64::new(size);
        body.flags = U32::new(FILE_FLAGS);
        body.uid = U32::new(owner.uid);
        body.gid = U32::new(owner.gid);
        body.mode = U32::new(owner.mode);
        body.path = self.field(path)?;
        map.encode(&mut body);
        let kind = NodeKind::File { size, map };
        self.add_node(path, owner, kind, EntryKind::File, body.as_bytes());
        Ok(())
    }

    /// Slot of a new holder; its entry comes with the first file that uses it.
    fn holder_slot(&mut self, number: usize) -> Result<u64, WriteError> {
        let holder = self.pages.new_holder(number);
        if let Some(slot) = holder.slot {
            return Ok(slot);
        }
        let (size, map) = (holder.size, holder.map.clone());
        let dir = RelPath::store();
        if self.plan.get(&dir).is_none() {
            self.add_dir(&dir, STORE_OWNER)?;
        }
        let slot = self.next_slot();
        let path = self.holder_path(slot);
        let map = map.unwrap_or(FileMap::Simple(Vec::new().into()));
        self.add_file(&path, STORE_FILE, size, map)?;
        self.pages.new_holder(number).slot = Some(slot);
        Ok(slot)
    }

    /// Path of the holder with this slot. One whose entry has moved since may have the number.
    fn holder_path(&self, slot: u64) -> RelPath {
        let mut number = slot;
        loop {
            let path = RelPath::in_store(number);
            // Each number that is taken is that of another file.
            if self.plan.get(&path).is_none() {
                return path;
            }
            number = number.wrapping_add(self.slots());
        }
    }

    /// Removes a file that was begun, and frees its memory.
    pub fn abandon(&mut self, path: &RelPath, room: &Room) {
        if !self.is_preview() {
            // The earlier error is the one to report.
            let _ = match room.replaces {
                true => self.volume.remove_replacement(path),
                false => self.volume.remove(path, false),
            };
        }
        self.release(room);
    }

    /// What a new name is, without the place of its bytes.
    fn name_body(
        &self,
        path: &RelPath,
        attributes: &Attributes,
        kind: u32,
    ) -> Result<NameBody, WriteError> {
        let Attributes { owner, mtime } = *attributes;
        let mtime = mtime.unwrap_or_else(now);
        let mut body = NameBody::new_zeroed();
        body.parent = U64::new(self.parent_slot(path)?);
        body.name = component(path)?.to_field();
        body.kind = U32::new(kind);
        body.uid = U32::new(owner.uid);
        body.gid = U32::new(owner.gid);
        body.mode = U32::new(owner.mode);
        body.mtime_sec = I64::new(mtime.sec);
        body.mtime_nsec = U32::new(mtime.nsec);
        Ok(body)
    }

    /// Adds the list entries before a name that has no room for its pieces or target.
    fn add_lists(
        &mut self,
        path: &RelPath,
        body: &mut NameBody,
        bytes: &[u8],
    ) -> Result<(), WriteError> {
        body.place = U32::new(PLACE_LIST);
        self.check_slots(bytes.len().div_ceil(LIST_LEN) as u64 + 1)?;
        for chunk in bytes.chunks(LIST_LEN) {
            let mut list = ListBody::new_zeroed();
            list.bytes[..chunk.len()].copy_from_slice(chunk);
            self.add_entry(path, EntryKind::List, list.as_bytes())?;
        }
        Ok(())
    }

    /// Adds an entry that makes a path.
    fn add_entry(
        &mut self,
        path: &RelPath,
        kind: EntryKind,
        bytes: &[u8],
    ) -> Result<(), WriteError> {
        self.add(kind, bytes).map_err(|problem| path_error(path, problem))
    }

    /// Adds a conventional entry of a file or directory that may be made.
    fn add_node(
        &mut self,
        path: &RelPath,
        owner: Owner,
        node: NodeKind,
        kind: EntryKind,
        bytes: &[u8],
    ) {
        let slot = self.next_slot();
        self.plan.insert(Node { path: path.clone(), slot, owner, kind: node });
        // What is in the store has no path.
        let path = self.plan.tree().path_of(slot);
        self.add_planned(kind, bytes, path.map(|path| Change::Made { slot, path }));
    }

    /// Checks that something can be added at a path.
    pub(super) fn check_new(&self, path: &RelPath) -> Result<(), WriteError> {
        self.check_live()?;
        if let Some(found) = self.plan.tree().look_up(path.as_bytes()) {
            return Err(path_error(path, self.taken(found)));
        }
        self.parent_slot(path)?;
        if !self.plan.has_extensions() {
            self.field(path)?;
        }
        self.check_slots(1)
    }

    /// Checks that a file can take the place of what is at a path: of anything but a directory.
    fn check_replaced(&self, path: &RelPath) -> Result<(), WriteError> {
        self.check_live()?;
        self.require_extensions(path, "replacements in one step")?;
        match self.plan.tree().get(path).map(|listed| listed.object) {
            None => Err(path_error(path, EntryProblem::NotThere)),
            Some(Object { kind: ObjectKind::Dir { .. }, .. }) => {
                let problem = TreeProblem::OtherKind { new: "file", old: "directory" };
                Err(path_error(path, problem.into()))
            }
            Some(_) => self.check_slots(3),
        }
    }

    /// Has `add` make what takes the place of the file or link at a path: readers see the one or
    /// the other. Other names of the same file keep it.
    pub fn replace(
        &mut self,
        path: &RelPath,
        add: impl FnOnce(&mut Self) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        self.in_place_of(path, add)?;
        self.publish_if_large()
    }

    fn in_place_of(
        &mut self,
        path: &RelPath,
        add: impl FnOnce(&mut Self) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        self.check_replaced(path)?;
        self.together(|writer| {
            writer.delete(path)?;
            add(writer)
        })
    }

    /// Slot of the directory that a path is in.
    pub(super) fn parent_slot(&self, path: &RelPath) -> Result<u64, WriteError> {
        let Some(parent) = path.parent() else { return Ok(NO_ENTRY) };
        match self.plan.tree().get(&parent) {
            None => Err(path_error(path, EntryProblem::NoParent(parent))),
            Some(listed) if !matches!(listed.object.kind, ObjectKind::Dir { .. }) => {
                let kind = listed.object.kind_name();
                Err(path_error(path, EntryProblem::NoDirectory { path: parent, kind }))
            }
            Some(listed) => Ok(listed.name.object),
        }
    }

    /// A path as a conventional entry holds it.
    pub(super) fn field(&self, path: &RelPath) -> Result<[u8; MAX_PATH + 1], WriteError> {
        path.to_field().map_err(|_| needs_extensions(path, "paths of more than 79 bytes"))
    }
}

pub(super) fn needs_extensions(path: &RelPath, what: &'static str) -> WriteError {
    WriteError::NeedsExtensions { path: Some(path.clone()), what }
}

/// The name of a path in its directory.
pub(super) fn component(path: &RelPath) -> Result<Component, WriteError> {
    Component::new(path.name()).map_err(|error| path_error(path, EntryProblem::Tree(error.into())))
}

pub(super) fn path_error(path: &RelPath, source: EntryProblem) -> WriteError {
    WriteError::Path { path: path.clone(), source }
}

/// The time of a name that was made without one.
fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nsec: since.subsec_nanos() }
}

fn volume_error(action: &'static str, path: &RelPath, source: io::Error) -> WriteError {
    let path = path.clone();
    match source.kind() {
        io::ErrorKind::AlreadyExists => WriteError::Leftover { path },
        _ => WriteError::Volume { action, path, source },
    }
}
