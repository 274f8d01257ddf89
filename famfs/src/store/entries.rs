// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The entries of a log, one after the other.

use zerocopy::{FromZeros, IntoBytes, transmute};

use crate::format::{self, ENTRY_LEN, Entry};
use crate::media::Media;
use crate::store::log_error::LogError;
use crate::store::numbering::numbering;

/// Entries that one read of a scan fetches, and one write of an append holds: about 1 MiB.
pub(super) const SCAN_ENTRIES: usize = 1928;

/// Entries of a log in order, each with its slot, checked.
pub struct Entries<'l> {
    media: &'l dyn Media,
    /// The entries, if they are not on the media yet.
    memory: Option<&'l [Entry]>,
    /// The numbering that the slots are of, if entries may move while this reads.
    numbering: Option<u64>,
    next: u64,
    end: u64,
    chunk: Vec<Entry>,
    at: usize,
}

impl<'l> Entries<'l> {
    /// The entries from slot `next` on, and below `end`.
    pub(super) fn of(media: &'l dyn Media, next: u64, end: u64) -> Self {
        Self { media, memory: None, numbering: None, next, end, chunk: Vec::new(), at: 0 }
    }

    /// The same; ends with an error when they are no longer those of a numbering.
    pub(super) fn numbered(mut self, numbering: u64) -> Self {
        self.numbering = Some(numbering);
        self
    }

    /// The same, but of `memory`, which has all entries of the log.
    pub(super) fn in_memory(mut self, memory: &'l [Entry]) -> Self {
        self.memory = Some(memory);
        self
    }

    fn fetch(&mut self) -> Result<Entry, LogError> {
        if let Some(memory) = self.memory {
            let entry = usize::try_from(self.next).ok().and_then(|slot| memory.get(slot));
            // There are as many as are published.
            let entry = entry.copied().unwrap_or_else(Entry::new_zeroed);
            return self.check(&entry).map(|()| entry);
        }
        if self.at == self.chunk.len() {
            let left = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
            self.chunk.resize(left.min(SCAN_ENTRIES), Entry::new_zeroed());
            self.media.read_at(format::slot_offset(self.next), self.chunk.as_mut_bytes())?;
            self.check_numbering()?;
            self.at = 0;
        }
        let entry = self.chunk[self.at];
        self.at += 1;
        self.check(&entry).map(|()| entry).or_else(|_| self.read_again())
    }

    /// Reads a bad entry once more, past the CPU's caches.
    fn read_again(&self) -> Result<Entry, LogError> {
        let offset = format::slot_offset(self.next);
        let mut bytes = [0; size_of::<Entry>()];
        self.media.refresh(offset, ENTRY_LEN)?;
        self.media.read_at(offset, &mut bytes)?;
        self.check_numbering()?;
        let entry: Entry = transmute!(bytes);
        self.check(&entry).map(|()| entry)
    }

    /// Makes sure that what was read has the numbers that it had when the log was opened.
    fn check_numbering(&self) -> Result<(), LogError> {
        let Some(expected) = self.numbering else { return Ok(()) };
        match numbering(self.media)? {
            found if found == expected => Ok(()),
            found => Err(LogError::Moved { slot: self.next, found, expected }),
        }
    }

    fn check(&self, entry: &Entry) -> Result<(), LogError> {
        let slot = self.next;
        let offset = format::slot_offset(slot) + self.media.origin();
        for (field, found, expected) in [
            ("checksum", entry.crc.get(), entry.checksum()),
            ("sequence number", entry.seqnum.get(), slot),
        ] {
            if found != expected {
                return Err(LogError::Slot { slot, offset, field, found, expected });
            }
        }
        Ok(())
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<(u64, Entry), LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let slot = self.next;
        let result = self.fetch().map(|entry| (slot, entry));
        self.next = if result.is_ok() { slot + 1 } else { self.end };
        Some(result)
    }
}
