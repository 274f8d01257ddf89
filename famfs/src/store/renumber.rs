// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Moves the entries of a log into slots without gaps.
//!
//! Entries name slots, so no single entry can move: all that counts moves down in order, and what
//! it names gets the new numbers. Meanwhile the log's header begins with another magic number, so
//! that whoever does not know of this reads nothing, and the superblock's 2 MiB say which old
//! entries count and how many have moved. So readers see at any moment what the log will be, and
//! whoever writes next goes on after a crash. The last record stays: its generation is the
//! [numbering](crate::store::numbering) of the log from then on.
//!
//! A batch of entries is durable in its buffer before it is written over slots, whose old entries
//! are in that batch or before it.

use std::mem::offset_of;
use std::thread;
use std::time::{Duration, Instant};

use zerocopy::little_endian::U64;
use zerocopy::{FromZeros, IntoBytes, transmute};

use crate::format::extension::GroupBody;
use crate::format::references;
use crate::format::renumbering::{
    self, BATCH_ENTRIES, BATCH_OFFSET, COUNTING_OFFSET, MAX_SLOTS, RENUMBERING_MAGIC,
    RENUMBERING_OFFSET, Renumbering,
};
use crate::format::{self, ENTRY_LEN, Entry, EntryKind, LOG_MAGIC, LOG_OFFSET, LogHeader};
use crate::media::Media;
use crate::store::entries::Entries;
use crate::store::log_error::LogError;
use crate::store::numbering::{RECORD_LEN, newest};

/// Instead of the new number of a slot whose entry does not count.
const NONE: u32 = u32::MAX;
/// How long a reader waits for entries that move, and its pause between two looks.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// How far the generation goes up at the start of a move. Who knows the numbers from right before
/// it keeps them where they are, but for a move behind the back of all.
const FOLLOWED: u64 = 1;
const UNFOLLOWED: u64 = 3;

/// Moves all entries that are not void into slots without gaps and frees the rest. Returns how many
/// there are; `None` if the log is too long for that, or names slots that are void, and stays, as
/// it does if `is_unread` says that somebody has begun to read it by slots. That is asked when
/// nobody begins to any more. Without that, nobody else has the log: a mount that is resumed
/// later is not told where its entries are.
///
/// # Errors
/// An entry is damaged, or the media cannot be read or written.
pub(super) fn renumber(
    media: &dyn Media,
    published: u64,
    is_unread: Option<&mut dyn FnMut() -> bool>,
) -> Result<Option<u64>, LogError> {
    let counting = Counting::of(media, published)?;
    let Some(counting) = counting.filter(|counting| counting.slots() <= MAX_SLOTS) else {
        return Ok(None);
    };
    let whole = Numbered::new(media, &counting, 0)?.find_map(Result::err);
    match whole {
        Some(LogError::Reference { .. }) => return Ok(None),
        Some(damage) => return Err(damage),
        None => {}
    }
    let before = newest(media)?.map_or(0, |record| record.generation.get());
    let step = if is_unread.is_some() { FOLLOWED } else { UNFOLLOWED };
    let records = 2 * counting.total().div_ceil(BATCH_ENTRIES) + 1;
    if before.checked_add(step + records).is_none() {
        // Only somebody who means harm gets there.
        return Ok(None);
    }
    write(media, COUNTING_OFFSET, &counting.bits)?;
    let mut record = Renumbering::new_zeroed();
    record.generation = U64::new(before + step);
    record.slots = U64::new(published);
    record.counting_crc = U64::new(renumbering::checksum(&counting.bits));
    write_record(media, record)?;
    write(media, LOG_OFFSET, &RENUMBERING_MAGIC.to_le_bytes())?;
    // Whoever lost the right to write may not have noticed, and others have published.
    let is_unread = is_unread.is_none_or(|is_unread| is_unread());
    if !is_unread || next_index(media)? != published {
        // No entry has moved.
        write(media, LOG_OFFSET, &LOG_MAGIC.to_le_bytes())?;
        return Ok(None);
    }
    finish(media, published).map(Some)
}

/// The number of published entries that the log's header has.
fn next_index(media: &dyn Media) -> Result<u64, LogError> {
    let mut next = [0; 8];
    media.read_at(LOG_OFFSET + offset_of!(LogHeader, next_index) as u64, &mut next)?;
    Ok(u64::from_le_bytes(next))
}

/// Goes on where a renumbering of a log of so many slots was interrupted. Returns the number of
/// entries.
///
/// # Errors
/// What tells how far it is, or an entry, is damaged; or the media cannot be read or written.
pub(super) fn finish(media: &dyn Media, most: u64) -> Result<u64, LogError> {
    let (mut record, counting) = state(media, most)?;
    let (mut moved, batch) = (record.moved.get(), record.batch.get());
    let next = next_index(media)?;
    if (moved, batch) == (0, 0) && record.first().is_none() && next != record.slots.get() {
        // Somebody else had published before the first entry moved.
        write(media, LOG_OFFSET, &LOG_MAGIC.to_le_bytes())?;
        return Ok(next);
    }
    if batch > 0 {
        let entries = read_batch(media, &record)?;
        write(media, format::slot_offset(moved), entries.as_bytes())?;
        moved += batch;
        record = write_next(media, record, moved, &[])?;
    }
    while moved < counting.total() {
        let left = Numbered::new(media, &counting, moved)?;
        let most = usize::try_from(BATCH_ENTRIES).unwrap_or(usize::MAX);
        let batch = left.take(most).collect::<Result<Vec<Entry>, _>>()?;
        write(media, BATCH_OFFSET, batch.as_bytes())?;
        record = write_next(media, record, moved, &batch)?;
        write(media, format::slot_offset(moved), batch.as_bytes())?;
        moved += batch.len() as u64;
        record = write_next(media, record, moved, &[])?;
    }
    if record.first().is_none() {
        let batches = moved.div_ceil(BATCH_ENTRIES);
        let first = record.generation.get().wrapping_sub(2 * batches);
        record.generation = U64::new(record.generation.get().wrapping_add(1));
        record.batch_crc = U64::new(first);
        write_record(media, record)?;
    }
    // The counters first: with the magic number, they count.
    let counters = offset_of!(LogHeader, next_seqnum) as u64;
    write(media, LOG_OFFSET + counters, &[moved.to_le_bytes(), moved.to_le_bytes()].concat())?;
    write(media, LOG_OFFSET, &LOG_MAGIC.to_le_bytes())?;
    Ok(moved)
}

/// The entries of a log whose entries are moving, as they will be.
///
/// # Errors
/// What tells how far it is, or an entry, is damaged; or the media cannot be read.
pub(super) fn view(media: &dyn Media, most: u64) -> Result<Vec<Entry>, LogError> {
    let start = Instant::now();
    loop {
        let (record, counting) = state(media, most)?;
        let viewed = view_at(media, &record, &counting);
        // Somebody may go on with it while this reads.
        let same = |now: &Renumbering| now.as_bytes() == record.as_bytes();
        if newest(media)?.as_ref().is_some_and(same) {
            return viewed;
        }
        if start.elapsed() >= PATIENCE {
            return Err(LogError::Moving { offset: RENUMBERING_OFFSET + media.origin() });
        }
        thread::sleep(PAUSE);
    }
}

fn view_at(
    media: &dyn Media,
    record: &Renumbering,
    counting: &Counting,
) -> Result<Vec<Entry>, LogError> {
    let (moved, batch) = (record.moved.get(), record.batch.get());
    let there = Entries::of(media, 0, moved).map(|entry| Ok(entry?.1));
    let mut entries = there.collect::<Result<Vec<Entry>, LogError>>()?;
    if batch > 0 {
        entries.extend(read_batch(media, record)?);
    }
    for entry in Numbered::new(media, counting, moved + batch)? {
        entries.push(entry?);
    }
    Ok(entries)
}

/// How far it is, and which entries count; checked.
fn state(media: &dyn Media, most: u64) -> Result<(Renumbering, Counting), LogError> {
    let damaged =
        |what| LogError::Renumbering { offset: RENUMBERING_OFFSET + media.origin(), what };
    let record = newest(media)?.ok_or_else(|| damaged("no record is whole"))?;
    if record.slots.get() > MAX_SLOTS.min(most) {
        return Err(damaged("more slots than there is room for"));
    }
    let bytes = usize::try_from(record.slots.get().div_ceil(8)).unwrap_or(usize::MAX);
    let mut bits = vec![0; bytes];
    media.refresh(COUNTING_OFFSET, bits.len() as u64)?;
    media.read_at(COUNTING_OFFSET, &mut bits)?;
    if renumbering::checksum(&bits) != record.counting_crc.get() {
        return Err(damaged("the checksum of the bits is wrong"));
    }
    let counting = Counting::new(bits, record.slots.get());
    let (moved, batch) = (record.moved.get(), record.batch.get());
    let end = moved.checked_add(batch).filter(|end| *end <= counting.total());
    if batch > BATCH_ENTRIES || end.is_none() {
        return Err(damaged("more entries than count"));
    }
    Ok((record, counting))
}

fn read_batch(media: &dyn Media, record: &Renumbering) -> Result<Vec<Entry>, LogError> {
    let count = usize::try_from(record.batch.get().min(BATCH_ENTRIES)).unwrap_or(0);
    let mut entries = vec![Entry::new_zeroed(); count];
    media.refresh(BATCH_OFFSET, ENTRY_LEN * count as u64)?;
    media.read_at(BATCH_OFFSET, entries.as_mut_bytes())?;
    if renumbering::checksum(entries.as_bytes()) != record.batch_crc.get() {
        let offset = BATCH_OFFSET + media.origin();
        return Err(LogError::Renumbering { offset, what: "the checksum of the batch is wrong" });
    }
    Ok(entries)
}

/// Tells that so many entries have moved, and which batch is about to.
fn write_next(
    media: &dyn Media,
    mut record: Renumbering,
    moved: u64,
    batch: &[Entry],
) -> Result<Renumbering, LogError> {
    record.generation = U64::new(record.generation.get().wrapping_add(1));
    record.moved = U64::new(moved);
    record.batch = U64::new(batch.len() as u64);
    record.batch_crc = U64::new(renumbering::checksum(batch.as_bytes()));
    write_record(media, record)?;
    Ok(record)
}

fn write_record(media: &dyn Media, record: Renumbering) -> Result<(), LogError> {
    let offset = RENUMBERING_OFFSET + record.generation.get() % 2 * RECORD_LEN;
    write(media, offset, record.sealed().as_bytes())
}

/// Writes something that is durable before anything that is written later.
fn write(media: &dyn Media, offset: u64, bytes: &[u8]) -> Result<(), LogError> {
    media.write_at(offset, bytes)?;
    Ok(media.persist(offset, bytes.len() as u64)?)
}

/// Sets the bit of a slot.
fn set(bits: &mut [u8], slot: u64, counts: bool) {
    if let Some(byte) = bits.get_mut(usize::try_from(slot / 8).unwrap_or(usize::MAX)) {
        let bit = 1 << (slot % 8);
        *byte = if counts { *byte | bit } else { *byte & !bit };
    }
}

/// Which old entries count.
struct Counting {
    /// A bit for each slot.
    bits: Vec<u8>,
    /// The new number of each slot, or [`NONE`].
    numbers: Vec<u32>,
    total: u64,
}

impl Counting {
    /// The entries that are not void; `None` if there are more slots than there is room for.
    fn of(media: &dyn Media, published: u64) -> Result<Option<Self>, LogError> {
        if published > MAX_SLOTS {
            return Ok(None);
        }
        let mut bits = vec![0; usize::try_from(published.div_ceil(8)).unwrap_or(0)];
        // The head of the last group, its last entry, and whether the group has a void one.
        let mut group: Option<(u64, u64, bool)> = None;
        for entry in Entries::of(media, 0, published) {
            let (slot, entry) = entry?;
            let kind = EntryKind::of(&entry);
            if kind != Some(EntryKind::Void) {
                set(&mut bits, slot, true);
            }
            if let Some((_, last, has_void)) = &mut group
                && slot <= *last
            {
                *has_void |= kind == Some(EntryKind::Void);
            } else {
                if let Some((head, _, true)) = group {
                    set(&mut bits, head, false);
                }
                let body: GroupBody = transmute!(entry.body);
                let last = slot.saturating_add(body.count.get());
                group = (kind == Some(EntryKind::Group)).then_some((slot, last, false));
            }
        }
        // A head counts the entries behind it, which would be others.
        if let Some((head, _, true)) = group {
            set(&mut bits, head, false);
        }
        Ok(Some(Self::new(bits, published)))
    }

    fn new(bits: Vec<u8>, slots: u64) -> Self {
        let mut total = 0;
        let number = |slot: u64| {
            let byte = bits.get(usize::try_from(slot / 8).unwrap_or(usize::MAX));
            if byte.is_none_or(|byte| byte & (1 << (slot % 8)) == 0) {
                return NONE;
            }
            total += 1;
            total - 1
        };
        let numbers = (0..slots).map(number).collect();
        Self { numbers, total: total.into(), bits }
    }

    fn slots(&self) -> u64 {
        self.numbers.len() as u64
    }

    fn total(&self) -> u64 {
        self.total
    }

    /// The new number of a slot.
    fn number(&self, slot: u64) -> Option<u64> {
        let number = self.numbers.get(usize::try_from(slot).ok()?)?;
        Some(*number).filter(|number| *number != NONE).map(u64::from)
    }

    /// The first old slot whose entry has not moved, once so many have.
    fn slot_after(&self, moved: u64) -> u64 {
        let mut counts = (0..).zip(&self.numbers).filter(|(_, number)| **number != NONE);
        let next = counts.find(|(_, number)| u64::from(**number) >= moved);
        next.map_or(self.slots(), |(slot, _)| slot)
    }
}

/// The entries that have not moved, as they will be.
struct Numbered<'m> {
    entries: Entries<'m>,
    counting: &'m Counting,
    /// First and last slot of `LIST` entries with pieces, backwards.
    pieces: Vec<(u64, u64)>,
    origin: u64,
}

impl<'m> Numbered<'m> {
    /// Those behind the first `moved` ones.
    fn new(media: &'m dyn Media, counting: &'m Counting, moved: u64) -> Result<Self, LogError> {
        let (first, end) = (counting.slot_after(moved), counting.slots());
        // A name says of the lists before it what they hold.
        let mut pieces = Vec::new();
        for entry in Entries::of(media, first, end) {
            let (slot, entry) = entry?;
            if let Some((lists, true)) = references::lists(&entry) {
                pieces.push((slot.saturating_sub(lists), slot));
            }
        }
        pieces.reverse();
        let entries = Entries::of(media, first, end);
        Ok(Self { entries, counting, pieces, origin: media.origin() })
    }

    fn number(&mut self, slot: u64, mut entry: Entry) -> Option<Result<Entry, LogError>> {
        let seqnum = self.counting.number(slot)?;
        while self.pieces.last().is_some_and(|(_, end)| *end <= slot) {
            self.pieces.pop();
        }
        let holds_pieces = self.pieces.last().is_some_and(|(first, _)| *first <= slot);
        let number = |slot: u64| self.counting.number(slot);
        let numbered = match EntryKind::of(&entry) {
            Some(EntryKind::List) if holds_pieces => {
                references::renumber_pieces(&mut entry, &number)
            }
            _ => references::renumber(&mut entry, &number),
        };
        let offset = format::slot_offset(slot) + self.origin;
        Some(match numbered {
            Ok(()) => Ok(Entry::new(seqnum, entry.kind.get(), entry.body)),
            Err(void) => Err(LogError::Reference { slot, offset, void }),
        })
    }
}

impl Iterator for Numbered<'_> {
    type Item = Result<Entry, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.entries.next()? {
                Err(err) => return Some(Err(err)),
                Ok((slot, entry)) => {
                    if let Some(numbered) = self.number(slot, entry) {
                        return Some(numbered);
                    }
                }
            }
        }
    }
}

// The magic number is written at the offset of the log.
const _: () = assert!(offset_of!(LogHeader, magic) == 0);
