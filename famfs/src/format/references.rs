// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The slots that an entry names, for entries that move to other slots.

use std::mem::size_of;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes, transmute};

use crate::format::extension::{
    AttrBody, ENTRY_PIECES, KIND_FILE, LIST_LEN, LIST_PIECES, LinkBody, MoveBody, NO_ENTRY,
    NameBody, PLACE_ENTRY, PLACE_LIST, PiecesTail, RawPiece, RemoveBody,
};
use crate::format::{Body, DeleteBody, Entry, EntryKind};

/// Changes the slots that an entry names to those that `number` gives. Pieces in a `LIST` are not
/// among them: see [`renumber_pieces`]. A move that took the place of something void takes that of
/// nothing.
///
/// # Errors
/// The slot that has no new number.
pub fn renumber(entry: &mut Entry, number: &dyn Fn(u64) -> Option<u64>) -> Result<(), u64> {
    let slot = |field: &mut U64| {
        let old = field.get();
        if old != NO_ENTRY {
            field.set(number(old).ok_or(old)?);
        }
        Ok(())
    };
    match EntryKind::of(entry) {
        Some(EntryKind::Delete) => edit(entry, |body: &mut DeleteBody| slot(&mut body.slot)),
        Some(EntryKind::Name) => edit(entry, |body: &mut NameBody| {
            slot(&mut body.parent)?;
            if (body.kind.get(), body.place.get()) == (KIND_FILE, PLACE_ENTRY) {
                let mut tail: PiecesTail = transmute!(body.tail);
                let count = usize::try_from(body.count.get()).unwrap_or(usize::MAX);
                for piece in &mut tail.pieces[..count.min(ENTRY_PIECES)] {
                    slot(&mut piece.slot)?;
                }
                body.tail = transmute!(tail);
            }
            Ok(())
        }),
        Some(EntryKind::Link) => edit(entry, |body: &mut LinkBody| {
            slot(&mut body.target)?;
            slot(&mut body.parent)
        }),
        Some(EntryKind::Attr) => edit(entry, |body: &mut AttrBody| slot(&mut body.target)),
        Some(EntryKind::Move) => edit(entry, |body: &mut MoveBody| {
            slot(&mut body.name_slot)?;
            slot(&mut body.parent)?;
            let replaced = number(body.replaces.get());
            body.replaces.set(replaced.unwrap_or(NO_ENTRY));
            Ok(())
        }),
        Some(EntryKind::Remove) => edit(entry, |body: &mut RemoveBody| slot(&mut body.name_slot)),
        _ => Ok(()),
    }
}

/// Changes the slots of the pieces in a `LIST` entry.
///
/// # Errors
/// The slot that has no new number.
pub fn renumber_pieces(entry: &mut Entry, number: &dyn Fn(u64) -> Option<u64>) -> Result<(), u64> {
    for raw in entry.body[..LIST_LEN].chunks_exact_mut(size_of::<RawPiece>()) {
        let Ok(piece) = RawPiece::mut_from_bytes(raw) else { continue };
        // Zero behind the last one.
        if piece.pages.get() > 0 {
            let old = piece.slot.get();
            piece.slot.set(number(old).ok_or(old)?);
        }
    }
    Ok(())
}

/// How many `LIST` entries before an entry hold its pieces or target, and whether it is pieces.
pub fn lists(entry: &Entry) -> Option<(u64, bool)> {
    if EntryKind::of(entry) != Some(EntryKind::Name) {
        return None;
    }
    let body: NameBody = transmute!(entry.body);
    Some(lists_of(&body)).filter(|(lists, _)| *lists > 0)
}

/// The same of a name.
pub fn lists_of(body: &NameBody) -> (u64, bool) {
    match (body.place.get(), body.kind.get()) {
        (PLACE_LIST, KIND_FILE) => (body.count.get().div_ceil(LIST_PIECES).into(), true),
        (PLACE_LIST, _) => (u64::from(body.count.get()).div_ceil(LIST_LEN as u64), false),
        _ => (0, false),
    }
}

fn edit<T: FromBytes + IntoBytes + zerocopy::KnownLayout>(
    entry: &mut Entry,
    change: impl FnOnce(&mut T) -> Result<(), u64>,
) -> Result<(), u64> {
    const { assert!(size_of::<T>() == size_of::<Body>()) };
    match T::mut_from_bytes(&mut entry.body) {
        Ok(body) => change(body),
        // Every body has this size, and no alignment.
        Err(_) => Ok(()),
    }
}
