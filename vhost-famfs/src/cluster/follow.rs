// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who writes the file system of a cluster's pool, and how far its VMs follow the log.
//!
//! VMs are known by their machine UUID, which QEMU gives them. What guests wrote into the pool is
//! only shown.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use famfs::media::PoolFile;
use famfs::replay::reclaim;
use famfs::store::lease;
use famfs::store::log::Log;
use famfs::store::members::{Looker, Member};
use famfs::store::superblock::Superblock;
use famfs::sys::dax;
use serde::Serialize;
use uuid::Uuid;

/// The file system in the pool of a cluster.
#[derive(Debug, Serialize)]
pub struct PsFamfs {
    /// Entries of its log.
    pub published: u64,
    /// The system UUID of its master.
    pub master: Uuid,
    /// The VM that is the master; `None` if it is none of the cluster: then the host writes.
    pub master_vm: Option<String>,
    /// Who holds the lease.
    pub lease: LeaseState,
    /// The VM that holds it.
    pub lease_vm: Option<String>,
}

/// Who holds the lease of a file system: who may write now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// Nobody does.
    Free,
    /// A VM of the cluster.
    Vm,
    /// A command of the host.
    Host,
    /// A system that is no VM of the cluster.
    Other,
}

/// What a VM may do with the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It may change names.
    Master,
    /// It may not.
    Client,
}

impl Role {
    /// The word for tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Client => "client",
        }
    }
}

/// How long a VM may take to let go of a removed file that no program there uses.
const MOMENT: Duration = Duration::from_millis(500);

/// How far a VM follows the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follows {
    /// Its mount shows the entries below this slot.
    pub applied: u64,
    /// How many entries it is behind; `None` if it says that it has applied more than there is.
    pub behind: Option<u64>,
    /// Nothing there uses what the entries below this slot removed.
    pub released: u64,
    /// The first removed file that a program there has had for longer than a moment, or the slot of
    /// its removal.
    pub holds: Option<String>,
}

/// A file system, looked at from the host.
pub struct Followers {
    media: PoolFile,
    superblock: Superblock,
    looker: Looker,
    /// The members at the first look, and when that was.
    first: Vec<(Member, bool)>,
    since: Instant,
}

impl Followers {
    /// Begins to look at the members of a pool's file system; `None` if it has none that can be
    /// read, or is a device, whose memory only VMs reach.
    #[must_use]
    pub fn of(pool: &Path) -> Option<Self> {
        let media = PoolFile::open(pool, dax::Access::Read).ok()?;
        let superblock = Superblock::read(&media).ok()?;
        let (looker, first, since) = (Looker::default(), Vec::new(), Instant::now());
        let mut followers = Self { media, superblock, looker, first, since };
        // Those whose heartbeats change until the next look live.
        followers.first = followers.members();
        Some(followers)
    }

    fn members(&mut self) -> Vec<(Member, bool)> {
        let log = Log::open(&self.media, self.superblock.log_len);
        let numbering = log.ok().and_then(|log| log.numbering());
        self.looker.look(&self.media, self.superblock.fs_uuid, numbering).unwrap_or_default()
    }

    /// Looks again, and for a moment longer if that tells who holds something.
    fn look_for_a_moment(&mut self) -> Vec<(Member, bool)> {
        let now = self.members();
        if !now.iter().any(|(member, _)| self.has_held(member)) {
            return now;
        }
        thread::sleep((self.since + MOMENT).saturating_duration_since(Instant::now()));
        self.members()
    }

    /// Whether what a member had applied at the first look is not released yet.
    fn has_held(&self, now: &Member) -> bool {
        let is_it = |then: &Member| (then.place, then.system) == (now.place, now.system);
        let mut first = self.first.iter().map(|(member, _)| member);
        first.find(|then| is_it(then)).is_some_and(|then| then.applied > now.released)
    }

    /// What the file system says now, and how far each of these machines is.
    #[must_use]
    pub fn look(mut self, vms: &[(&str, Option<Uuid>)]) -> (Option<PsFamfs>, Vec<Option<Follows>>) {
        // Members first: nobody has applied what was published later.
        let members = self.look_for_a_moment();
        let log = Log::open(&self.media, self.superblock.log_len);
        let Ok(published) = log.map(|log| log.published()) else {
            return (None, vec![None; vms.len()]);
        };
        let follows = vms.iter().map(|(_, uuid)| {
            let (member, follows) = follows(&members, (*uuid)?, published)?;
            let is_holding = member.released < member.applied && self.has_held(&member);
            let holds = is_holding.then(|| self.removed_by(member.released));
            Some(Follows { holds, ..follows })
        });
        let follows = follows.collect();
        let named = |uuid: Uuid| {
            let vm = vms.iter().find(|(_, vm)| *vm == Some(uuid));
            vm.map(|(name, _)| (*name).to_owned())
        };
        let master = self.superblock.system_uuid;
        let found = lease::read(&self.media, self.superblock.fs_uuid).ok().flatten();
        let (lease, lease_vm) = match found.filter(|found| found.heartbeat != 0) {
            None => (LeaseState::Free, None),
            Some(found) if found.holder.is_host() => (LeaseState::Host, None),
            Some(found) => match named(found.holder.machine.unwrap_or(found.holder.system)) {
                Some(vm) => (LeaseState::Vm, Some(vm)),
                None => (LeaseState::Other, None),
            },
        };
        let famfs = PsFamfs { published, master, master_vm: named(master), lease, lease_vm };
        (Some(famfs), follows)
    }
}

impl Followers {
    /// What the entry of a slot removed, in words.
    fn removed_by(&self, slot: u64) -> String {
        match reclaim::removed_by(&self.media, slot) {
            Ok(Some(path)) => path.to_string(),
            _ => format!("what log slot {slot} removed"),
        }
    }
}

/// How far a machine is, and as which member: of several places, which an earlier boot can have
/// left, a living one.
fn follows(members: &[(Member, bool)], machine: Uuid, published: u64) -> Option<(Member, Follows)> {
    let is_it = |member: &Member| {
        let system = &member.system;
        system.machine.unwrap_or(system.system) == machine
    };
    let its = members.iter().filter(|(member, _)| is_it(member));
    let (member, _) = its.max_by_key(|(member, alive)| (*alive, u64::MAX - member.applied))?;
    let Member { applied, released, .. } = *member;
    let behind = published.checked_sub(applied);
    Some((*member, Follows { applied, behind, released, holds: None }))
}

#[cfg(test)]
mod tests {
    use famfs::store::identity::RunningSystem;
    use famfs::store::members::Tools;

    use super::*;

    fn member(place: u64, machine: Option<u128>, system: u128, applied: u64) -> Member {
        let (system, machine) = (Uuid::from_u128(system), machine.map(Uuid::from_u128));
        let system = RunningSystem { system, machine, boot: Uuid::from_u128(place.into()) };
        let (tools, is_current) = (Tools::Same, true);
        Member { place, system, tools, is_current, applied, released: applied, heartbeat: 1 }
    }

    #[test]
    fn a_vm_is_known_by_its_machine() {
        let members = [
            (member(0, Some(1), 9, 5), true),
            (member(1, None, 2, 7), true),
            (member(2, Some(3), 3, 12), true),
            // Two boots of one machine: the living one counts.
            (member(3, Some(4), 4, 2), false),
            (member(4, Some(4), 4, 10), true),
            (member(5, Some(5), 5, 8), false),
            (member(6, Some(5), 5, 3), false),
        ];
        let of = |machine| {
            let found = follows(&members, Uuid::from_u128(machine), 10);
            found.map(|(_, Follows { applied, behind, .. })| (applied, behind))
        };
        assert_eq!(of(1), Some((5, Some(5))));
        assert_eq!(of(9), None, "a system UUID of another machine");
        assert_eq!(of(2), Some((7, Some(3))));
        assert_eq!(of(3), Some((12, None)), "more than there is");
        assert_eq!(of(4), Some((10, Some(0))));
        assert_eq!(of(5), Some((3, Some(7))));
        assert_eq!(of(6), None);
    }
}
