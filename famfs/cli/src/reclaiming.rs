// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Gives the memory of removed files of a pool back, if nobody uses it any more.

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

/// What is to be given back, and who may still use it.
pub struct Look {
    /// What is to be given back.
    pub releasing: Releasing,
    /// How far it is known to be unused.
    pub standing: Standing,
    users: Users,
    fs_uuid: Uuid,
}

impl Look {
    /// Looks; `None` if there is nothing to be given back.
    pub fn new(media: &dyn Media, pool: &Path, patience: Patience) -> Result<Option<Self>> {
        // Who comes later reads these removals.
        let releasing = reclaim::releasing(media)?;
        if releasing.is_nothing() {
            return Ok(None);
        }
        let users = Users::of(pool)
            .with_context(|| format!("cannot find out who uses {}", pool.display()))?;
        let fs_uuid = Superblock::read(media)?.fs_uuid;
        let members = members::read(media, fs_uuid)?;
        let published = releasing.published;
        let mut standing = users.standing(&members, published, |_| true);
        if patience == Patience::Heartbeats && standing.members.len() < members.len() {
            let looked = members::look(media, fs_uuid, Timing::default())?;
            let is_alive = |member: &Member| looked.contains(&(*member, true));
            let members: Vec<Member> = looked.iter().map(|(member, _)| *member).collect();
            standing = users.standing(&members, published, is_alive);
        }
        Ok(Some(Self { releasing, standing, users, fs_uuid }))
    }

    /// Gives back what is unused, by a command that may write the pool.
    pub fn give_back(
        &self,
        media: &dyn Media,
        pool: &Path,
        lease: Option<&Keeper>,
    ) -> Result<Reclaimed> {
        if let Some(lease) = lease {
            lease.check()?;
        }
        for member in &self.standing.gone {
            members::drop_silent(media, self.fs_uuid, member)?;
        }
        let is_unread = || Users::of(pool).is_ok_and(|now| now.are_among(&self.users));
        Ok(reclaim::reclaim(media, self.standing.released, is_unread)?)
    }
}
