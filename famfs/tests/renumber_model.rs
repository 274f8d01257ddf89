// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The protocol by which log slots get other numbers while machines follow the log, with every
//! order of the steps of a host and two virtual machines, and of three of which one ends, or its
//! watch, at most once. The host's judgement is the real one.
//!
//! At first slots 0 and 1 are of a file that is gone. Then the log has no entry any more, slot 0
//! makes another file, slot 1 removes it, and the host gives its memory to a third one. At no
//! moment may a machine have the second file then: what it said of the first two entries must not
//! count for the next two.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::collections::HashSet;

use famfs::store::identity::RunningSystem;
use famfs::store::members::{Member, Tools};
use famfs::store::users::{Standing, Users};
use famfs::system::holders::NamedProcess;
use uuid::Uuid;

const MACHINES: usize = 3;

/// A numbering and a slot of it.
type Word = (u8, u8);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Mount {
    /// The machine does not run.
    #[default]
    Off,
    /// It shows the entries below a slot; whether it has the second file under its name, and open.
    Shows { at: Word, name: bool, open: bool },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Machine {
    mount: Mount,
    watch: bool,
    /// What its place says that it has applied and released; it outlives a killed watch and the
    /// machine.
    place: Option<(Word, Word)>,
    /// The host has just seen that it runs.
    seen: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Host {
    /// The first file is gone.
    #[default]
    First,
    FirstLooked,
    /// Entries move; the host may be killed here, and another command goes on.
    Moving,
    /// They have moved, and this many entries of the second file are published.
    Moved(u8),
    Looked,
    /// The memory of the second file is another one's.
    Reused,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct World {
    machines: [Machine; MACHINES],
    host: Host,
    /// How many mounts and watches may still end.
    ends: u8,
}

/// How many machines there are, and how often a mount or a watch ends at most.
#[derive(Clone, Copy)]
struct Bounds {
    machines: usize,
    ends: Option<u8>,
}

/// All that two can do, and three with few ends.
const TWO: Bounds = Bounds { machines: 2, ends: None };
const THREE: Bounds = Bounds { machines: 3, ends: Some(1) };

/// What a faulty protocol leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The host does not look at the numbering of what a place says.
    Numbering,
    /// A watch goes on with what it has proven, after the slots got other numbers.
    Proof,
}

impl World {
    /// The numbering, and the number of entries; `None` while they move.
    fn log(&self) -> Option<Word> {
        match self.host {
            Host::First | Host::FirstLooked => Some((0, 2)),
            Host::Moving => None,
            Host::Moved(entries) => Some((1, entries)),
            Host::Looked | Host::Reused => Some((1, 2)),
        }
    }

    fn judge(&self, fault: Fault) -> Standing {
        let process =
            |n: usize| NamedProcess { pid: u32::try_from(n).unwrap(), name: None, user: None };
        let machine = |n: usize| Uuid::from_u128(n as u128 + 1);
        let seen = (0..MACHINES).filter(|n| self.machines[*n].seen);
        let users =
            Users { machines: seen.map(|n| (process(n), machine(n))).collect(), others: vec![] };
        let (numbering, _) = self.log().unwrap();
        let slot = |(of, slot): Word| {
            (of == numbering || fault == Fault::Numbering).then_some(u64::from(slot))
        };
        let members: Vec<Member> = (0..MACHINES)
            .filter_map(|n| {
                let (applied, released) = self.machines[n].place?;
                let applied = slot(applied);
                let boot = machine(n);
                Some(Member {
                    place: n as u64,
                    system: RunningSystem { system: boot, machine: Some(boot), boot },
                    tools: Tools::Same,
                    is_current: applied.is_some(),
                    applied: applied.unwrap_or(0),
                    heartbeat: 0,
                    released: slot(released).unwrap_or(0).min(applied.unwrap_or(0)),
                })
            })
            .collect();
        users.standing(&members, 2, |_| false)
    }

    fn host(&self, fault: Fault, next: &mut Vec<Self>) {
        let mut world = *self;
        let look = |world: &mut Self| {
            for machine in &mut world.machines {
                machine.seen = machine.mount != Mount::Off;
            }
        };
        match self.host {
            Host::First => {
                look(&mut world);
                world.host = Host::FirstLooked;
            }
            Host::FirstLooked => {
                let standing = self.judge(fault);
                let moves = standing.released == 2 && standing.may_move(2);
                world.host = if moves { Host::Moving } else { Host::First };
            }
            Host::Moving => world.host = Host::Moved(0),
            Host::Moved(2) => {
                look(&mut world);
                world.host = Host::Looked;
            }
            Host::Moved(entries) => world.host = Host::Moved(entries + 1),
            Host::Looked => {
                let free = self.judge(fault).released == 2;
                world.host = if free { Host::Reused } else { Host::Moved(2) };
            }
            Host::Reused => return,
        }
        if !matches!(world.host, Host::FirstLooked | Host::Looked) {
            world.machines.iter_mut().for_each(|machine| machine.seen = false);
        }
        next.push(world);
    }

    fn machine(&self, n: usize, (bounds, fault): (Bounds, Fault), next: &mut Vec<Self>) {
        let mut to = |change: &dyn Fn(&mut Machine)| {
            let mut world = *self;
            change(&mut world.machines[n]);
            next.push(world);
        };
        let Machine { mount, watch, place, .. } = self.machines[n];
        // While entries move, who mounts sees the log as it will be.
        let log = self.log();
        let at = log.unwrap_or((1, 0));
        let name = at == (1, 1);
        match mount {
            Mount::Off => to(&|m| m.mount = Mount::Shows { at, name, open: false }),
            Mount::Shows { at: shown, name: named, open } => {
                if log.is_some() && shown != at {
                    to(&|m| m.mount = Mount::Shows { at, name, open });
                }
                if named || open {
                    to(&|m| m.mount = Mount::Shows { at: shown, name: named, open: !open });
                }
                // The place that it had before, or a new one.
                if !watch {
                    to(&|m| (m.watch, m.place) = (true, Some(((0, 0), (0, 0)))));
                }
                if let (true, Some((applied, released))) = (watch, place) {
                    // The number that it has when it looks is that of what it shows.
                    if log.is_some_and(|(numbering, _)| numbering == shown.0) {
                        to(&|m| m.place = Some((shown, released)));
                        let proven = if named || open { shown.1.min(1) } else { shown.1 };
                        let kept = if fault == Fault::Proof { released.1 } else { 0 };
                        to(&|m| m.place = Some((applied, (shown.0, proven.max(kept)))));
                    }
                }
                if bounds.ends.is_none() || self.ends > 0 {
                    let mut end = |change: &dyn Fn(&mut Machine)| {
                        let mut world = Self { ends: self.ends.saturating_sub(1), ..*self };
                        change(&mut world.machines[n]);
                        next.push(world);
                    };
                    if watch {
                        end(&|m| m.watch = false);
                        end(&|m| (m.watch, m.place) = (false, None));
                    }
                    end(&|m| (m.mount, m.watch) = (Mount::Off, false));
                }
            }
        }
    }

    fn is_wrong(&self) -> bool {
        let has = |machine: &Machine| {
            matches!(
                machine.mount,
                Mount::Shows { name: true, .. } | Mount::Shows { open: true, .. }
            )
        };
        self.host == Host::Reused && self.machines.iter().any(has)
    }
}

/// Every state that can be; the number of them, and one that must not be.
fn explore(bounds: Bounds, fault: Fault) -> (usize, Option<World>) {
    let first = World { ends: bounds.ends.unwrap_or(0), ..World::default() };
    let (mut known, mut left) = (HashSet::from([first]), vec![first]);
    let mut next = Vec::new();
    let mut reused = false;
    while let Some(world) = left.pop() {
        if world.is_wrong() {
            return (known.len(), Some(world));
        }
        reused |= world.host == Host::Reused;
        world.host(fault, &mut next);
        (0..bounds.machines).for_each(|n| world.machine(n, (bounds, fault), &mut next));
        for mut world in next.drain(..) {
            // All machines are alike.
            world.machines[..bounds.machines].sort_unstable();
            if known.insert(world) {
                left.push(world);
            }
        }
    }
    assert!(reused, "the memory never comes back");
    (known.len(), None)
}

fn is_right(bounds: Bounds) {
    let (states, wrong) = explore(bounds, Fault::None);
    println!("{states} states of {} machines", bounds.machines);
    assert_eq!(wrong, None);
}

#[test]
fn no_order_of_the_steps_of_two_machines_takes_memory_from_somebody() {
    is_right(TWO);
}

/// 2.2 million states: a minute without optimization.
#[test]
fn no_order_of_the_steps_of_three_machines_does_with_one_end() {
    is_right(THREE);
}

#[test]
fn each_part_of_the_protocol_is_needed() {
    for fault in [Fault::Numbering, Fault::Proof] {
        assert!(explore(TWO, fault).1.is_some() && explore(THREE, fault).1.is_some());
    }
}
