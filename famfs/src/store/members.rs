// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The members of a file system: the running systems that follow its log, and how far each is.
//!
//! A member takes a place in a table in the superblock's 2 MiB, and only it writes there. Whoever
//! publishes sees in the table when everybody has what was published, and whoever gives memory of
//! removed files back sees what nobody uses any more. A system that cannot write the memory takes
//! no place; its host may take one for it, or nothing is known of it.

use std::collections::HashMap;
use std::mem::offset_of;
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;
use zerocopy::little_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

use crate::format::{
    self, MAX_MEMBERS, MEMBER_MAGIC, MEMBER_VERSION, MEMBERS_OFFSET, numbered, slot_in,
};
use crate::media::{Media, MediaError};
use crate::store::identity::{Identity, IdentityError, RunningSystem};
use crate::store::lease::Timing;

const LEN: u64 = size_of::<format::Member>() as u64;
/// Bytes that say who it is; how far it has come is in the next cache line.
const IDENTITY_LEN: usize = offset_of!(format::Member, old_applied);
/// Pause between two looks at the heartbeats.
const PAUSE: Duration = Duration::from_millis(50);
/// How often to try to take a place: others may claim the same one, at the same moment or for ever.
const ATTEMPTS: usize = 16;

/// The tools of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tools {
    /// They say what these say.
    #[default]
    Same,
    /// They do not follow entries into other slots.
    Older,
    /// They tell how far it is in a way that these do not know.
    Newer,
}

/// A running system that follows the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its place in the table.
    pub place: u64,
    /// Who it is.
    pub system: RunningSystem,
    /// Whether its tools tell how far it is in the same way as these.
    pub tools: Tools,
    /// Whether it has told anything in the numbering of the log; else it has applied nothing.
    pub is_current: bool,
    /// Its mount shows every entry below this slot, as far as the entry counts.
    pub applied: u64,
    /// A number that a living member changes.
    pub heartbeat: u64,
    /// Nothing there has a file open, mapped or pinned whose last name was removed by an entry
    /// below this slot. Once that is true it stays so, whatever becomes of the member.
    pub released: u64,
}

/// Why a system cannot become a member, or is none any more.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The bytes cannot be accessed.
    #[error("cannot access the table of members")]
    Media(#[from] MediaError),
    /// No place is free.
    #[error(
        "all {MAX_MEMBERS} places in the table of members are taken: `famfs members --drop-silent` \
         frees those of systems that have ended"
    )]
    Full,
    /// It is not known who this system is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// This system is no longer the one that took the place.
    #[error(
        "this VM was resumed from a snapshot: place {place} in the table of members is that of the \
         VM that was saved"
    )]
    Resumed {
        /// The place.
        place: u64,
    },
    /// Somebody else has the place.
    #[error("place {place} in the table of members is no longer this system's")]
    Lost {
        /// The place.
        place: u64,
    },
}

/// All members, in the order of their places. What one says of slots of another numbering than the
/// log's counts as nothing, as all does while entries move.
///
/// # Errors
/// The media cannot be read.
pub fn read(
    media: &dyn Media,
    fs_uuid: Uuid,
    numbering: Option<u64>,
) -> Result<Vec<Member>, MediaError> {
    let mut table = vec![format::Member::new_zeroed(); usize::try_from(MAX_MEMBERS).unwrap_or(0)];
    media.refresh(MEMBERS_OFFSET, MAX_MEMBERS * LEN)?;
    media.read_at(MEMBERS_OFFSET, table.as_mut_bytes())?;
    let found = (0..).zip(&table);
    Ok(found.filter_map(|(place, raw)| member(place, raw, fs_uuid, numbering)).collect())
}

fn member(
    place: u64,
    raw: &format::Member,
    fs_uuid: Uuid,
    numbering: Option<u64>,
) -> Option<Member> {
    if raw.magic.get() != MEMBER_MAGIC || raw.crc.get() != raw.checksum(fs_uuid.as_bytes()) {
        return None;
    }
    let machine = Uuid::from_bytes(raw.machine_uuid);
    let system = RunningSystem {
        system: Uuid::from_bytes(raw.system_uuid),
        machine: (!machine.is_nil()).then_some(machine),
        boot: Uuid::from_bytes(raw.boot_id),
    };
    let tools = match raw.version.get() {
        MEMBER_VERSION => Tools::Same,
        version if version < MEMBER_VERSION => Tools::Older,
        _ => Tools::Newer,
    };
    let numbering = numbering.filter(|_| tools == Tools::Same);
    let slot = |word| numbering.and_then(|numbering| slot_in(word, numbering));
    let applied = slot(raw.applied);
    // Who has not applied a removal has not released what it removes.
    let released = slot(raw.released).unwrap_or(0).min(applied.unwrap_or(0));
    Some(Member {
        place,
        system,
        tools,
        is_current: applied.is_some(),
        applied: applied.unwrap_or(0),
        heartbeat: raw.heartbeat.get(),
        released,
    })
}

/// Looks at the members again and again, and sees who lives.
#[derive(Default)]
pub struct Looker {
    /// The first heartbeat of each place and boot.
    first: HashMap<(u64, Uuid), u64>,
}

impl Looker {
    /// The members, each with whether its heartbeat has changed since the first look at it.
    ///
    /// # Errors
    /// The media cannot be read.
    pub fn look(
        &mut self,
        media: &dyn Media,
        fs_uuid: Uuid,
        numbering: Option<u64>,
    ) -> Result<Vec<(Member, bool)>, MediaError> {
        let seen = |member: Member| {
            let key = (member.place, member.system.boot);
            let before = *self.first.entry(key).or_insert(member.heartbeat);
            (member, member.heartbeat != before)
        };
        Ok(read(media, fs_uuid, numbering)?.into_iter().map(seen).collect())
    }
}

/// The members, each with whether its heartbeat changed while this looked: until all have, for at
/// most [`Timing::expiry`].
///
/// # Errors
/// The media cannot be read.
pub fn look(
    media: &dyn Media,
    fs_uuid: Uuid,
    numbering: Option<u64>,
    timing: Timing,
) -> Result<Vec<(Member, bool)>, MediaError> {
    let start = Instant::now();
    let mut looker = Looker::default();
    let first = looker.look(media, fs_uuid, numbering)?;
    if first.is_empty() {
        return Ok(first);
    }
    // Who hears it beats at once.
    media.announce();
    loop {
        let looked = looker.look(media, fs_uuid, numbering)?;
        if looked.iter().all(|(_, alive)| *alive) || start.elapsed() >= timing.expiry {
            return Ok(looked);
        }
        thread::sleep(PAUSE);
    }
}

/// Frees the place of a member, if it is still that one's and its heartbeat has not changed since.
///
/// # Errors
/// The media cannot be read or written.
pub fn drop_silent(media: &dyn Media, fs_uuid: Uuid, silent: &Member) -> Result<bool, MediaError> {
    let same = |now: &Member| now.system == silent.system && now.heartbeat == silent.heartbeat;
    let found = at(media, fs_uuid, silent.place)?.is_some_and(|now| same(&now));
    if found {
        free(media, silent.place)?;
    }
    Ok(found)
}

fn at(media: &dyn Media, fs_uuid: Uuid, place: u64) -> Result<Option<Member>, MediaError> {
    let mut raw = format::Member::new_zeroed();
    media.refresh(offset(place), LEN)?;
    media.read_at(offset(place), raw.as_mut_bytes())?;
    Ok(member(place, &raw, fs_uuid, None))
}

fn free(media: &dyn Media, place: u64) -> Result<(), MediaError> {
    media.write_at(offset(place), &[0; 8])?;
    media.show(offset(place), 8)
}

fn offset(place: u64) -> u64 {
    MEMBERS_OFFSET + place * LEN
}

/// This system's place, until it is dropped.
pub struct Seat {
    media: Box<dyn Media>,
    fs_uuid: Uuid,
    identity: Identity,
    me: RunningSystem,
    place: u64,
    /// What the slots are of.
    numbering: u64,
    applied: u64,
    released: u64,
    heartbeat: u64,
    /// Places of systems with this one's UUIDs that were booted before, or are clones of it.
    before: Vec<Member>,
    since: Instant,
}

impl Seat {
    /// Takes a free place, or the one that another program of this running system has left.
    /// `media` must be open for writing.
    ///
    /// # Errors
    /// No place is free, or the media cannot be read or written.
    pub fn take(
        media: Box<dyn Media>,
        fs_uuid: Uuid,
        identity: Identity,
        timing: Timing,
    ) -> Result<Self, MemberError> {
        let me = identity.system();
        let mut place = None;
        for _ in 0..ATTEMPTS {
            let members = read(&*media, fs_uuid, None)?;
            let mine = members.iter().find(|member| member.system == me).map(|mine| mine.place);
            if let Some(place) = place.filter(|place| mine == Some(*place)) {
                let is_before = |member: &&Member| is_kin(&member.system, &me);
                let before = members.iter().filter(is_before).copied().collect();
                let heartbeat = Uuid::new_v4().as_u64_pair().1;
                let since = Instant::now();
                let (numbering, applied, released) = (0, 0, 0);
                let mut seat = Self {
                    media,
                    fs_uuid,
                    identity,
                    me,
                    place,
                    numbering,
                    applied,
                    released,
                    heartbeat,
                    before,
                    since,
                };
                seat.beat()?;
                return Ok(seat);
            }
            let mut taken = members.iter().map(|member| member.place).peekable();
            let free = (0..MAX_MEMBERS).find(|place| taken.next_if_eq(place).is_none());
            let wanted = mine.or(free).ok_or(MemberError::Full)?;
            if identity.has_changed()? {
                return Err(MemberError::Resumed { place: wanted });
            }
            claim(&*media, fs_uuid, me, wanted)?;
            // Another system may claim the same place at the same moment.
            thread::sleep(timing.settle);
            place = Some(wanted);
        }
        Err(MemberError::Lost { place: place.unwrap_or_default() })
    }

    /// Leaves the places of systems with this one's UUIDs alone. One that this was resumed from may
    /// only be paused: its silence is not its end.
    pub fn spare_kin(&mut self) {
        self.before.clear();
    }

    /// What was told last of the mount, in slots of a numbering.
    pub fn applied(&self, numbering: u64) -> u64 {
        if self.numbering == numbering { self.applied } else { 0 }
    }

    /// Tells that the mount shows every entry below `applied`, and that nothing here uses a file
    /// that an entry below `released` removed. Both are slots of a numbering.
    ///
    /// # Errors
    /// The place is lost, or the media cannot be written.
    pub fn report(
        &mut self,
        numbering: u64,
        applied: u64,
        released: u64,
    ) -> Result<(), MemberError> {
        if (numbering, applied, released) == (self.numbering, self.applied, self.released) {
            return Ok(());
        }
        (self.numbering, self.applied, self.released) = (numbering, applied, released);
        self.beat()
    }

    /// Tells that this system lives, and frees the places of those before it that do not.
    ///
    /// # Errors
    /// The place is lost, or the media cannot be written.
    pub fn tend(&mut self, timing: Timing) -> Result<(), MemberError> {
        self.beat()?;
        if self.since.elapsed() >= timing.expiry {
            for member in std::mem::take(&mut self.before) {
                drop_silent(&*self.media, self.fs_uuid, &member)?;
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), MemberError> {
        let place = self.place;
        if self.identity.has_changed()? {
            return Err(MemberError::Resumed { place });
        }
        match at(&*self.media, self.fs_uuid, place)? {
            Some(member) if member.system == self.me => Ok(()),
            _ => Err(MemberError::Lost { place }),
        }
    }

    fn beat(&mut self) -> Result<(), MemberError> {
        self.check()?;
        self.heartbeat = self.heartbeat.wrapping_add(1);
        let start = offset(self.place);
        // Each in one store: who reads meanwhile sees the old word or the new one.
        for (field, word) in [
            (offset_of!(format::Member, applied), numbered(self.numbering, self.applied)),
            (offset_of!(format::Member, released), numbered(self.numbering, self.released)),
            (offset_of!(format::Member, heartbeat), U64::new(self.heartbeat)),
        ] {
            self.media.write_at(start + field as u64, word.as_bytes())?;
        }
        Ok(self.media.show(start + IDENTITY_LEN as u64, LEN - IDENTITY_LEN as u64)?)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.check().is_ok() {
            // A place that cannot be freed is that of a silent member.
            let _ = free(&*self.media, self.place);
        }
    }
}

/// Whether a system is another boot of this one, or a clone of it.
fn is_kin(one: &RunningSystem, me: &RunningSystem) -> bool {
    one.boot != me.boot && (one.system, one.machine) == (me.system, me.machine)
}

/// Writes who this is into a place. Nothing is applied yet.
fn claim(
    media: &dyn Media,
    fs_uuid: Uuid,
    me: RunningSystem,
    place: u64,
) -> Result<(), MediaError> {
    let mut raw = format::Member {
        magic: U64::new(MEMBER_MAGIC),
        system_uuid: me.system.into_bytes(),
        machine_uuid: me.machine.unwrap_or_default().into_bytes(),
        boot_id: me.boot.into_bytes(),
        crc: U64::ZERO,
        old_applied: U64::ZERO,
        heartbeat: U64::ZERO,
        old_released: U64::ZERO,
        version: U64::new(MEMBER_VERSION),
        applied: U64::ZERO,
        released: U64::ZERO,
        rest: [0; 16],
    };
    raw.crc = U64::new(raw.checksum(fs_uuid.as_bytes()));
    let (identity, progress) = raw.as_bytes().split_at(IDENTITY_LEN);
    // What the last one had applied must not count for this one.
    media.write_at(offset(place) + IDENTITY_LEN as u64, progress)?;
    media.show(offset(place) + IDENTITY_LEN as u64, progress.len() as u64)?;
    media.write_at(offset(place), identity)?;
    media.show(offset(place), IDENTITY_LEN as u64)
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
