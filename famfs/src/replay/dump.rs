// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Walks over every byte of superblock and log, for `famfs dump`. Damaged media are walked like
//! intact ones; only what cannot be read at all ends the walk.

use serde::Serialize;
use zerocopy::{FromZeros, IntoBytes};

use crate::format::extension::{EXTENSIONS_MAGIC, EXTENSIONS_OFFSET, Extensions};
use crate::format::fields::{self, Field};
use crate::format::{self, ENTRY_LEN, Entry, LEASE_MAGIC, LEASE_OFFSET, LOG_HEADER_LEN};
use crate::format::{LOG_OFFSET, Lease, LogHeader, Superblock};
use crate::media::{Media, MediaError};
use crate::store::superblock::{default_log_len, is_log_len};
use crate::text::error_report::one_line;

/// Bytes that one read fetches, approximately.
const STEP: u64 = 1 << 20;

/// A piece of the media. The pieces of a walk follow each other without a gap.
#[derive(Debug, Serialize)]
pub struct Area {
    /// Offset of its first byte in the device or pool.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
    /// What it is.
    #[serde(flatten)]
    pub kind: AreaKind,
}

/// What an [`Area`] is.
#[derive(Debug, Serialize)]
#[serde(tag = "area", rename_all = "snake_case")]
pub enum AreaKind {
    /// The superblock.
    Superblock {
        /// Its fields.
        fields: Vec<Field>,
    },
    /// The master's lease.
    Lease {
        /// Its fields.
        fields: Vec<Field>,
    },
    /// The mark of a file system with extensions.
    Extensions {
        /// Its fields.
        fields: Vec<Field>,
    },
    /// The log's header.
    LogHeader {
        /// Its fields.
        fields: Vec<Field>,
    },
    /// A slot of the log that is not all zero.
    LogSlot {
        /// Its index.
        slot: u64,
        /// Whether it is below the header's next index, so that readers play it.
        published: bool,
        /// Its fields.
        fields: Vec<Field>,
    },
    /// Slots that are all zero.
    ZeroSlots {
        /// Index of the first one.
        slot: u64,
        /// Number of slots.
        slots: u64,
        /// Whether they are below the header's next index, where no slot should be zero.
        published: bool,
    },
    /// Bytes without meaning: after the superblock, or after the last slot.
    Unused {
        /// How many of them are not zero.
        not_zero: u64,
        /// Offset of the first one that is not zero.
        #[serde(skip_serializing_if = "Option::is_none")]
        first: Option<u64>,
        /// Offset of the last one that is not zero.
        #[serde(skip_serializing_if = "Option::is_none")]
        last: Option<u64>,
    },
    /// Bytes that should be there and cannot be read.
    Unreadable {
        /// Why.
        error: String,
    },
}

/// Where the length of the log was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthFrom {
    /// In the superblock, as every reader does.
    Superblock,
    /// In the log's header, because the superblock has no possible length.
    LogHeader,
    /// Nowhere: it is the length that `mkfs` would pick for the device.
    Default,
}

/// What a walk found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Slots of the log.
    pub slots: u64,
    /// Published slots that are not all zero.
    pub published: u64,
    /// Slots with something in them that is not published.
    pub unpublished: u64,
    /// Slots that are all zero.
    pub zero: u64,
    /// Fields with a value other than the only right one.
    pub wrong_fields: u64,
    /// Bytes that could not be read.
    pub unreadable_bytes: u64,
}

/// Superblock and log of a device, to be walked.
pub struct Dump<'m> {
    media: &'m dyn Media,
    log_len: u64,
    length_from: LengthFrom,
}

impl<'m> Dump<'m> {
    /// Finds the log's length.
    pub fn new(media: &'m dyn Media) -> Self {
        let possible = |len: u64| is_log_len(len) && len <= media.len().saturating_sub(LOG_OFFSET);
        let of_superblock = read_superblock(media).map(|raw| raw.log_len.get());
        let of_header = read_header(media).map(|raw| raw.len.get());
        let (log_len, length_from) = match (of_superblock, of_header) {
            (Ok(len), _) if possible(len) => (len, LengthFrom::Superblock),
            (_, Ok(len)) if possible(len) => (len, LengthFrom::LogHeader),
            // Impossible only because the device was cut: what is left belongs to the log.
            (Ok(len), _) if is_log_len(len) => (len, LengthFrom::Superblock),
            _ => (default_log_len(media.len()), LengthFrom::Default),
        };
        Self { media, log_len, length_from }
    }

    /// Length in bytes of the log that is walked.
    pub fn log_len(&self) -> u64 {
        self.log_len
    }

    /// Where that length was found.
    pub fn length_from(&self) -> LengthFrom {
        self.length_from
    }

    /// Calls `visit` with every piece of superblock and log in order; an error from it ends the
    /// walk.
    pub fn walk<E>(&self, visit: impl FnMut(Area) -> Result<(), E>) -> Result<Counts, E> {
        let counts = Counts { slots: format::slots(self.log_len), ..Counts::default() };
        let mut walk = Walk { media: self.media, at: 0, zero_slots: None, counts, visit };
        match self.walk_areas(&mut walk) {
            Ok(()) => {}
            Err(Stop::Visit(err)) => return Err(err),
            Err(Stop::Media(err)) => {
                walk.end_zero_slots()?;
                let left = LOG_OFFSET + self.log_len - walk.at;
                walk.counts.unreadable_bytes = left;
                walk.give(left, AreaKind::Unreadable { error: one_line(&err) })?;
            }
        }
        Ok(walk.counts)
    }

    fn walk_areas<E>(
        &self,
        walk: &mut Walk<'m, impl FnMut(Area) -> Result<(), E>>,
    ) -> Result<(), Stop<E>> {
        let origin = self.media.origin();
        let fields = fields::superblock(&read_superblock(self.media)?, origin);
        walk.give(size_of::<Superblock>() as u64, AreaKind::Superblock { fields })
            .map_err(Stop::Visit)?;
        let lease = read_lease(self.media)?;
        if lease.magic.get() == LEASE_MAGIC {
            walk.unused(LEASE_OFFSET)?;
            let fields = fields::lease(&lease, origin + LEASE_OFFSET);
            walk.give(size_of::<Lease>() as u64, AreaKind::Lease { fields })
                .map_err(Stop::Visit)?;
        }
        let mark = read_extensions(self.media)?;
        if mark.magic.get() == EXTENSIONS_MAGIC {
            walk.unused(EXTENSIONS_OFFSET)?;
            let fields = fields::mark(&mark, origin + EXTENSIONS_OFFSET);
            walk.give(size_of::<Extensions>() as u64, AreaKind::Extensions { fields })
                .map_err(Stop::Visit)?;
        }
        walk.unused(LOG_OFFSET)?;
        let header = read_header(self.media)?;
        let fields = fields::log_header(&header, origin + LOG_OFFSET, self.log_len);
        walk.give(LOG_HEADER_LEN, AreaKind::LogHeader { fields }).map_err(Stop::Visit)?;
        let slots = format::slots(self.log_len);
        let next_index = header.next_index.get();
        let mut slot = 0;
        while slot < slots {
            let offset = format::slot_offset(slot);
            let fitting = self.media.len().saturating_sub(offset) / ENTRY_LEN;
            // At least one slot, so that the end of the device shows as an error.
            let count = (slots - slot).min(STEP / ENTRY_LEN).min(fitting).max(1);
            let mut entries =
                vec![Entry::new_zeroed(); usize::try_from(count).unwrap_or(usize::MAX)];
            self.media.read_at(offset, entries.as_mut_bytes())?;
            for entry in &entries {
                walk.slot(slot, slot < next_index, entry).map_err(Stop::Visit)?;
                slot += 1;
            }
        }
        walk.end_zero_slots().map_err(Stop::Visit)?;
        walk.unused(LOG_OFFSET + self.log_len)
    }
}

fn read_superblock(media: &dyn Media) -> Result<Superblock, MediaError> {
    let mut raw = Superblock::new_zeroed();
    media.read_at(0, raw.as_mut_bytes())?;
    Ok(raw)
}

fn read_lease(media: &dyn Media) -> Result<Lease, MediaError> {
    let mut raw = Lease::new_zeroed();
    media.read_at(LEASE_OFFSET, raw.as_mut_bytes())?;
    Ok(raw)
}

fn read_extensions(media: &dyn Media) -> Result<Extensions, MediaError> {
    let mut raw = Extensions::new_zeroed();
    media.read_at(EXTENSIONS_OFFSET, raw.as_mut_bytes())?;
    Ok(raw)
}

fn read_header(media: &dyn Media) -> Result<LogHeader, MediaError> {
    let mut raw = LogHeader::new_zeroed();
    media.read_at(LOG_OFFSET, raw.as_mut_bytes())?;
    Ok(raw)
}

/// Why a walk ends early.
enum Stop<E> {
    /// The media cannot be read.
    Media(MediaError),
    /// The visitor wants no more.
    Visit(E),
}

impl<E> From<MediaError> for Stop<E> {
    fn from(err: MediaError) -> Self {
        Self::Media(err)
    }
}

/// A walk in progress.
struct Walk<'m, V> {
    media: &'m dyn Media,
    /// Device offset of the next piece.
    at: u64,
    /// First slot, number and publication of zero slots that were found and not yet passed on.
    zero_slots: Option<(u64, u64, bool)>,
    counts: Counts,
    visit: V,
}

impl<V: FnMut(Area) -> Result<(), E>, E> Walk<'_, V> {
    fn give(&mut self, bytes: u64, kind: AreaKind) -> Result<(), E> {
        if let AreaKind::Superblock { fields }
        | AreaKind::Lease { fields }
        | AreaKind::Extensions { fields }
        | AreaKind::LogHeader { fields }
        | AreaKind::LogSlot { fields, .. } = &kind
        {
            self.counts.wrong_fields +=
                fields.iter().filter(|field| field.is_wrong()).count() as u64;
        }
        let offset = self.media.origin() + self.at;
        self.at += bytes;
        (self.visit)(Area { offset, bytes, kind })
    }

    fn slot(&mut self, slot: u64, published: bool, entry: &Entry) -> Result<(), E> {
        if entry.as_bytes().iter().all(|&byte| byte == 0) {
            self.counts.zero += 1;
            match &mut self.zero_slots {
                Some((_, slots, same)) if *same == published => *slots += 1,
                _ => {
                    self.end_zero_slots()?;
                    self.zero_slots = Some((slot, 1, published));
                }
            }
            return Ok(());
        }
        self.end_zero_slots()?;
        let count =
            if published { &mut self.counts.published } else { &mut self.counts.unpublished };
        *count += 1;
        let fields = fields::entry(entry, self.media.origin() + self.at, slot);
        self.give(ENTRY_LEN, AreaKind::LogSlot { slot, published, fields })
    }

    fn end_zero_slots(&mut self) -> Result<(), E> {
        let Some((slot, slots, published)) = self.zero_slots.take() else { return Ok(()) };
        self.give(slots * ENTRY_LEN, AreaKind::ZeroSlots { slot, slots, published })
    }

    /// Passes the bytes up to `end` on as bytes without meaning.
    fn unused(&mut self, end: u64) -> Result<(), Stop<E>> {
        let (mut not_zero, mut first, mut last) = (0, None, None);
        let mut at = self.at;
        while at < end {
            let mut bytes = vec![0; usize::try_from(STEP.min(end - at)).unwrap_or(usize::MAX)];
            self.media.read_at(at, &mut bytes)?;
            for (offset, _) in (at..).zip(&bytes).filter(|(_, byte)| **byte != 0) {
                not_zero += 1;
                last = Some(self.media.origin() + offset);
                first = first.or(last);
            }
            at += bytes.len() as u64;
        }
        self.give(end - self.at, AreaKind::Unused { not_zero, first, last }).map_err(Stop::Visit)
    }
}
