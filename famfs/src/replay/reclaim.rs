// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Gives the memory of removed files back while others use the file system.
//!
//! As [`compact`] does, it makes entries void, by one store each and in the same order, so that a
//! crash at any store leaves the same files. But it takes only what was removed by entries below a
//! slot for which everybody has said that nothing of that is in use any more, it leaves published
//! entries published, and it keeps what later entries need.
//!
//! No reader that starts later can get at the memory: the removals are published, so what they
//! remove is no longer made from the log. One that had read the log before the removals must be
//! among those who were asked; that is the caller's part.
//!
//! A reader that is between what made a file and its removal while first the one and then the other
//! becomes void would bring the file back. So a number on the media is odd from before the first of
//! these stores until after the last one, and another one afterwards: [`read_steadily`] reads
//! again. Readers that do not know the number are why the caller looks between the two, and the
//! removals stay, without effect, if somebody has come.
//!
//! Whoever follows the log counts the memory as taken, and would refuse a new file there. The same
//! number says that the log is to be read again.
//!
//! [`compact`]: crate::replay::compact::compact

use crate::format::VOIDED_OFFSET;
use crate::format::map::DataArea;
use crate::format::path::RelPath;
use crate::media::{Media, MediaError};
use crate::replay::Plan;
use crate::replay::compact::{self, CompactError};
use crate::replay::dead::Dead;
use crate::store::log::{Log, LogError};

/// How often a log is read again, however often another system changes the number.
const MOST_READS: u32 = 20;

/// What was given back, and what is not yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Removed files, directories and symbolic links that are gone for good.
    pub objects: u64,
    /// Bytes that new files can have now and could not have before.
    pub bytes: u64,
    /// Bytes of removed files that new files cannot have yet.
    pub left: u64,
}

/// What nobody may have yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Releasing {
    /// Number of published entries.
    pub published: u64,
    /// Bytes of removed files, and of files of the store that hold nothing.
    pub bytes: u64,
    /// Number of removed files, directories and symbolic links.
    pub objects: u64,
    /// Number of entries without effect.
    pub idle: u64,
    /// Which numbers the slots have; `None` while entries move.
    pub numbering: Option<u64>,
    /// Log slots of entries that are void.
    pub voids: u64,
    /// Log slots for new entries.
    pub free: u64,
    /// Log slots in all.
    pub slots: u64,
    /// Somebody makes entries void right now, or was killed: the number on the media is odd.
    pub is_voiding: bool,
}

impl Releasing {
    /// Whether no memory is to be given back.
    pub fn is_nothing(&self) -> bool {
        (self.bytes, self.objects, self.idle) == (0, 0, 0)
    }

    /// Whether something goes on in the log, or was interrupted, that whoever has the right to
    /// write is to end.
    pub fn is_interrupted(&self) -> bool {
        self.is_voiding || self.numbering.is_none()
    }

    /// Whether the log should get the slots of void entries back: fewer than a quarter are free.
    pub fn is_short(&self) -> bool {
        is_short(self.free, self.slots) && self.voids > 0
    }

    /// The same for who writes something else, and moves entries only if it is worth it.
    pub fn is_shorter(&self) -> bool {
        is_shorter(self.voids, self.free, self.slots)
    }
}

/// Whether a log should get the slots of void entries back: fewer than a quarter are free.
#[must_use]
pub fn is_short(free: u64, slots: u64) -> bool {
    free < slots / 4
}

/// Whether a writer should have entries moved before it begins: each time, that gives back enough
/// for as many new entries as make it worth the next time.
pub fn is_shorter(voids: u64, free: u64, slots: u64) -> bool {
    is_short(free, slots) && voids > free / 4
}

/// What a reclamation would free if nobody used anything.
///
/// # Errors
/// The log cannot be read, or is not good in all of its entries.
pub fn releasing(media: &dyn Media) -> Result<Releasing, CompactError> {
    undisturbed(|| {
        let is_voiding = !number(media).map_err(LogError::from)?.is_multiple_of(2);
        let (log, plan, _) = compact::open(media, true)?;
        let dead = Dead::of(&log, &plan)?;
        Ok(Releasing {
            published: log.published(),
            bytes: dead.units + dead.pages,
            objects: dead.objects,
            idle: plan.idle().len() as u64,
            numbering: log.numbering(),
            voids: plan.voids().len() as u64,
            free: log.free_slots(),
            slots: log.slots(),
            is_voiding,
        })
    })
}

/// Reads again, but not for ever, what others disturb by moving entries into other slots.
fn undisturbed<T>(mut read: impl FnMut() -> Result<T, CompactError>) -> Result<T, CompactError> {
    let moved = |result: &Result<T, CompactError>| {
        let error = result.as_ref().err();
        matches!(
            error,
            Some(CompactError::Log(LogError::Moved { .. }))
                | Some(CompactError::Damaged(LogError::Moved { .. }))
        )
    };
    let mut result = read();
    for _ in 1..MOST_READS {
        if !moved(&result) {
            break;
        }
        result = read();
    }
    result
}

/// Ends what was interrupted: goes on with moves of entries, and says that none becomes void any
/// more, or whoever follows the log reads all of it again and again. The caller has the right to
/// write.
///
/// # Errors
/// The log cannot be read or written, or is not good in all of its entries.
pub fn end_interrupted(media: &dyn Media) -> Result<(), CompactError> {
    compact::open(media, false)?;
    Ok(Number::read(media)?.end()?)
}

/// Gives back the slots of void entries: all others move into slots without gaps. The caller has
/// the right to write, and has made sure that whoever reads the log notices; `is_unread` tells
/// whether nobody else has begun to. Returns the number of slots; 0 if it could not.
///
/// # Errors
/// The log cannot be read or written, or is not good in all of its entries.
pub fn renumber(
    media: &dyn Media,
    mut is_unread: impl FnMut() -> bool,
) -> Result<u64, CompactError> {
    let (mut log, plan, _) = compact::open(media, false)?;
    let before = log.published();
    Ok(match !plan.voids().is_empty() && log.renumber(Some(&mut is_unread))? {
        true => before - log.published(),
        false => 0,
    })
}

/// Gives back what entries below slot `released` of a numbering have removed. The caller has the
/// right to write, and has made sure that nobody uses any of it. If the slots have other numbers by
/// now, that is not known of anything. When all that made something is void,
/// `is_unread` tells whether nobody has begun to read the log since; else the entries that have no
/// effect any more stay.
///
/// # Errors
/// The log cannot be read or written, or is not good in all of its entries.
pub fn reclaim(
    media: &dyn Media,
    released: u64,
    numbering: u64,
    mut is_unread: impl FnMut() -> bool,
) -> Result<Reclaimed, CompactError> {
    let (mut log, mut plan, area) = compact::open(media, false)?;
    let released = if log.numbering() == Some(numbering) { released } else { 0 };
    let before = available(&plan);
    let early = match released < log.published() {
        true => Some(read_before(&log, area, &plan, released)?),
        false => None,
    };
    let idle = plan.idle();
    let idle = &idle[..idle.partition_point(|slot| *slot < released)];
    let dead = Dead::released(&log, early.as_ref().unwrap_or(&plan), idle)?;
    drop(early);
    let mut number = Number::read(media)?;
    if number.void(&mut log, &dead, &mut is_unread)? {
        plan = Plan::read(&log, area, plan.has_extensions());
    }
    // What the store no longer needs shows only now.
    let store = Dead::in_store(&log, &plan)?;
    if number.void(&mut log, &store, &mut is_unread)? {
        plan = Plan::read(&log, area, plan.has_extensions());
    }
    number.end()?;
    let left = Dead::of(&log, &plan)?;
    Ok(Reclaimed {
        objects: dead.objects,
        bytes: available(&plan).saturating_sub(before),
        left: left.units + left.pages,
    })
}

/// The plan of the entries before a slot.
fn read_before(
    log: &Log<'_>,
    area: DataArea,
    plan: &Plan,
    slot: u64,
) -> Result<Plan, CompactError> {
    let mut early = Plan::unread(area, plan.has_extensions());
    early.read_before(log, area, slot);
    match early.stopped.take() {
        Some(damage) => Err(CompactError::Damaged(damage)),
        None => Ok(early),
    }
}

/// The path of what the entry of a slot removed or replaced, as far as one is known.
///
/// # Errors
/// The log cannot be read, or is not good in all of its entries.
pub fn removed_by(media: &dyn Media, slot: u64) -> Result<Option<RelPath>, CompactError> {
    undisturbed(|| {
        let (log, plan, area) = compact::open(media, true)?;
        let mut plan = read_before(&log, area, &plan, slot)?;
        let mut path = None;
        plan.read_each(&log, area, |_, at, change| {
            if at == slot {
                path = change.path().cloned();
            }
        });
        match plan.stopped.take() {
            Some(damage) => Err(CompactError::Damaged(damage)),
            None => Ok(path),
        }
    })
}

/// Bytes that a new file can have.
fn available(plan: &Plan) -> u64 {
    plan.space.free() + plan.tree().store_use().free
}

/// The number on the media that changes when entries become void.
///
/// # Errors
/// The media cannot be read.
pub fn number(media: &dyn Media) -> Result<u64, MediaError> {
    let mut bytes = [0; 8];
    media.refresh(VOIDED_OFFSET, 8)?;
    media.read_at(VOIDED_OFFSET, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Whether a plan that was read after a number was found is still right under another one.
#[must_use]
pub fn is_same(then: u64, now: u64) -> bool {
    then == now && now.is_multiple_of(2)
}

/// Reads a plan so that entries that become void meanwhile do not make it wrong.
///
/// What made something becomes void before its removal does. So a plan that has missed a removal
/// has something whose own entry is void by then, and one that is read again has not.
///
/// # Errors
/// The media cannot be read.
pub fn read_steadily(
    media: &dyn Media,
    mut read: impl FnMut() -> Plan,
) -> Result<Plan, MediaError> {
    let mut before = number(media)?;
    let mut plan = read();
    for _ in 0..MOST_READS {
        let now = number(media)?;
        if is_same(before, now) {
            break;
        }
        // It stays odd if the one who made it odd was killed.
        let again = read();
        let is_there = |slot: &u64| plan.tree().object(*slot).is_some();
        if !again.voids().iter().any(is_there) && plan.refused.len() <= again.refused.len() {
            break;
        }
        (before, plan) = (now, again);
    }
    Ok(plan)
}

/// The number, by the one who makes entries void.
struct Number<'m> {
    media: &'m dyn Media,
    found: u64,
    /// Whether it says that entries become void now.
    begun: bool,
}

impl<'m> Number<'m> {
    fn read(media: &'m dyn Media) -> Result<Self, LogError> {
        // After a crash in between it is odd, until a reclamation has come to its end.
        let found = number(media)?;
        Ok(Self { media, found, begun: !found.is_multiple_of(2) })
    }

    /// Makes entries void, first those that made something; returns whether there are any.
    fn void(
        &mut self,
        log: &mut Log<'_>,
        dead: &Dead,
        is_unread: &mut dyn FnMut() -> bool,
    ) -> Result<bool, LogError> {
        let any = dead.made.len() + dead.rest.len() > 0;
        if any && !self.begun {
            self.begun = true;
            self.store()?;
        }
        for slot in &dead.made {
            log.void(*slot)?;
        }
        if any && is_unread() {
            for slot in &dead.rest {
                log.void(*slot)?;
            }
        }
        Ok(any)
    }

    fn end(&mut self) -> Result<(), LogError> {
        if self.begun {
            self.store()?;
        }
        Ok(())
    }

    fn store(&mut self) -> Result<(), LogError> {
        self.found = self.found.wrapping_add(1);
        self.media.write_at(VOIDED_OFFSET, &self.found.to_le_bytes())?;
        Ok(self.media.persist(VOIDED_OFFSET, 8)?)
    }
}
