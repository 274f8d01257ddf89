// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Gives back what removed files of a pool hold: their memory, if nobody uses it any more, and
//! their log slots.

use std::path::Path;

use anyhow::{Context, Result};
use famfs::media::Media;
use famfs::replay::reclaim::{self, Reclaimed, Releasing};
use famfs::store::lease::{Keeper, Timing};
use famfs::store::members::{self, Member};
use famfs::store::superblock::Superblock;
use famfs::store::users::{Standing, Users};
use uuid::Uuid;

/// Whether to find out which members live that no process of this host accounts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// No: they are taken to live.
    None,
    /// Yes, which takes seconds.
    Heartbeats,
}

/// When to give log slots back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// If there are any.
    All,
    /// If the log becomes short.
    IfShort,
    /// If the log becomes short, and it is worth a writer's time.
    IfWorth,
}

impl Slots {
    /// Whether to, if that is to be given back.
    pub fn are_wanted(self, releasing: &Releasing) -> bool {
        match self {
            Self::All => releasing.voids > 0,
            Self::IfShort => releasing.is_short(),
            Self::IfWorth => releasing.is_shorter(),
        }
    }
}

/// What was given back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    /// Memory.
    pub memory: Reclaimed,
    /// Log slots.
    pub slots: u64,
    /// Whether log slots are wanted that could not be given back.
    pub slots_left: bool,
}

/// What is to be given back, and who may still use it.
pub struct Look {
    /// What is to be given back.
    pub releasing: Releasing,
    /// How far it is known to be unused.
    pub standing: Standing,
    slots: Slots,
    users: Users,
    fs_uuid: Uuid,
}

impl Look {
    /// Looks; `None` if there is nothing to be given back.
    pub fn new(
        media: &dyn Media,
        pool: &Path,
        patience: Patience,
        slots: Slots,
    ) -> Result<Option<Self>> {
        // Who comes later reads these removals.
        let releasing = reclaim::releasing(media)?;
        let is_idle = releasing.is_nothing() && !releasing.is_interrupted();
        if is_idle && !slots.are_wanted(&releasing) {
            return Ok(None);
        }
        let users = Users::of(pool)
            .with_context(|| format!("cannot find out who uses {}", pool.display()))?;
        let fs_uuid = Superblock::read(media)?.fs_uuid;
        let members = members::read(media, fs_uuid, releasing.numbering)?;
        let published = releasing.published;
        let mut standing = users.standing(&members, published, |_| true);
        if patience == Patience::Heartbeats && standing.members.len() < members.len() {
            let looked = members::look(media, fs_uuid, releasing.numbering, Timing::default())?;
            let is_alive = |member: &Member| looked.contains(&(*member, true));
            let members: Vec<Member> = looked.iter().map(|(member, _)| *member).collect();
            standing = users.standing(&members, published, is_alive);
        }
        Ok(Some(Self { releasing, standing, slots, users, fs_uuid }))
    }

    /// Whether log slots are wanted, and can be given back.
    pub fn may_move(&self) -> bool {
        self.slots.are_wanted(&self.releasing) && self.standing.may_move(self.releasing.published)
    }

    /// Gives back what is unused, by a command that may write the pool, and has had that right
    /// since before it looked.
    pub fn give_back(
        &self,
        media: &dyn Media,
        pool: &Path,
        lease: Option<&Keeper>,
    ) -> Result<Given> {
        let Releasing { published, bytes, numbering, .. } = self.releasing;
        let check = || lease.map_or(Ok(()), Keeper::check);
        check()?;
        let mut given = Given::default();
        given.memory.left = bytes;
        let Some(numbering) = numbering else { return Ok(given) };
        for member in &self.standing.gone {
            members::drop_silent(media, self.fs_uuid, member)?;
        }
        let is_unread = || Users::of(pool).is_ok_and(|now| now.are_among(&self.users));
        if self.standing.released > 0 {
            given.memory = reclaim::reclaim(media, self.standing.released, numbering, is_unread)?;
        }
        if self.slots.are_wanted(&reclaim::releasing(media)?) {
            if self.standing.may_move(published) {
                check()?;
                given.slots = reclaim::renumber(media, || is_unread() && check().is_ok())?;
            }
            given.slots_left = given.slots == 0;
        }
        Ok(given)
    }
}
