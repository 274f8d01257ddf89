// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads the entries of the log, appends to it, and makes an empty one.
//!
//! The entries below `next_index` are published. An append writes new entries after them, makes
//! them durable, and only then advances `next_seqnum` and `next_index`, in this order. So a crash
//! at any store leaves a log whose published entries are complete.

use std::mem::offset_of;

use zerocopy::little_endian::U64;
use zerocopy::{IntoBytes, transmute};

use crate::format::renumbering::{RENUMBERING_MAGIC, RENUMBERING_OFFSET};
use crate::format::{
    self, Body, ENTRY_LEN, Entry, LOG_HEADER_LEN, LOG_MAGIC, LOG_OFFSET, LogHeader,
};
use crate::media::{Media, MediaError};
use crate::store::entries::SCAN_ENTRIES;
use crate::store::numbering::numbering;
use crate::store::renumber;

pub use crate::store::entries::Entries;
pub use crate::store::log_error::LogError;

/// Device offsets of the header's counters.
const NEXT_SEQNUM_OFFSET: u64 = LOG_OFFSET + offset_of!(LogHeader, next_seqnum) as u64;
const NEXT_INDEX_OFFSET: u64 = LOG_OFFSET + offset_of!(LogHeader, next_index) as u64;

/// How often a log is opened whose entries begin or end to move meanwhile.
const ATTEMPTS: u32 = 100;

/// A log with a valid header.
pub struct Log<'m> {
    media: &'m dyn Media,
    slots: u64,
    next_seqnum: u64,
    next_index: u64,
    /// Which numbers the entries have.
    numbering: u64,
    /// The entries as they will be, if they are moving into other slots.
    moving: Option<Vec<Entry>>,
}

impl<'m> Log<'m> {
    /// Reads and checks the header of a log of `log_len` bytes.
    pub fn open(media: &'m dyn Media, log_len: u64) -> Result<Self, LogError> {
        for _ in 0..ATTEMPTS {
            let before = numbering(media)?;
            let opened = Self::open_once(media, log_len, before);
            // What is read while entries begin or end to move may be of both.
            if numbering(media)? == before {
                return opened;
            }
        }
        Err(LogError::Moving { offset: RENUMBERING_OFFSET + media.origin() })
    }

    fn open_once(media: &'m dyn Media, log_len: u64, numbering: u64) -> Result<Self, LogError> {
        let raw = Self::header(media, log_len)?;
        let slots = format::slots(log_len);
        if raw.magic.get() == RENUMBERING_MAGIC {
            let entries = renumber::view(media, slots)?;
            let next = entries.len() as u64;
            let moving = Some(entries);
            return Ok(Self {
                media,
                slots,
                next_seqnum: next,
                next_index: next,
                numbering,
                moving,
            });
        }
        let (next_seqnum, next_index) = (raw.next_seqnum.get(), raw.next_index.get());
        Ok(Self { media, slots, next_seqnum, next_index, numbering, moving: None })
    }

    /// Reads and checks the header of a log of `log_len` bytes, and nothing else.
    pub fn header(media: &dyn Media, log_len: u64) -> Result<LogHeader, LogError> {
        let mut bytes = [0; size_of::<LogHeader>()];
        media.read_at(LOG_OFFSET, &mut bytes)?;
        let raw: LogHeader = transmute!(bytes);
        let offset = LOG_OFFSET + media.origin();
        if raw.magic.get() == RENUMBERING_MAGIC {
            // The checksum is that of a log whose entries do not move.
            return Ok(raw);
        }
        if raw.magic.get() != LOG_MAGIC {
            return Err(LogError::Magic { offset, found: raw.magic.get() });
        }
        for (field, found, expected) in [
            ("checksum", raw.crc.get(), raw.checksum()),
            ("length", raw.len.get(), log_len),
            ("last index", raw.last_index.get(), format::slots(log_len).saturating_sub(1)),
        ] {
            if found != expected {
                return Err(LogError::Header { offset, field, found, expected });
            }
        }
        Ok(raw)
    }

    /// Writes an empty log of `log_len` bytes, header last.
    pub fn format(media: &dyn Media, log_len: u64) -> Result<(), MediaError> {
        media.zero(LOG_OFFSET, log_len)?;
        media.persist(LOG_OFFSET, log_len)?;
        let mut raw = LogHeader {
            magic: U64::new(LOG_MAGIC),
            len: U64::new(log_len),
            last_index: U64::new(format::slots(log_len).saturating_sub(1)),
            crc: U64::ZERO,
            next_seqnum: U64::ZERO,
            next_index: U64::ZERO,
        };
        raw.crc = U64::new(raw.checksum());
        media.write_at(LOG_OFFSET, raw.as_bytes())?;
        media.persist(LOG_OFFSET, LOG_HEADER_LEN)
    }

    /// The device that the log is on.
    pub fn media(&self) -> &'m dyn Media {
        self.media
    }

    /// Slots of the log.
    pub fn slots(&self) -> u64 {
        self.slots
    }

    /// Slots that hold no published entry.
    pub fn free_slots(&self) -> u64 {
        self.slots.saturating_sub(self.next_index)
    }

    /// Number of published entries, as far as there are slots for them.
    pub fn published(&self) -> u64 {
        self.next_index.min(self.slots)
    }

    /// Sequence number of the next entry, as on the media.
    pub fn next_seqnum(&self) -> u64 {
        self.next_seqnum
    }

    /// Index of the next entry, as on the media.
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// The published entries from a slot on, in order; ends after the first error.
    pub fn entries_from(&self, first: u64) -> Entries<'_> {
        self.range(first, self.published())
    }

    /// Whether a group of `count` entries behind slot `head` is there as a whole: published, and
    /// each entry good.
    pub fn check_group(&self, head: u64, count: u64) -> Result<(), LogError> {
        let published = self.published().saturating_sub(head + 1);
        if count > published {
            let offset = format::slot_offset(head) + self.media.origin();
            return Err(LogError::Group { slot: head, offset, count, published });
        }
        self.range(head + 1, head + 1 + count).try_for_each(|entry| entry.map(drop))
    }

    /// What is wrong with the counters; an interrupted append is not (see [`Log::interrupted`]).
    pub fn counter_problem(&self) -> Option<LogError> {
        let offset = LOG_OFFSET + self.media.origin();
        let Self { next_seqnum, next_index, slots, .. } = *self;
        if next_index > slots {
            return Some(LogError::PastEnd { offset, found: next_index, slots });
        }
        if next_seqnum == next_index || self.interrupted().is_some() {
            return None;
        }
        Some(LogError::Counters { offset, next_seqnum, next_index })
    }

    /// Number of complete entries after the published ones that an append left unpublished, because
    /// it was interrupted between its last two stores.
    pub fn interrupted(&self) -> Option<u64> {
        let plausible = self.next_index < self.next_seqnum && self.next_seqnum <= self.slots;
        let complete = || self.range(self.next_index, self.next_seqnum).all(|entry| entry.is_ok());
        (plausible && complete()).then(|| self.next_seqnum - self.next_index)
    }

    /// The entries that [`Log::interrupted`] counts.
    pub fn unpublished(&self) -> Entries<'_> {
        self.range(self.next_index, self.next_index + self.interrupted().unwrap_or(0))
    }

    /// Whether entries are moving into other slots, or that was interrupted. What is read here is
    /// what the log will be.
    pub fn is_moving(&self) -> bool {
        self.moving.is_some()
    }

    /// Which numbers the entries have; `None` while they move.
    pub fn numbering(&self) -> Option<u64> {
        self.moving.is_none().then_some(self.numbering)
    }

    /// Makes the log ready for appends: goes on with moves into other slots, publishes what an
    /// interrupted append had completed, and refuses counters that make no sense.
    pub fn prepare_append(&mut self) -> Result<(), LogError> {
        if self.moving.is_some() {
            let next = renumber::finish(self.media, self.slots)?;
            (self.next_seqnum, self.next_index) = (next, next);
            (self.numbering, self.moving) = (numbering(self.media)?, None);
            self.media.announce();
        }
        if let Some(problem) = self.counter_problem() {
            return Err(problem);
        }
        if self.next_index != self.next_seqnum {
            self.publish(self.next_seqnum)?;
        }
        Ok(())
    }

    /// Makes the log ready for appends; with `dry_run` only refuses counters that make no sense.
    pub fn prepare(&mut self, dry_run: bool) -> Result<(), LogError> {
        match dry_run {
            true => self.counter_problem().map_or(Ok(()), Err),
            false => self.prepare_append(),
        }
    }

    /// Appends entries, given as kind and body, and publishes them together.
    pub fn append(&mut self, entries: &[(u32, Body)]) -> Result<(), LogError> {
        let needed = entries.len() as u64;
        let free = self.free_slots();
        if needed > free {
            return Err(LogError::Full { needed, free, slots: self.slots });
        }
        let first = format::slot_offset(self.next_index);
        let (mut offset, mut seqnums) = (first, self.next_index..);
        for entries in entries.chunks(SCAN_ENTRIES) {
            let mut bytes = Vec::with_capacity(size_of_val(entries));
            for ((kind, body), seqnum) in entries.iter().zip(seqnums.by_ref()) {
                bytes.extend_from_slice(Entry::new(seqnum, *kind, *body).as_bytes());
            }
            self.media.write_at(offset, &bytes)?;
            offset += bytes.len() as u64;
        }
        self.media.persist(first, ENTRY_LEN * needed)?;
        self.publish(self.next_index + needed)
    }

    /// The checksum of a published entry, which must be right.
    pub fn checksum(&self, slot: u64) -> Result<Option<u64>, LogError> {
        self.range(slot, slot + 1).next().map(|entry| Ok(entry?.1.crc.get())).transpose()
    }

    /// Whether the media now says that all entries below `end` are published.
    pub fn shows(&self, end: u64) -> bool {
        let mut next = [0; 8];
        let read = self.media.read_at(NEXT_INDEX_OFFSET, &mut next);
        read.is_ok() && u64::from_le_bytes(next) >= end
    }

    /// Makes a published entry void, with one store that is durable before any later one.
    pub fn void(&mut self, slot: u64) -> Result<(), LogError> {
        let Some(entry) = self.range(slot, slot + 1).next() else { return Ok(()) };
        let word = entry?.1.voided();
        let offset = format::slot_offset(slot) + Entry::KIND_AND_PAD.start as u64;
        self.media.write_at(offset, &word)?;
        Ok(self.media.persist(offset, word.len() as u64)?)
    }

    /// Frees the slots from `next` on, whose entries must be void. The index goes first: a crash in
    /// between looks like an interrupted append of void entries.
    pub fn give_back(&mut self, next: u64) -> Result<(), LogError> {
        self.media.write_at(NEXT_INDEX_OFFSET, &next.to_le_bytes())?;
        self.media.persist(NEXT_INDEX_OFFSET, 8)?;
        self.media.write_at(NEXT_SEQNUM_OFFSET, &next.to_le_bytes())?;
        self.media.persist(NEXT_SEQNUM_OFFSET, 8)?;
        (self.next_seqnum, self.next_index) = (next, next);
        Ok(())
    }

    /// Moves all entries that are not void into slots without gaps, and frees the others. Returns
    /// whether it could; no entry names the slots that it had before. Whoever reads the log by
    /// slots must know of this: `is_unread` tells whether nobody else has begun to; without it,
    /// nobody else has the log.
    pub fn renumber(
        &mut self,
        is_unread: Option<&mut dyn FnMut() -> bool>,
    ) -> Result<bool, LogError> {
        let moved = renumber::renumber(self.media, self.published(), is_unread);
        self.numbering = numbering(self.media)?;
        let Some(next) = moved? else { return Ok(false) };
        (self.next_seqnum, self.next_index) = (next, next);
        self.media.announce();
        Ok(true)
    }

    fn publish(&mut self, next: u64) -> Result<(), LogError> {
        self.media.write_at(NEXT_SEQNUM_OFFSET, &next.to_le_bytes())?;
        self.media.write_at(NEXT_INDEX_OFFSET, &next.to_le_bytes())?;
        self.media.persist(NEXT_SEQNUM_OFFSET, 16)?;
        (self.next_seqnum, self.next_index) = (next, next);
        self.media.announce();
        Ok(())
    }

    fn range(&self, next: u64, end: u64) -> Entries<'_> {
        let entries = Entries::of(self.media, next, end);
        match &self.moving {
            Some(moving) => entries.in_memory(moving),
            None => entries.numbered(self.numbering),
        }
    }
}
