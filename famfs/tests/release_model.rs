// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The protocol by which memory of a removed file is used again, with every order of the steps of
//! a host and three virtual machines, one of which has older tools. The host's judgement is the
//! real one.
//!
//! Slot 0 makes a file, slot 1 removes it, and then the host gives its memory to another one. At no
//! moment may a machine have the first file then, be it under a name or open.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::collections::HashSet;

use famfs::store::identity::RunningSystem;
use famfs::store::members::{Member, Tools};
use famfs::store::users::Users;
use famfs::system::holders::NamedProcess;
use uuid::Uuid;

const MACHINES: usize = 3;
/// The one whose tools know neither members nor the number.
const OLD: usize = 2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Mount {
    /// The machine does not run.
    #[default]
    Off,
    /// It runs.
    Up,
    /// It reads the log: how many entries it will read, the number, and whether slot 0 counted.
    Reading { published: u8, number: u8, made: bool },
    /// It shows the entries below a slot.
    Shows { applied: u8, name: bool, open: bool },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Machine {
    mount: Mount,
    watch: bool,
    /// What its place says that it has released; the place outlives a killed watch and the machine.
    place: Option<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Host {
    /// The file is there.
    #[default]
    Before,
    /// It is removed, and the next machine to look for.
    Looks(usize),
    /// All machines were looked for.
    Looked,
    /// Nobody uses it.
    Judged,
    /// What made the file is void.
    FirstPhase,
    /// All is done that can be.
    Done,
    /// The memory is another file's.
    Reused,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct World {
    machines: [Machine; MACHINES],
    host: Host,
    seen: [bool; MACHINES],
    published: u8,
    void: [bool; 2],
    number: u8,
}

/// What a faulty protocol leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The host does not look at the kernel's account.
    Account,
    /// A watch says that it has released what it has applied.
    Proof,
    /// Readers do not look at the number, and the host not at newcomers.
    Number,
}

impl World {
    fn judge(&self, fault: Fault) -> bool {
        let process =
            |n: usize| NamedProcess { pid: u32::try_from(n).unwrap(), name: None, user: None };
        let machine = |n: usize| Uuid::from_u128(n as u128 + 1);
        let machines = (0..MACHINES).filter(|n| self.seen[*n] && fault != Fault::Account);
        let users = Users {
            machines: machines.map(|n| (process(n), machine(n))).collect(),
            others: Vec::new(),
        };
        let members: Vec<Member> = (0..MACHINES)
            .filter_map(|n| {
                let released = self.machines[n].place?.into();
                let system = RunningSystem {
                    system: machine(n),
                    machine: Some(machine(n)),
                    boot: machine(n),
                };
                let (tools, is_current) = (Tools::Same, true);
                let place = n as u64;
                Some(Member {
                    place,
                    system,
                    tools,
                    is_current,
                    applied: 2,
                    heartbeat: 0,
                    released,
                })
            })
            .collect();
        // Whoever is not seen may as well be silent.
        users.standing(&members, 2, |_| false).released == 2
    }

    fn host(&self, fault: Fault, next: &mut Vec<Self>) {
        let mut to = |change: &dyn Fn(&mut Self)| {
            let mut world = *self;
            change(&mut world);
            next.push(world);
        };
        match self.host {
            Host::Before => to(&|w| (w.host, w.published) = (Host::Looks(0), 2)),
            Host::Looks(n) => to(&|w| {
                w.seen[n] = w.machines[n].mount != Mount::Off;
                w.host = if n + 1 < MACHINES { Host::Looks(n + 1) } else { Host::Looked };
            }),
            Host::Looked => to(&|w| {
                let free = w.judge(fault);
                w.host = if free { Host::Judged } else { Host::Looks(0) };
            }),
            Host::Judged => to(&|w| {
                (w.host, w.void[0], w.number) = (Host::FirstPhase, true, w.number + 1);
            }),
            Host::FirstPhase => {
                to(&|w| {
                    let new = |n: usize| w.machines[n].mount != Mount::Off && !w.seen[n];
                    w.void[1] = fault == Fault::Number || !(0..MACHINES).any(new);
                    w.host = Host::Done;
                });
                // It is killed, and another command uses the memory.
                to(&|w| w.host = Host::Reused);
            }
            Host::Done => {
                to(&|w| (w.host, w.number) = (Host::Reused, w.number + 1));
                to(&|w| w.host = Host::Reused);
            }
            Host::Reused => {}
        }
    }

    fn machine(&self, n: usize, fault: Fault, next: &mut Vec<Self>) {
        let mut to = |change: &dyn Fn(&mut Machine)| {
            let mut world = *self;
            change(&mut world.machines[n]);
            next.push(world);
        };
        let Machine { mount, watch, place } = self.machines[n];
        let (published, number) = (self.published, self.number);
        let careful = n != OLD && fault != Fault::Number;
        match mount {
            Mount::Off => to(&|m| m.mount = Mount::Up),
            Mount::Up => to(&|m| {
                m.mount = Mount::Reading { published, number, made: !self.void[0] };
            }),
            Mount::Reading { published, number, made } => to(&|m| {
                let torn = careful && (number != self.number || number % 2 == 1);
                // One who finds it odd reads again, until nothing changes: here, until the end.
                let crashed = self.host == Host::Reused && number == self.number;
                let removed = published > 1 && !self.void[1];
                m.mount = match torn && !crashed {
                    true => Mount::Up,
                    false => {
                        Mount::Shows { applied: published, name: made && !removed, open: false }
                    }
                };
            }),
            Mount::Shows { applied, name, open } => {
                if name && !open {
                    to(&|m| m.mount = Mount::Shows { applied, name, open: true });
                }
                if open {
                    to(&|m| m.mount = Mount::Shows { applied, name, open: false });
                }
                // By the watch, or by another player.
                if applied < published {
                    let stays = name && self.void[1];
                    to(&|m| m.mount = Mount::Shows { applied: published, name: stays, open });
                }
                if !watch && n != OLD {
                    to(&|m| (m.watch, m.place) = (true, Some(0)));
                }
                if watch && applied == 2 && (!(name || open) || fault == Fault::Proof) {
                    to(&|m| m.place = place.and(Some(2)));
                }
                if watch {
                    to(&|m| m.watch = false);
                    to(&|m| (m.watch, m.place) = (false, None));
                }
            }
        }
        if mount != Mount::Off {
            to(&|m| (m.mount, m.watch) = (Mount::Off, false));
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
fn explore(fault: Fault) -> (usize, Option<World>) {
    let first = World { published: 1, ..World::default() };
    let (mut known, mut left) = (HashSet::from([first]), vec![first]);
    let mut next = Vec::new();
    let mut reused = false;
    while let Some(world) = left.pop() {
        if world.is_wrong() {
            return (known.len(), Some(world));
        }
        reused |= world.host == Host::Reused;
        world.host(fault, &mut next);
        (0..MACHINES).for_each(|n| world.machine(n, fault, &mut next));
        left.extend(next.drain(..).filter(|next| known.insert(*next)));
    }
    assert!(reused, "the memory never comes back");
    (known.len(), None)
}

#[test]
fn no_order_of_the_steps_takes_memory_from_somebody() {
    let (states, wrong) = explore(Fault::None);
    println!("{states} states");
    assert_eq!(wrong, None);
}

#[test]
fn each_part_of_the_protocol_is_needed() {
    for fault in [Fault::Account, Fault::Proof, Fault::Number] {
        assert!(explore(fault).1.is_some());
    }
}
