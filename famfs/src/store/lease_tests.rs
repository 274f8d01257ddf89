// SPDX-License-Identifier: Apache-2.0 OR MIT
use std::cell::Cell;

use super::*;
use crate::media::PoolFile;
use crate::store::identity::stand_in::Machine;

const FS: Uuid = Uuid::from_u128(77);
/// The dead expire soon.
const QUICK: Timing = Timing {
    interval: Duration::from_millis(20),
    expiry: Duration::from_millis(300),
    settle: Duration::from_millis(1),
    patience: Duration::from_secs(60),
};
/// On a busy host a holder may miss many beats.
const PATIENT: Timing = Timing { expiry: Duration::from_secs(60), ..QUICK };

fn system(boot: u128) -> RunningSystem {
    // Clones: everything that is copied with an image is the same.
    RunningSystem { system: Uuid::from_u128(1), machine: None, boot: Uuid::from_u128(boot) }
}

fn as_is(system: RunningSystem) -> Identity {
    Identity::of_another(system)
}

/// A pool, and handles of it as several systems have them.
struct Pool(PoolFile);

impl Pool {
    fn new() -> Self {
        Self(PoolFile::for_tests(16 << 20))
    }

    fn acquire(&self, me: RunningSystem, force: bool) -> Result<Keeper, LeaseError> {
        let media = Box::new(self.0.try_clone().unwrap());
        Keeper::acquire(media, FS, as_is(me), force, PATIENT, |_| {})
    }

    fn found(&self) -> Found {
        read(&self.0, FS).unwrap().unwrap()
    }
}

#[test]
fn a_living_master_keeps_clones_out() {
    let pool = Pool::new();
    assert_eq!(read(&pool.0, FS).unwrap(), None, "old media have no lease");
    let first = pool.acquire(system(1), false).unwrap();
    let error = pool.acquire(system(2), false).unwrap_err();
    assert!(matches!(error, LeaseError::Held { holder, .. } if holder == system(1)), "{error}");
    assert!(
        error.to_string().contains("; it has the UUIDs of this system: it is a clone"),
        "{error}"
    );
    first.check().unwrap();
    drop(first);
    assert_eq!(pool.found(), Found { holder: system(1), heartbeat: 0 });
    let start = Instant::now();
    pool.acquire(system(2), false).unwrap();
    assert!(start.elapsed() < PATIENT.expiry, "a lease that was given back is free at once");
}

#[test]
fn a_dead_master_is_waited_for_and_replaced() {
    let pool = Pool::new();
    let mut dead = pool.acquire(system(1), false).unwrap();
    *dead.shared.stop.lock().unwrap() = true;
    dead.taken = false;
    let last = pool.found().heartbeat;
    let waited = Cell::new(0);
    let start = Instant::now();
    let media = Box::new(pool.0.try_clone().unwrap());
    let count = |holder: &RunningSystem| {
        assert_eq!(*holder, system(1));
        waited.set(waited.get() + 1);
    };
    let second = Keeper::acquire(media, FS, as_is(system(2)), false, QUICK, count).unwrap();
    assert!(start.elapsed() >= QUICK.expiry && waited.get() >= 1);
    assert_ne!(pool.found().heartbeat, last);
    // The dead one only slept: it notices before it does harm.
    let lost = dead.check().unwrap_err();
    assert!(matches!(lost, LeaseError::Lost { holder } if holder == system(2)), "{lost}");
    second.check().unwrap();
}

#[test]
fn programs_of_one_system_share_the_lease() {
    let pool = Pool::new();
    let watch = pool.acquire(system(1), false).unwrap();
    drop(pool.acquire(system(1), false).unwrap());
    watch.check().unwrap();
    let before = pool.found().heartbeat;
    assert_ne!(before, 0);
    let end = Instant::now() + PATIENT.expiry;
    while pool.found().heartbeat == before {
        assert!(Instant::now() < end, "the heart stands still at {before}");
        thread::sleep(QUICK.interval);
    }
    assert_ne!(pool.found().heartbeat, 0);
}

#[test]
fn force_takes_it_from_the_living() {
    let pool = Pool::new();
    let first = pool.acquire(system(1), false).unwrap();
    let second = pool.acquire(system(2), true).unwrap();
    assert!(matches!(first.check(), Err(LeaseError::Lost { .. })));
    drop(first);
    second.check().unwrap();
}

/// The host of the pool.
fn host() -> RunningSystem {
    RunningSystem { system: Uuid::nil(), machine: None, boot: Uuid::from_u128(9) }
}

#[test]
fn a_master_lends_the_lease_to_the_host() {
    let pool = Pool::new();
    let watch = pool.acquire(system(1), false).unwrap();
    let told = Cell::new(0);
    let again = thread::scope(|scope| {
        let lender = scope.spawn(|| {
            let end = Instant::now() + PATIENT.expiry;
            while !watch.is_asked_for().unwrap() {
                assert!(Instant::now() < end, "nobody asks");
            }
            watch.release();
            // It wants it back at once, and has to wait.
            let media = Box::new(pool.0.try_clone().unwrap());
            let keeper = Keeper::acquire(media, FS, as_is(system(1)), false, PATIENT, |holder| {
                assert!(holder.is_host(), "{holder}");
            });
            (Instant::now(), keeper.unwrap())
        });
        let media = Box::new(pool.0.try_clone().unwrap());
        let count = |_: &RunningSystem| told.set(told.get() + 1);
        let keeper = Keeper::acquire(media, FS, as_is(host()), false, PATIENT, count).unwrap();
        assert!(!keeper.is_asked_for().unwrap());
        assert_eq!(pool.found().holder, host());
        // Long enough for a master that does not wait.
        thread::sleep(QUICK.expiry);
        keeper.check().unwrap();
        let end = Instant::now();
        drop(keeper);
        let (back, keeper) = lender.join().unwrap();
        assert!(back > end, "the master had it back before the host was done");
        keeper
    });
    assert_eq!((pool.found().holder, told.get()), (system(1), 0));
    again.check().unwrap();
}

#[test]
fn a_master_that_takes_the_lease_while_the_host_waits_is_asked_for_it() {
    let pool = Pool::new();
    let media = || Box::new(pool.0.try_clone().unwrap());
    let slow = Timing { settle: QUICK.expiry, ..PATIENT };
    let told = Cell::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !lease_request::is_asked(&pool.0).unwrap() {
                thread::yield_now();
            }
            // By force: in time, though it is asked for.
            let keeper = pool.acquire(system(1), true).unwrap();
            thread::sleep(2 * slow.settle);
            keeper.release();
        });
        let count = |_: &RunningSystem| told.set(told.get() + 1);
        Keeper::acquire(media(), FS, as_is(host()), false, slow, count).unwrap();
    });
    assert_eq!(told.get(), 0, "the host watched whether the master lives");
}

#[test]
fn a_lease_that_was_taken_since_it_was_free_is_left_alone() {
    let pool = Pool::new();
    let keeper = pool.acquire(host(), false).unwrap();
    let (holder, _) = claimant(&pool).claim(false, None, QUICK).unwrap();
    assert_eq!((holder, pool.found().holder), (Some(host()), host()));
    keeper.check().unwrap();
}

/// The host puts its name on the lease some time before it beats.
#[test]
fn a_lease_for_which_the_host_asks_gets_no_name() {
    let pool = Pool::new();
    lease_request::ask(&pool.0).unwrap();
    let (holder, _) = claimant(&pool).claim(false, None, QUICK).unwrap();
    assert!(holder.is_some_and(|holder| holder.is_host()));
    assert!(read(&pool.0, FS).unwrap().is_none_or(|found| found.holder != system(1)));
}

/// A guest that has judged the lease free.
fn claimant(pool: &Pool) -> Shared {
    Shared {
        media: Box::new(pool.0.try_clone().unwrap()),
        fs_uuid: FS,
        identity: as_is(system(1)),
        me: system(1),
        next: AtomicU64::new(1),
        lost: OnceLock::new(),
        stop: Mutex::new(false),
        wake: Condvar::new(),
    }
}

#[test]
fn a_master_that_writes_is_waited_for() {
    let pool = Pool::new();
    let writer = pool.acquire(system(1), false).unwrap();
    let media = || Box::new(pool.0.try_clone().unwrap());
    let told = Cell::new(0);
    let brief = Timing { patience: Duration::from_millis(1), ..PATIENT };
    let count = |holder: &RunningSystem| {
        assert_eq!(*holder, system(1));
        told.set(told.get() + 1);
    };
    let error = Keeper::acquire(media(), FS, as_is(host()), false, brief, count).unwrap_err();
    assert!(matches!(error, LeaseError::Held { holder, .. } if holder == system(1)), "{error}");
    assert_eq!(told.get(), 1);
    assert!(!writer.is_asked_for().unwrap(), "nobody asks any more");
    writer.check().unwrap();
    // Nor does a host that takes a living master for an answer.
    let never = Timing { patience: Duration::ZERO, ..PATIENT };
    let start = Instant::now();
    Keeper::acquire(media(), FS, as_is(host()), false, never, |_| {}).unwrap_err();
    assert!(start.elapsed() < lease_request::GRACE);
    drop(writer);
    Keeper::acquire(media(), FS, as_is(host()), false, PATIENT, |_| {}).unwrap();
}

#[test]
fn a_request_of_a_host_that_was_killed_is_cleared() {
    let pool = Pool::new();
    drop(pool.acquire(system(1), false).unwrap());
    lease_request::ask(&pool.0).unwrap();
    let start = Instant::now();
    let keeper = pool.acquire(system(1), false).unwrap();
    assert!(start.elapsed() >= lease_request::GRACE && !keeper.is_asked_for().unwrap());
}

#[test]
fn what_was_lost_stays_lost_when_the_system_has_the_lease_again() {
    let pool = Pool::new();
    let stale = pool.acquire(system(1), false).unwrap();
    let second = pool.acquire(system(2), true).unwrap();
    // Its own thread notices without being asked.
    let end = Instant::now() + PATIENT.expiry;
    while stale.shared.lost.get().is_none() {
        assert!(Instant::now() < end, "nobody noticed");
        thread::sleep(QUICK.interval);
    }
    drop(second);
    let again = pool.acquire(system(1), false).unwrap();
    assert!(matches!(stale.check(), Err(LeaseError::Lost { holder }) if holder == system(2)));
    again.check().unwrap();
    drop(stale);
    assert_ne!(pool.found().heartbeat, 0, "the new one has it still");
}

#[test]
fn a_clone_of_the_master_leaves_the_lease_alone() {
    let (pool, machine) = (Pool::new(), Machine::new());
    let media = || Box::new(pool.0.try_clone().unwrap());
    let acquire = |timing| Keeper::acquire(media(), FS, machine.identity(), false, timing, |_| {});
    let saved = acquire(PATIENT).unwrap();
    machine.resume(2);
    // From here on this is the clone, and the last one that was saved beats elsewhere.
    assert!(matches!(saved.check(), Err(LeaseError::Resumed)));
    // Its own thread has noticed too.
    let thread = saved.thread.as_ref().unwrap();
    let end = Instant::now() + PATIENT.expiry;
    while !thread.is_finished() {
        assert!(Instant::now() < end, "it beats for another VM");
        thread::sleep(QUICK.interval);
    }
    let before = pool.found();
    drop(saved);
    assert_eq!(pool.found(), before, "it is not this system's to release");
    assert_ne!(before.holder, machine.identity().system());
    // It is refused while the one that was saved lives.
    let living = pool.acquire(before.holder, false).unwrap();
    let error = acquire(PATIENT).unwrap_err();
    assert!(matches!(error, LeaseError::Held { holder, .. } if holder == before.holder), "{error}");
    living.check().unwrap();
    living.release();
    acquire(PATIENT).unwrap().check().unwrap();
}

#[test]
fn a_clone_of_who_waits_for_the_lease_does_not_take_it() {
    let (pool, machine) = (Pool::new(), Machine::new());
    let identity = machine.identity();
    machine.resume(2);
    let media = Box::new(pool.0.try_clone().unwrap());
    let error = Keeper::acquire(media, FS, identity, false, QUICK, |_| {}).unwrap_err();
    assert!(matches!(error, LeaseError::Resumed), "{error}");
    assert_eq!(read(&pool.0, FS).unwrap(), None, "nothing was written");
}

#[test]
fn a_heart_beats_on_after_a_damage_that_passes() {
    let pool = Pool::new();
    let keeper = pool.acquire(system(1), false).unwrap();
    let mut magic = [0; 8];
    pool.0.read_at(LEASE_OFFSET, &mut magic).unwrap();
    pool.0.write_at(LEASE_OFFSET, &[0; 8]).unwrap();
    assert!(matches!(keeper.check(), Err(LeaseError::Gone { .. })));
    // Several beats long.
    thread::sleep(PATIENT.interval * 2);
    pool.0.write_at(LEASE_OFFSET, &magic).unwrap();
    keeper.check().unwrap();
    let before = pool.found().heartbeat;
    let end = Instant::now() + Duration::from_secs(60);
    while pool.found().heartbeat == before {
        assert!(Instant::now() < end, "the heart stands still at {before}");
        thread::sleep(QUICK.interval);
    }
}

#[test]
fn a_lease_of_an_earlier_file_system_does_not_count() {
    let pool = Pool::new();
    let keeper = pool.acquire(system(1), false).unwrap();
    assert_eq!(read(&pool.0, Uuid::from_u128(78)).unwrap(), None);
    // What the reference's mkfs leaves of other data is no lease either, nor a damaged one.
    pool.0.write_at(LEASE_OFFSET + 20, &[0xee; 4]).unwrap();
    assert_eq!(read(&pool.0, FS).unwrap(), None);
    assert!(matches!(keeper.check(), Err(LeaseError::Gone { .. })));
}

/// A master and the host want the free lease at the same moment, again and again: each gets it, and
/// keeps it as long as it works.
#[test]
fn at_the_same_moment_one_has_it_after_the_other() {
    let pool = Pool::new();
    // Longer than a thread waits for a processor.
    let timing = Timing { settle: Duration::from_millis(100), ..PATIENT };
    for _ in 0..5 {
        thread::scope(|scope| {
            for me in [system(1), host()] {
                let media = Box::new(pool.0.try_clone().unwrap());
                scope.spawn(move || {
                    let keeper =
                        Keeper::acquire(media, FS, as_is(me), false, timing, |_| {}).unwrap();
                    for _ in 0..5 {
                        thread::sleep(Duration::from_millis(10));
                        keeper.check().unwrap();
                    }
                });
            }
        });
    }
}
