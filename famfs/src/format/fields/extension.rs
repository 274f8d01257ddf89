// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The fields of what the extensions add to superblock and log.

use std::mem::offset_of;

use zerocopy::{IntoBytes, transmute};

use super::{Field, Fields, Kind};
use crate::format::extension::{
    AttrBody, ENTRY_PIECES, EXTENSIONS_MAGIC, EXTENSIONS_VERSION, Extensions, GroupBody, KIND_DIR,
    KIND_FILE, KIND_SYMLINK, LinkBody, ListBody, MoveBody, NameBody, PLACE_ENTRY, PLACE_LIST,
    PiecesTail, RawPiece, RemoveBody,
};
use crate::format::{Body, EntryKind};

pub(super) const NAME_KINDS: [(u32, &str); 3] =
    [(KIND_FILE, "file"), (KIND_DIR, "directory"), (KIND_SYMLINK, "symbolic link")];
pub(super) const PLACES: [(u32, &str); 2] = [(PLACE_ENTRY, "entry"), (PLACE_LIST, "list")];

/// The fields of the mark of a file system with extensions, found at `offset`.
pub fn mark(raw: &Extensions, offset: u64) -> Vec<Field> {
    let mut fields = Fields::new(raw.as_bytes(), offset);
    let layout =
        layout!(Extensions { magic: Hex, version: Number, pad: Zero, fs_uuid: Uuid, crc: Hex });
    fields.add(0, size_of::<Extensions>(), "", &layout);
    fields.expect("magic", format!("{EXTENSIONS_MAGIC:#x}"));
    fields.expect("version", EXTENSIONS_VERSION.to_string());
    fields.expect("crc", format!("{:#x}", raw.checksum()));
    fields.list
}

/// Adds the fields of an extension entry's body, which starts at byte `start` of the entry.
pub(super) fn body(fields: &mut Fields<'_>, start: usize, kind: EntryKind, body: &Body) {
    let len = size_of::<Body>();
    match kind {
        EntryKind::Name => name(fields, start, &transmute!(*body)),
        EntryKind::Link => {
            let layout = layout!(LinkBody { target: Slot, parent: Slot, name: Text, rest: Zero });
            fields.add(start, len, "", &layout);
        }
        EntryKind::Attr => {
            let layout = layout!(AttrBody {
                target: Slot,
                mask: Hex,
                mode: Mode,
                uid: Number,
                gid: Number,
                mtime_sec: Signed,
                mtime_nsec: Number,
                pad: Zero,
                rest: Zero,
            });
            fields.add(start, len, "", &layout);
        }
        EntryKind::Move => {
            let layout = layout!(MoveBody {
                name_slot: Slot,
                parent: Slot,
                replaces: Slot,
                name: Text,
                rest: Zero,
            });
            fields.add(start, len, "", &layout);
        }
        EntryKind::Remove => {
            fields.add(start, len, "", &layout!(RemoveBody { name_slot: Slot, rest: Zero }));
        }
        EntryKind::Group => {
            fields.add(start, len, "", &layout!(GroupBody { count: Number, rest: Zero }));
        }
        // Only the name behind it tells whether these are pieces or text.
        EntryKind::List => {
            fields.add(start, len, "", &layout!(ListBody { bytes: Any, rest: Zero }));
        }
        _ => fields.push(start, "body".to_owned(), body, Kind::Any),
    }
}

fn name(fields: &mut Fields<'_>, start: usize, body: &NameBody) {
    let layout = layout!(NameBody {
        parent: Slot,
        size: Number,
        mtime_sec: Signed,
        mtime_nsec: Number,
        kind: Made,
        uid: Number,
        gid: Number,
        mode: Mode,
        place: Place,
        count: Number,
        pad: Zero,
        name: Text,
        tail: Nested,
    });
    fields.add(start, size_of::<NameBody>(), "", &layout);
    let tail = start + offset_of!(NameBody, tail);
    let count = usize::try_from(body.count.get()).unwrap_or(usize::MAX);
    match (body.place.get(), body.kind.get()) {
        (PLACE_ENTRY, KIND_FILE) => pieces(fields, tail, count, &transmute!(body.tail)),
        (PLACE_ENTRY, KIND_SYMLINK) => {
            let (target, rest) = body.tail.split_at(count.min(body.tail.len()));
            fields.push(tail, "tail.target".to_owned(), target, Kind::Target);
            if !rest.is_empty() {
                fields.push(tail + target.len(), "tail.rest".to_owned(), rest, Kind::Zero);
            }
        }
        (PLACE_LIST, _) | (PLACE_ENTRY, KIND_DIR) => {
            fields.push(tail, "tail".to_owned(), &body.tail, Kind::Zero)
        }
        _ => fields.push(tail, "tail".to_owned(), &body.tail, Kind::Any),
    }
}

fn pieces(fields: &mut Fields<'_>, start: usize, count: usize, tail: &PiecesTail) {
    let len = size_of::<RawPiece>();
    let used = count.min(ENTRY_PIECES);
    let layout = layout!(RawPiece { slot: Slot, page: Number, at: Number, pages: Number });
    for index in 0..used {
        fields.add(start + index * len, len, &format!("tail.pieces[{index}]."), &layout);
    }
    if used < ENTRY_PIECES {
        let unused = format!("tail.pieces[{used}..{ENTRY_PIECES}]");
        fields.push(start + used * len, unused, tail.pieces[used..].as_bytes(), Kind::Zero);
    }
    let rest = start + offset_of!(PiecesTail, rest);
    fields.push(rest, "tail.rest".to_owned(), &tail.rest, Kind::Zero);
}
