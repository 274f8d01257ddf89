// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Thousands of files that come and go in the smallest log, while machines follow it, hold files,
//! fall behind and start again. The log is never full, and no machine ever holds memory that a new
//! file gets.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use famfs::format::map::{Extent, Memory};
use famfs::format::path::RelPath;
use famfs::kernel::player::{Player, Task};
use famfs::media::in_memory::InMemory;
use famfs::media::{Media, MediaError};
use famfs::replay::reclaim::{reclaim, releasing, renumber};
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::{Attributes, Contents, Owner, fsck};
use famfs::store::identity::{Identity, RunningSystem};
use famfs::store::lease::Timing;
use famfs::store::members::{self, Seat};
use famfs::store::mkfs::{Options, mkfs};
use famfs::store::users::Users;
use famfs::system::holders::NamedProcess;
use famfs::write::volume::{OfflineVolume, Volume};
use famfs::write::writer::{WriteError, Writer};
use uuid::Uuid;

use crate::formatting;
use crate::log::DEVICE_LEN;
use crate::mounted::{Mount, follows, player};

const CYCLES: u64 = 3000;
const MACHINES: usize = 3;
const PAGE: u64 = 4096;
const TIMING: Timing = Timing {
    interval: Duration::from_millis(1),
    expiry: Duration::from_millis(1),
    settle: Duration::ZERO,
    patience: Duration::from_secs(1),
};

/// Memory that several have.
#[derive(Clone)]
struct Shared(Arc<InMemory>);

impl Media for Shared {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn origin(&self) -> u64 {
        0
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
        self.0.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), MediaError> {
        self.0.write_at(offset, buf)
    }

    fn persist(&self, _: u64, _: u64) -> Result<(), MediaError> {
        Ok(())
    }

    fn refresh(&self, _: u64, _: u64) -> Result<(), MediaError> {
        Ok(())
    }

    fn another(&self) -> io::Result<Box<dyn Media>> {
        Ok(Box::new(self.clone()))
    }
}

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A virtual machine.
struct Machine {
    number: usize,
    boot: u128,
    mount: Mount,
    player: Player,
    /// Its watch's place; it outlives the watch.
    seat: Option<Seat>,
    /// Files that a program there has open, and what they had when it opened them.
    held: BTreeMap<u64, (Vec<Extent>, u64)>,
}

impl Machine {
    fn uuid(number: usize) -> Uuid {
        Uuid::from_u128(number as u128 + 1)
    }

    /// One that has just mounted the file system.
    fn start(number: usize, boot: u128, media: &Shared) -> Self {
        let contents = Contents::read(media).unwrap();
        let (mount, mut player) = (Mount::new(), player(&contents));
        mount.play(&mut player, &contents, Task::default()).unwrap();
        Self { number, boot, mount, player, seat: None, held: BTreeMap::new() }
    }

    fn play(&mut self, media: &Shared) {
        let before = (self.player.numbering(), self.player.plan().next_slot());
        let contents = Contents::read(media).unwrap();
        let (applied, _) = self.mount.play(&mut self.player, &contents, Task::default()).unwrap();
        assert!(applied.errors.is_empty(), "{:?}", applied.errors);
        assert_eq!(applied.existed, 0, "the whole tree was compared, after {before:?}");
    }

    /// What a watch does between two looks.
    fn tend(&mut self, media: &Shared) {
        if self.seat.is_none() {
            let uuid = Self::uuid(self.number);
            let boot = Uuid::from_u128(self.boot);
            let me = RunningSystem { system: uuid, machine: Some(uuid), boot };
            let media = Box::new(media.clone());
            let me = Identity::of_another(me);
            self.seat = Some(Seat::take(media, Uuid::from_u128(1), me, TIMING).unwrap());
        }
        let plan = self.player.plan();
        let is_held = |range: &Extent| {
            let mut held = self.held.values().flat_map(|(ranges, _)| ranges);
            held.any(|held| overlap(held, range))
        };
        let removed = plan.tree().removed();
        let first = removed.iter().find(|(_, range)| is_held(range));
        let proven = first.map_or(plan.next_slot(), |(slot, _)| *slot);
        let (next, numbering) = (plan.next_slot(), self.player.numbering().unwrap());
        let seat = self.seat.as_mut().unwrap();
        seat.report(numbering, next, proven).unwrap();
        seat.tend(TIMING).unwrap();
    }

    /// A program opens a file, if it shows one.
    fn open(&mut self, media: &Shared, dice: &mut Dice) {
        let mut found = Vec::new();
        let tree = self.player.plan().tree();
        tree.walk(famfs::format::extension::NO_ENTRY, |path, listed| {
            if let ObjectKind::File { size, bytes } = &listed.object.kind {
                let number = std::str::from_utf8(path).unwrap()[1..].parse::<u64>().unwrap();
                found.push((number, ranges(&tree.memory(bytes, *size), *size)));
            }
            Ok::<(), ()>(())
        })
        .unwrap();
        if !found.is_empty() {
            let at = usize::try_from(dice.below(found.len() as u64)).unwrap();
            let (number, ranges) = found.swap_remove(at);
            self.held.insert(number, (ranges, number));
        }
        self.check(media);
    }

    /// What programs have open has the bytes that it had.
    fn check(&self, media: &Shared) {
        for (ranges, number) in self.held.values() {
            let mut bytes = [0; 8];
            media.read_at(ranges[0].offset, &mut bytes).unwrap();
            assert_eq!(u64::from_le_bytes(bytes), *number, "machine {}", self.number);
        }
    }
}

fn overlap(one: &Extent, other: &Extent) -> bool {
    one.offset < other.offset + other.len && other.offset < one.offset + one.len
}

/// Where the pages of a file are.
fn ranges(memory: &Memory, size: u64) -> Vec<Extent> {
    let pages = (0..size).step_by(usize::try_from(PAGE).unwrap());
    let page = |at| Extent { offset: memory.part(at).unwrap().0.unwrap(), len: PAGE };
    pages.map(page).collect()
}

fn path(number: u64) -> RelPath {
    RelPath::new(format!("f{number}").as_bytes()).unwrap()
}

struct World {
    media: Shared,
    machines: Vec<Machine>,
    files: Vec<u64>,
    moves: u64,
}

impl World {
    /// As the host's commands do, with the lease.
    fn give_back(&mut self, all_slots: bool) {
        let found = releasing(&self.media).unwrap();
        let process =
            |n: usize| NamedProcess { pid: u32::try_from(n).unwrap() + 1, name: None, user: None };
        let machines = (0..MACHINES).map(|n| (process(n), Machine::uuid(n))).collect();
        let users = Users { machines, others: Vec::new() };
        let members = members::read(&self.media, Uuid::from_u128(1), found.numbering).unwrap();
        let standing = users.standing(&members, found.published, |_| false);
        reclaim(&self.media, standing.released, found.numbering.unwrap(), || true).unwrap();
        let now = releasing(&self.media).unwrap();
        if (now.is_short() || all_slots) && standing.may_move(found.published) {
            self.moves += u64::from(renumber(&self.media, || true).unwrap() > 0);
        }
    }

    fn change(&mut self, number: u64, dice: &mut Dice) {
        let volume = OfflineVolume::new(self.media.clone());
        let mut writer = Writer::open(&volume, None).unwrap();
        let size = PAGE * (1 + dice.below(3));
        let room = writer.allocate(&path(number), size).unwrap();
        for new in ranges(room.memory(), size) {
            let mut held = self.machines.iter().flat_map(|machine| machine.held.values());
            assert!(!held.any(|(ranges, _)| ranges.iter().any(|held| overlap(held, &new))));
        }
        let owner = Owner { uid: 1000, gid: 1000, mode: 0o644 };
        writer
            .create(&path(number), Attributes { owner, mtime: None }, room, |file| {
                file.write(0, &number.to_le_bytes()).unwrap();
                Ok::<_, WriteError>(())
            })
            .unwrap();
        self.files.push(number);
        while self.files.len() > 4 {
            let at = usize::try_from(dice.below(self.files.len() as u64)).unwrap();
            writer.delete(&path(self.files.swap_remove(at))).unwrap();
        }
        writer.commit().unwrap();
    }
}

#[test]
fn a_short_log_is_never_full() {
    let media = Shared(Arc::new(InMemory::new(DEVICE_LEN)));
    mkfs(&media, &Options { log_len: Some(2 << 20), ..formatting::options(true) }).unwrap();
    let machines = (0..MACHINES).map(|n| Machine::start(n, 100, &media)).collect();
    let mut world = World { media: media.clone(), machines, files: Vec::new(), moves: 0 };
    let mut dice = Dice(7);
    for cycle in 1..=CYCLES {
        world.change(cycle, &mut dice);
        for machine in &mut world.machines {
            if dice.one_in(400) {
                // It starts again, and leaves its place.
                if let Some(seat) = machine.seat.take() {
                    std::mem::forget(seat);
                }
                *machine = Machine::start(machine.number, machine.boot + 1, &media);
                continue;
            }
            let watches = machine.seat.is_some() || dice.one_in(5);
            if watches && !dice.one_in(4) {
                machine.play(&media);
                machine.tend(&media);
            }
            if dice.one_in(3) {
                machine.open(&media, &mut dice);
            }
            if dice.one_in(4) {
                machine.held.clear();
            }
            machine.check(&media);
        }
        world.give_back(dice.one_in(60));
    }
    assert!(world.moves > 10, "{}", world.moves);
    println!("entries moved {} times", world.moves);
    for machine in &mut world.machines {
        machine.play(&media);
        machine.held.clear();
        machine.tend(&media);
        follows(&machine.mount, &Contents::read(&media).unwrap().plan);
    }
    world.give_back(true);
    let contents = Contents::read(&media).unwrap();
    assert_eq!(fsck::check(OfflineVolume::new(media.clone()).media(), &contents).problems, [""; 0]);
    assert!(releasing(&media).unwrap().is_nothing());
}
