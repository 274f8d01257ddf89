// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use crate::media::PoolFile;
use crate::store::identity::stand_in::Machine;

const FS: Uuid = Uuid::from_u128(77);
const QUICK: Timing = Timing {
    interval: Duration::from_millis(20),
    expiry: Duration::from_millis(200),
    settle: Duration::from_millis(5),
    patience: Duration::from_secs(60),
};

fn system(number: u128, boot: u128) -> RunningSystem {
    let (system, boot) = (Uuid::from_u128(number), Uuid::from_u128(boot));
    RunningSystem { system, machine: None, boot }
}

struct Pool(PoolFile);

impl Pool {
    fn new() -> Self {
        Self(PoolFile::for_tests(16 << 20))
    }

    fn take(&self, me: RunningSystem) -> Result<Seat, MemberError> {
        self.take_as(Identity::of_another(me))
    }

    fn take_as(&self, identity: Identity) -> Result<Seat, MemberError> {
        Seat::take(Box::new(self.0.try_clone().unwrap()), FS, identity, QUICK)
    }

    /// Number of the system, and how far it is.
    fn members(&self) -> Vec<(u128, u64)> {
        let members = read(&self.0, FS, Some(0)).unwrap();
        members.iter().map(|m| (m.system.system.as_u128(), m.applied)).collect()
    }
}

#[test]
fn members_come_report_and_go() {
    let pool = Pool::new();
    assert_eq!(pool.members(), []);
    let mut seats: Vec<Seat> = (1..=3).map(|n| pool.take(system(n, n)).unwrap()).collect();
    seats[1].report(0, 7, 0).unwrap();
    assert_eq!(pool.members(), [(1, 0), (2, 7), (3, 0)]);
    // Nobody has released what he has not applied.
    let released = || read(&pool.0, FS, Some(0)).unwrap()[1].released;
    for (told, found) in [(5, 5), (9, 7)] {
        seats[1].report(0, 7, told).unwrap();
        assert_eq!(released(), found);
    }
    drop(seats.remove(0));
    assert_eq!(pool.members(), [(2, 7), (3, 0)]);
    // The free place is used again, and begins at nothing.
    let fourth = pool.take(system(4, 4)).unwrap();
    assert_eq!((fourth.place, pool.members()[0]), (0, (4, 0)));
    assert_eq!(read(&pool.0, Uuid::from_u128(78), Some(0)).unwrap(), [], "another file system's");
}

#[test]
fn what_is_of_another_numbering_does_not_count() {
    let pool = Pool::new();
    let mut seat = pool.take(system(1, 1)).unwrap();
    seat.report(5, 9, 8).unwrap();
    let found = |numbering| {
        let found = read(&pool.0, FS, numbering).unwrap()[0];
        (found.is_current, found.applied, found.released)
    };
    assert_eq!(found(Some(5)), (true, 9, 8));
    for other in [None, Some(0), Some(4), Some(6)] {
        assert_eq!(found(other), (false, 0, 0));
    }
    // In between the two stores neither is taken for one of the other.
    let field = offset(0) + offset_of!(format::Member, applied) as u64;
    pool.0.write_at(field, numbered(7, 3).as_bytes()).unwrap();
    assert_eq!((found(Some(5)), found(Some(7))), ((false, 0, 0), (true, 3, 0)));
}

#[test]
fn tools_of_other_versions_are_known_as_such() {
    let pool = Pool::new();
    let mut seat = pool.take(system(1, 1)).unwrap();
    seat.report(0, 9, 9).unwrap();
    let mut raw = format::Member::new_zeroed();
    pool.0.read_at(offset(0), raw.as_mut_bytes()).unwrap();
    // What older tools read.
    assert_eq!((raw.old_applied.get(), raw.old_released.get()), (0, 0));
    for (version, tools) in [(0, Tools::Older), (MEMBER_VERSION + 1, Tools::Newer)] {
        raw.version = U64::new(version);
        (raw.old_applied, raw.old_released) = (U64::new(9), U64::new(9));
        pool.0.write_at(offset(0), raw.as_bytes()).unwrap();
        let found = read(&pool.0, FS, Some(0)).unwrap()[0];
        assert_eq!((found.tools, found.applied, found.released), (tools, 0, 0));
    }
}

#[test]
fn at_the_same_moment_each_gets_a_place_of_its_own() {
    let pool = Pool::new();
    let seats: Vec<Seat> = thread::scope(|scope| {
        let pool = &pool;
        let takers: Vec<_> =
            (1..=4).map(|n| scope.spawn(move || pool.take(system(n, n)).unwrap())).collect();
        takers.into_iter().map(|taker| taker.join().unwrap()).collect()
    });
    let mut places: Vec<u64> = seats.iter().map(|seat| seat.place).collect();
    places.sort_unstable();
    assert_eq!(places, [0, 1, 2, 3]);
    assert_eq!(pool.members().len(), 4);
}

#[test]
fn a_system_that_was_killed_leaves_a_silent_place_until_it_is_back() {
    let pool = Pool::new();
    std::mem::forget(pool.take(system(1, 1)).unwrap());
    let other = pool.take(system(2, 2)).unwrap();
    let looked = look(&pool.0, FS, Some(0), QUICK).unwrap();
    assert!(looked.iter().all(|(_, alive)| !alive), "nobody beats: {looked:?}");
    // The same machine after a reboot: whether the first is a living clone is not known yet.
    let mut back = pool.take(system(1, 9)).unwrap();
    back.tend(QUICK).unwrap();
    assert_eq!(pool.members(), [(1, 0), (2, 0), (1, 0)]);
    thread::sleep(QUICK.expiry);
    back.tend(QUICK).unwrap();
    assert_eq!(pool.members(), [(2, 0), (1, 0)]);
    drop(other);
    // A program of the running system that was killed: the next one goes on in its place.
    let place = back.place;
    std::mem::forget(back);
    assert_eq!(pool.take(system(1, 9)).unwrap().place, place);
}

#[test]
fn who_beats_is_alive_and_is_not_dropped() {
    let pool = Pool::new();
    let mut seat = pool.take(system(1, 1)).unwrap();
    let before = read(&pool.0, FS, Some(0)).unwrap()[0];
    thread::scope(|scope| {
        let looked = scope.spawn(|| look(&pool.0, FS, Some(0), QUICK).unwrap());
        while !looked.is_finished() {
            seat.tend(QUICK).unwrap();
            thread::sleep(QUICK.interval);
        }
        assert!(matches!(looked.join().unwrap()[..], [(_, true)]));
    });
    assert!(!drop_silent(&pool.0, FS, &before).unwrap());
    let now = read(&pool.0, FS, Some(0)).unwrap()[0];
    assert!(drop_silent(&pool.0, FS, &now).unwrap());
    assert!(matches!(seat.tend(QUICK), Err(MemberError::Lost { place: 0 })));
    assert!(matches!(seat.report(0, 3, 0), Err(MemberError::Lost { place: 0 })));
}

#[test]
fn a_clone_takes_a_place_of_its_own() {
    let (pool, machine) = (Pool::new(), Machine::new());
    let table = || read(&pool.0, FS, Some(0)).unwrap();
    let mut saved = pool.take_as(machine.identity()).unwrap();
    saved.report(0, 7, 7).unwrap();
    let before = table();
    machine.resume(2);
    let resumed = |told| matches!(told, Err(MemberError::Resumed { place: 0 }));
    assert!(resumed(saved.report(0, 9, 9)) && resumed(saved.tend(QUICK)));
    drop(saved);
    assert_eq!(table(), before, "the place is that of the system that was saved");
    let clone = pool.take_as(machine.identity()).unwrap();
    let [first, second] = table()[..] else { panic!("{:?}", table()) };
    assert_eq!((first, second.applied), (before[0], 0));
    assert_eq!(first.system.system, second.system.system);
    assert_ne!(first.system, second.system);
    // The one that was saved goes on.
    let mut original = pool.take(first.system).unwrap();
    original.report(0, 8, 8).unwrap();
    assert_eq!((original.place, table()[0].applied, clone.place), (0, 8, 1));
}

#[test]
fn a_clone_can_leave_an_original_alone_that_is_silent() {
    let pool = Pool::new();
    for (spares, left) in [(true, 2), (false, 1)] {
        std::mem::forget(pool.take(system(1, 1)).unwrap());
        let mut clone = pool.take(system(1, 2)).unwrap();
        if spares {
            clone.spare_kin();
        }
        thread::sleep(QUICK.expiry);
        clone.tend(QUICK).unwrap();
        assert_eq!(pool.members().len(), left, "spares: {spares}");
    }
}

#[test]
fn a_clone_of_who_takes_a_place_writes_nothing() {
    let (pool, machine) = (Pool::new(), Machine::new());
    let identity = machine.identity();
    machine.resume(2);
    assert!(matches!(pool.take_as(identity), Err(MemberError::Resumed { .. })));
    assert_eq!(pool.members(), []);
}

#[test]
fn a_full_table_takes_nobody() {
    let pool = Pool::new();
    for place in 0..MAX_MEMBERS {
        claim(&pool.0, FS, system(place.into(), 1), place).unwrap();
    }
    assert!(matches!(pool.take(system(5000, 5000)), Err(MemberError::Full)));
}

#[test]
fn a_torn_place_is_free() {
    let pool = Pool::new();
    let seat = pool.take(system(1, 1)).unwrap();
    pool.0.write_at(offset(seat.place) + 20, &[0xee; 4]).unwrap();
    assert_eq!(pool.members(), []);
    let other = pool.take(system(2, 2)).unwrap();
    assert_eq!(other.place, seat.place);
    drop(seat);
    assert_eq!(pool.members(), [(2, 0)], "the first has lost it, and frees nothing");
}
