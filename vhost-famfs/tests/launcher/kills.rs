// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ends `up`, `down` and their processes at moments that are chosen by a seed. Whatever the moment,
//! `down` must remove everything, users' pools must stay unchanged, and no unrelated process may
//! get a signal.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use famfs::media::PoolFile;
use famfs::store::mkfs;
use famfs::sys::dax::Access;
use famfs::system::process::Handle;
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use uuid::Uuid;

use super::host::Host;
use super::random::{Random, seed};
use super::trial;

/// How often to run each kind.
const ROUNDS: u32 = 60;

/// The name of every cluster in this test.
const NAME: &str = "lab";

/// The data at the end of a user's pool.
const TREASURE: [u8; 5000] = [b'$'; 5000];

/// The size of pools with a path.
const POOL_SIZE: u64 = 16 << 20;

pub fn trials() -> Vec<Trial> {
    let seed = seed();
    type Round = fn(&mut Test);
    let kinds: [(&str, Round); 4] = [
        ("kills_of_up_leave_what_down_clears", up_is_killed),
        ("an_up_that_is_asked_to_stop_leaves_nothing", up_is_stopped),
        ("kills_of_down_leave_what_another_down_clears", down_is_killed),
        ("kills_of_a_part_end_the_start_or_degrade_the_cluster", part_is_killed),
    ];
    let trials = (1..).zip(kinds).map(|(number, (name, round))| {
        trial(name, move || {
            let mut test = Test::new(seed.wrapping_add(number));
            (0..ROUNDS).for_each(|_| round(&mut test));
            test.host.assert_bystander_unharmed();
        })
    });
    trials.collect()
}

struct Test {
    host: Host,
    random: Random,
    /// How long an undisturbed `up` takes.
    up_takes: Duration,
    /// All bytes of the user's pool.
    users: Vec<u8>,
}

/// The pool of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PoolOf {
    /// Made for the cluster, and removed with it.
    Cluster,
    /// Named by the user, and created by the start.
    Start,
    /// The user's own, with a file in it.
    User,
}

impl Test {
    fn new(seed: u32) -> Self {
        let (host, random) = (Host::new(), Random::new(seed));
        let mut test = Self { host, random, up_takes: Duration::ZERO, users: Vec::new() };
        // The first run is slower, because its programs are not in memory yet.
        for _ in 0..2 {
            let begun = Instant::now();
            test.bring_up("qemu", PoolOf::Cluster);
            test.up_takes = begun.elapsed();
            test.down(&[]);
        }
        test
    }

    /// Waits for a random part of a duration.
    fn wait_within(&mut self, most: Duration) -> Duration {
        let part = most * self.random.below(1000) / 1000;
        thread::sleep(part);
        part
    }

    fn some_pool(&mut self) -> PoolOf {
        match self.random.below(3) {
            0 => PoolOf::Cluster,
            1 => PoolOf::Start,
            _ => PoolOf::User,
        }
    }

    fn named_pool(&self) -> PathBuf {
        self.host.path().join("named pool")
    }

    /// Creates the user's pool, with a file system and some data.
    fn make_pool(&mut self) {
        let pool = self.named_pool();
        let made = self.host.run(&["pool", "create", pool.to_str().unwrap(), "--size", "16M"]);
        assert!(made.status.success(), "{made:?}");
        format(&pool);
        let mut file = OpenOptions::new().read(true).write(true).open(&pool).unwrap();
        file.write_all_at(&TREASURE, POOL_SIZE - TREASURE.len() as u64).unwrap();
        self.users.clear();
        file.read_to_end(&mut self.users).unwrap();
    }

    /// A directory to share.
    fn share(&self) -> PathBuf {
        let share = self.host.path().join("share");
        fs::create_dir_all(share.join("inner")).unwrap();
        fs::write(share.join("inner/large"), vec![1; 3 << 20]).unwrap();
        fs::write(share.join("small"), "small").unwrap();
        share
    }

    /// Starts an `up` with two VMs; in every second run, a new pool is filled first.
    fn up(&mut self, qemu: &str, pool: PoolOf) -> Child {
        let share = self.share();
        let named = self.named_pool();
        let named = named.to_str().unwrap();
        // The stand-in takes no memory, so how much the host has left does not matter.
        let mut words = vec!["up", "--name", NAME, "--vms", "2", "--overcommit", "--json"];
        match pool {
            PoolOf::Cluster => {}
            PoolOf::Start => words.extend(["--pool", named, "--size", "64M"]),
            PoolOf::User => {
                self.make_pool();
                words.extend(["--pool", named]);
            }
        }
        if pool != PoolOf::User && self.random.below(2) == 0 {
            words.extend(["--share", share.to_str().unwrap()]);
        }
        let mut command = self.host.command(qemu, &words);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts a cluster, which must succeed.
    fn bring_up(&mut self, qemu: &str, pool: PoolOf) {
        let output = self.up(qemu, pool).wait_with_output().unwrap();
        assert!(output.status.success(), "{qemu}, pool of {pool:?}: {output:?}");
    }

    /// Takes the cluster down, which must succeed.
    fn down(&self, more: &[&str]) -> Value {
        self.host.json(&[&["down", NAME, "--timeout", "1", "--json"], more].concat())
    }

    /// Removes what remains, if anything; returns the state that was there.
    fn clear(&self, more: &[&str], moment: &str) -> Option<Value> {
        let state = self.host.state(NAME);
        let listed = self.host.run(&["ps", "--json"]);
        let code = listed.status.code().unwrap();
        assert!(matches!(code, 0 | 3), "{moment}: ps: {listed:?}");
        if self.host.clusters().join(NAME).exists() {
            self.down(more);
        } else {
            let refused = self.host.run(&["down", NAME]);
            assert_eq!(refused.status.code(), Some(1), "{moment}: {refused:?}");
            // It clears what one that was killed at its very end has left.
        }
        self.host.assert_nothing_left(moment);
        state
    }

    /// Checks the pool after the cluster is gone, and removes it. If the cluster was up, a pool
    /// that the user named must be kept.
    fn check_pool(&self, pool: PoolOf, state: Option<&Value>, moment: &str) {
        let path = self.named_pool();
        let was_up = state.is_some_and(|state| state["phase"] == "up");
        if let Some(own) = state.and_then(|state| state["pool"]["path"].as_str())
            && pool == PoolOf::Cluster
        {
            assert!(!Path::new(own).exists(), "{moment}: the cluster's pool {own} is left");
        }
        match pool {
            PoolOf::User => {
                let same = fs::read(&path).unwrap() == self.users;
                assert!(same, "{moment}: the user's pool has changed");
            }
            PoolOf::Start if was_up => assert!(path.exists(), "{moment}: the named pool is gone"),
            PoolOf::Start => assert!(!path.exists(), "{moment}: a half-made pool is left"),
            PoolOf::Cluster => {}
        }
        if path.exists() {
            fs::remove_file(path).unwrap();
        }
    }
}

/// SIGKILL to `up`.
fn up_is_killed(test: &mut Test) {
    let pool = test.some_pool();
    let mut up = test.up("qemu", pool);
    let after = test.wait_within(test.up_takes * 5 / 4);
    let moment = format!("up with a pool of {pool:?} killed after {after:?}");
    up.kill().unwrap();
    up.wait().unwrap();
    let state = test.clear(&[], &moment);
    test.check_pool(pool, state.as_ref(), &moment);
}

/// A signal with which users and their systems ask `up` to stop.
fn up_is_stopped(test: &mut Test) {
    let pool = test.some_pool();
    let signal = [Signal::INT, Signal::TERM, Signal::HUP][test.random.below(3) as usize];
    let mut up = test.up("qemu-slow", pool);
    let after = test.wait_within(test.up_takes * 3);
    let moment = format!("up with a pool of {pool:?} asked by {signal:?} after {after:?}");
    // It may have finished.
    let _ = kill_process(Pid::from_child(&up), signal);
    let status = up.wait().unwrap();
    let state = if status.success() {
        test.clear(&[], &moment)
    } else {
        test.host.assert_nothing_left(&format!("{moment}: {status}"));
        None
    };
    test.check_pool(pool, state.as_ref(), &moment);
}

/// SIGKILL to `down`.
fn down_is_killed(test: &mut Test) {
    let pool = test.some_pool();
    // Only few must be waited for, because QEMU has five seconds to end.
    let qemu = match test.random.below(20) {
        0 => "qemu-stuck",
        1 | 2 => "qemu-deaf",
        _ => "qemu",
    };
    test.bring_up(qemu, pool);
    // The cluster's own pool is removed with it, whichever `down` gets that far.
    let mut down = test.host.command("qemu", &["down", NAME, "--timeout", "1"]);
    let mut down = down.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let after = test.wait_within(test.up_takes);
    let moment = format!("down of {qemu} with a pool of {pool:?} killed after {after:?}");
    down.kill().unwrap();
    down.wait().unwrap();
    let state = test.clear(&[], &moment);
    if pool != PoolOf::Cluster {
        assert!(test.named_pool().exists(), "{moment}: the user's pool is gone");
    }
    if pool != PoolOf::Start {
        test.check_pool(pool, state.as_ref(), &moment);
    }
    let _ = fs::remove_file(test.named_pool());
}

/// SIGKILL to a VM or a back-end, during or after a start.
fn part_is_killed(test: &mut Test) {
    let pool = test.some_pool();
    let mut up = test.up("qemu-slow", pool);
    let (vm, part) =
        (test.random.below(2) as usize, ["qemu", "backend"][test.random.below(2) as usize]);
    let end = Instant::now() + Duration::from_secs(60);
    let victim = loop {
        let state = test.host.state(NAME);
        let pid = state.and_then(|state| state["vms"][vm][part]["pid"].as_u64());
        if let Some(handle) = pid.and_then(|pid| Handle::open(u32::try_from(pid).unwrap()).ok()) {
            break handle;
        }
        assert!(Instant::now() < end && up.try_wait().unwrap().is_none(), "up starts no {part}");
        thread::sleep(Duration::from_millis(1));
    };
    let after = test.wait_within(test.up_takes * 2);
    let moment = format!("the {part} of VM {vm} with a pool of {pool:?} killed after {after:?}");
    assert!(victim.kill(), "the process cannot be killed");
    let status = up.wait().unwrap();
    let state = if status.success() {
        let listed = test.host.run(&["ps"]);
        assert_eq!(listed.status.code(), Some(3), "{moment}: {listed:?}");
        test.clear(&[], &moment)
    } else {
        test.host.assert_nothing_left(&format!("{moment}: {status}"));
        None
    };
    test.check_pool(pool, state.as_ref(), &moment);
}

/// Creates a file system in a pool.
fn format(pool: &Path) {
    let media = PoolFile::open(pool, Access::Write).unwrap();
    let [fs_uuid, dev_uuid, system_uuid] = [(); 3].map(|()| Uuid::new_v4());
    let (log_len, force, dev_name) = (None, false, "pool".to_owned());
    let options = mkfs::Options {
        log_len,
        extensions: true,
        force,
        fs_uuid,
        dev_uuid,
        system_uuid,
        dev_name,
    };
    mkfs::mkfs(&media, &options).unwrap();
}
