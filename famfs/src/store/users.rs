// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who of this host uses a pool file, and what of it nobody uses any more.
//!
//! The kernel's account of open and mapped files says who has the pool; the table of members says
//! which removed files each virtual machine has released. Only both together free anything: who has
//! the pool and has no place in the table may use any file. A heartbeat alone decides nothing.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use uuid::Uuid;

use crate::store::members::{Member, Tools};
use crate::system::holders::{self, NamedProcess, Role};

/// File systems whose files other hosts can have, which this kernel does not see: NFS, SMB, CIFS,
/// 9p, FUSE (virtiofs too), Ceph, AFS, GFS2, OCFS2.
const SHARED: [u32; 9] = [
    0x6969,
    0xfe53_4d42,
    0xff53_4d42,
    0x0102_1997,
    0x6573_5546,
    0x00c3_6400,
    0x5346_414f,
    0x0116_1970,
    0x7461_636f,
];

/// The other processes of this host that have a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Virtual machines, with their machine UUIDs.
    pub machines: Vec<(NamedProcess, Uuid)>,
    /// Those that may look at any file, or of which nothing is known.
    pub others: Vec<NamedProcess>,
}

/// Why it is not known whether a removed file is in use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// A machine does not take part.
    #[error(
        "VM {machine} ({process}) has the pool, but is no member: its `famfs watch` does not run, \
         its tools are older, or it cannot write the pool and `vhost-famfs keep-logs` cannot do so \
         for it; start the watch, or stop the VM"
    )]
    NoMember {
        /// Its process.
        process: NamedProcess,
        /// Its machine UUID.
        machine: Uuid,
    },
    /// A machine takes part in another way.
    #[error(
        "VM {machine} ({process}) has the pool, but is no member for this command: its tools are \
         {}; install the same version there and here, or stop the VM", words(*.tools)
    )]
    OtherTools {
        /// Its process.
        process: NamedProcess,
        /// Its machine UUID.
        machine: Uuid,
        /// How its tools differ.
        tools: Tools,
    },
    /// Several machines cannot be told apart.
    #[error(
        "several VMs have the machine UUID {machine}: give each its own (QEMU's -uuid), or stop all \
         but one"
    )]
    Twins {
        /// Their machine UUID.
        machine: Uuid,
    },
    /// A program has the pool.
    #[error("{process} has the pool open, and may read a removed file: wait for it, or end it")]
    Other {
        /// The process.
        process: NamedProcess,
    },
    /// A member lives where this process cannot see it.
    #[error(
        "system {system} is a member, but no process that this user can see is its VM: run the \
         command as root, or if it has ended, run `famfs members --drop-silent`"
    )]
    Unseen {
        /// Its system UUID.
        system: Uuid,
    },
}

fn words(tools: Tools) -> &'static str {
    match tools {
        Tools::Same => "the same",
        Tools::Older => "older, and do not follow log entries into other slots",
        Tools::Newer => "newer",
    }
}

/// How far removed files are known to be unused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What the entries below this slot removed is not in use; 0 if that is unknown.
    pub released: u64,
    /// Why nothing is known.
    pub unknown: Vec<Unknown>,
    /// Members of machines that run, with their processes; the one that is least far is the first.
    pub members: Vec<(Member, NamedProcess)>,
    /// Members whose machine does not run on this host, as far as this process can see.
    pub gone: Vec<Member>,
}

impl Standing {
    /// Whether entries may get other slots: nobody reads the log who would not notice, and
    /// everybody shows all that is published.
    #[must_use]
    pub fn may_move(&self, published: u64) -> bool {
        self.unknown.is_empty() && self.behind(published).next().is_none()
    }

    /// Members that do not show all that is published, or have not told so.
    pub fn behind(&self, published: u64) -> impl Iterator<Item = &(Member, NamedProcess)> {
        let is_behind =
            move |(member, _): &&(Member, _)| !member.is_current || member.applied < published;
        self.members.iter().filter(is_behind)
    }
}

impl Users {
    /// Finds them. This process has the pool open. Processes that it may not examine are seen only
    /// if they have locked the pool.
    ///
    /// # Errors
    /// The file or /proc cannot be read, or other hosts may have the file.
    pub fn of(pool: &Path) -> io::Result<Self> {
        let file = File::open(pool)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is a device, and who uses one is not known"));
        }
        // The kernel's numbers have 32 bits.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let kind = rustix::fs::fstatfs(&file)?.f_type as u32;
        if SHARED.contains(&kind) {
            return Err(io::Error::other(
                "it is on a file system that other hosts may share, and who uses it there is not \
                 known",
            ));
        }
        drop(file);
        let is_it =
            |found: &Metadata| (found.dev(), found.ino()) == (metadata.dev(), metadata.ino());
        if !holders::has_open(std::process::id(), is_it) {
            return Err(io::Error::other("another file has taken its place"));
        }
        // A process that starts another one and ends meanwhile is missed at most once.
        let mut found = holders::of(pool)?;
        found.extend(holders::of(pool)?);
        found.extend(holders::of_lock(metadata.dev(), metadata.ino()));
        found.retain(|process| process.pid != std::process::id());
        found.sort_by_key(|process| process.pid);
        found.dedup_by_key(|process| process.pid);
        let mut users = Self::default();
        for process in found {
            match holders::role(process.pid) {
                Role::Machine(machine) => users.machines.push((process, machine)),
                Role::Passes => {}
                Role::Other => users.others.push(process),
            }
        }
        Ok(users)
    }

    /// Whether nobody is there who was not before.
    #[must_use]
    pub fn are_among(&self, before: &Self) -> bool {
        let known = |process: &NamedProcess| {
            let machines = before.machines.iter().map(|(process, _)| process);
            machines.chain(&before.others).any(|other| other.pid == process.pid)
        };
        self.machines.iter().map(|(process, _)| process).chain(&self.others).all(known)
    }

    /// What nobody uses, given the members, which were read after the users were looked for, and
    /// the number of entries that were published before. `is_alive` tells whether a member's
    /// heartbeat changes; it is asked only of those whose machine is not seen.
    pub fn standing(
        &self,
        members: &[Member],
        published: u64,
        mut is_alive: impl FnMut(&Member) -> bool,
    ) -> Standing {
        let mut standing = Standing { released: published, ..Standing::default() };
        for process in &self.others {
            standing.unknown.push(Unknown::Other { process: process.clone() });
        }
        for (at, (process, machine)) in self.machines.iter().enumerate() {
            let (process, machine) = (process.clone(), *machine);
            let mut twins = self.machines.iter().enumerate();
            match twins.find(|(other, (_, uuid))| *other != at && *uuid == machine) {
                Some((other, _)) if other > at => {
                    standing.unknown.push(Unknown::Twins { machine });
                }
                Some(_) => {}
                None if !members.iter().any(|member| member.system.machine == Some(machine)) => {
                    standing.unknown.push(Unknown::NoMember { process, machine });
                }
                None => {}
            }
        }
        for member in members {
            let machine = member.system.machine;
            match self.machines.iter().find(|(_, uuid)| Some(*uuid) == machine) {
                Some((process, machine)) if member.tools != Tools::Same => {
                    let (process, machine, tools) = (process.clone(), *machine, member.tools);
                    standing.unknown.push(Unknown::OtherTools { process, machine, tools });
                }
                Some((process, _)) => {
                    standing.released = standing.released.min(member.released);
                    standing.members.push((*member, process.clone()));
                }
                None if is_alive(member) => {
                    let system = member.system.system;
                    standing.unknown.push(Unknown::Unseen { system });
                }
                None => standing.gone.push(*member),
            }
        }
        standing.members.sort_by_key(|(member, _)| member.released);
        if !standing.unknown.is_empty() {
            standing.released = 0;
        }
        standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::identity::RunningSystem;

    fn process(pid: u32) -> NamedProcess {
        NamedProcess { pid, name: None, user: None }
    }

    fn member(machine: u128, released: u64) -> Member {
        let uuid = Uuid::from_u128(machine);
        let system = RunningSystem { system: uuid, machine: Some(uuid), boot: uuid };
        let (tools, is_current) = (Tools::Same, true);
        Member { place: 0, system, tools, is_current, applied: released, heartbeat: 0, released }
    }

    fn users(machines: &[u128], others: &[u32]) -> Users {
        let machine = |(pid, uuid): (u32, &u128)| (process(pid), Uuid::from_u128(*uuid));
        Users {
            machines: (1..).zip(machines).map(machine).collect(),
            others: others.iter().map(|pid| process(*pid)).collect(),
        }
    }

    #[test]
    fn the_one_that_is_least_far_decides() {
        let members = [member(1, 9), member(2, 4), member(3, 2)];
        let standing = users(&[1, 2], &[]).standing(&members, 9, |_| false);
        assert_eq!((standing.released, &standing.unknown[..]), (4, &[][..]));
        assert_eq!(standing.members[0], (members[1], process(2)));
        // Its machine does not run.
        assert_eq!(standing.gone, [members[2]]);
        let nobody = users(&[], &[]).standing(&[], 9, |_| true);
        assert_eq!(nobody.released, 9);
    }

    #[test]
    fn what_is_not_known_is_in_use() {
        let members = [member(1, 9)];
        let unknown = |users: &Users, alive: bool| {
            let standing = users.standing(&members, 9, |_| alive);
            assert_eq!(standing.released, 0);
            standing.unknown
        };
        let other = Unknown::Other { process: process(7) };
        assert_eq!(unknown(&users(&[1], &[7]), false), [other]);
        let machine = Uuid::from_u128(2);
        let stranger = Unknown::NoMember { process: process(2), machine };
        assert_eq!(unknown(&users(&[1, 2], &[]), false), [stranger]);
        let machine = Uuid::from_u128(1);
        assert_eq!(unknown(&users(&[1, 1, 1], &[]), false), [Unknown::Twins { machine }]);
        // It beats, and nobody sees its machine.
        assert_eq!(unknown(&users(&[], &[]), true), [Unknown::Unseen { system: machine }]);
    }

    #[test]
    fn tools_of_another_version_are_no_member() {
        for tools in [Tools::Older, Tools::Newer] {
            let members = [Member { tools, ..member(1, 9) }];
            let standing = users(&[1], &[]).standing(&members, 9, |_| false);
            let (machine, process) = (Uuid::from_u128(1), process(1));
            assert_eq!(standing.unknown, [Unknown::OtherTools { process, machine, tools }]);
            assert!(standing.released == 0 && !standing.may_move(9));
        }
    }

    #[test]
    fn entries_move_when_everybody_has_them() {
        let standing = |second| users(&[1, 2], &[]).standing(&[member(1, 9), second], 9, |_| true);
        assert!(standing(member(2, 9)).may_move(9));
        assert!(!standing(member(2, 8)).may_move(9));
        let stale = Member { is_current: false, ..member(2, 9) };
        assert!(!standing(stale).may_move(9) && !standing(stale).may_move(0));
        // One that does not run will begin anew.
        assert!(users(&[1], &[]).standing(&[member(1, 9), member(2, 1)], 9, |_| false).may_move(9));
    }

    #[test]
    fn only_newcomers_count_as_such() {
        let before = users(&[1, 2], &[7]);
        assert!(users(&[1], &[7]).are_among(&before) && users(&[], &[]).are_among(&before));
        assert!(!users(&[1, 2, 3], &[]).are_among(&before));
        assert!(!users(&[], &[8]).are_among(&before));
    }
}
