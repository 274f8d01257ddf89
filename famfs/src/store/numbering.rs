// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which numbers the entries of a log have: the generation of the newest record of how far they
//! have moved into other slots.
//!
//! A record is durable before anything that it announces is written. So entries that were read
//! between two looks at the same generation are those of one numbering.

use std::mem::size_of;
use std::sync::atomic::{Ordering, fence};

use zerocopy::{FromZeros, IntoBytes};

use crate::format::renumbering::{RENUMBERING_OFFSET, Renumbering};
use crate::media::{Media, MediaError};

pub(super) const RECORD_LEN: u64 = size_of::<Renumbering>() as u64;

/// What entries are called by: no slot means anything without it. 0 if they have never moved.
///
/// # Errors
/// The media cannot be read.
pub fn numbering(media: &dyn Media) -> Result<u64, MediaError> {
    // What was read before stays before.
    fence(Ordering::Acquire);
    let newest = newest(media)?;
    fence(Ordering::Acquire);
    Ok(newest.map_or(0, |record| record.generation.get()))
}

/// The slots of a log before its entries moved for the last time, and where they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restated {
    /// The generation of the first record of that move.
    first: u64,
    /// Entries that were published before.
    pub old: u64,
    /// Entries that are left of them, in slots from 0 on.
    pub new: u64,
}

impl Restated {
    /// The last move, if its record tells where it began. One that did not begin leaves all entries
    /// where they are.
    ///
    /// # Errors
    /// The media cannot be read.
    pub fn read(media: &dyn Media) -> Result<Option<Self>, MediaError> {
        let restated = |record: Renumbering| {
            let old = record.slots.get();
            match record.first() {
                Some(first) => Some(Self { first, old, new: record.moved.get() }),
                None if (record.moved.get(), record.batch.get()) == (0, 0) => {
                    Some(Self { first: record.generation.get(), old, new: old })
                }
                None => None,
            }
        };
        Ok(newest(media)?.and_then(restated))
    }

    /// Whether slots of this numbering are those before the move. The first record says nothing of
    /// entries in other slots yet.
    #[must_use]
    pub fn is_from(&self, numbering: u64) -> bool {
        numbering == self.first || numbering.checked_add(1) == Some(self.first)
    }
}

/// The newer record, if one is whole.
pub(super) fn newest(media: &dyn Media) -> Result<Option<Renumbering>, MediaError> {
    let mut raw = [Renumbering::new_zeroed(); 2];
    media.refresh(RENUMBERING_OFFSET, 2 * RECORD_LEN)?;
    media.read_at(RENUMBERING_OFFSET, raw.as_mut_bytes())?;
    let whole = raw.into_iter().filter(Renumbering::is_whole);
    Ok(whole.max_by_key(|record| record.generation.get()))
}
