// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cp --atomic` that is killed or stopped at any moment: readers see nothing of it or all.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use common::Pool;
use famfs::format::LOG_OFFSET;
use famfs::media::{Media, PoolFile};
use famfs::replay::Contents;
use famfs::store::superblock::default_log_len;
use famfs::sys::dax::Access;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const KILLS: u32 = 20;
const FILES: u64 = 2000;

/// Gives the same moments again; they are shares of the time that a copy takes here.
const SEED: u64 = 0x6174_6f6d_6963;

fn famfs(pool: &Pool) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
    command.arg("--pool").arg(&pool.path);
    command
}

fn run(command: &mut Command) {
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
}

fn formatted() -> Pool {
    let pool = Pool::new(&[], 64 << 20);
    run(famfs(&pool).arg("mkfs"));
    pool
}

/// A directory with many small files.
fn source() -> TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    trees::plant_many(&dir.path().join("tree"), FILES).unwrap();
    dir
}

fn copy(pool: &Pool, source: &Path) -> Command {
    let mut command = famfs(pool);
    command.args(["cp", "-r", "--atomic"]).arg(source.join("tree")).arg("/");
    command
}

/// Number of names that a reader finds now.
fn names(pool: &Pool) -> u64 {
    let media = PoolFile::open(&pool.path, Access::Read).unwrap();
    let plan = Contents::read(&media).unwrap().plan;
    assert!(plan.stopped.is_none() && plan.refused.is_empty());
    let counts = plan.tree().counts();
    counts.files + counts.directories
}

/// The pool is clean and holds the copy or nothing; whether it holds the copy.
fn whole(pool: &Pool, source: &Path, all: u64) -> bool {
    run(famfs(pool).arg("fsck"));
    let found = names(pool);
    assert!(found == 0 || found == all, "{found} of {all} names");
    if found == all {
        run(famfs(pool).args(["cp", "-r", "--compare"]).arg(source.join("tree")).arg("/"));
    }
    found == all
}

/// Looks at the pool until the copy has ended. Another process can see the one or the other.
fn watch(pool: &Pool, all: u64, ended: &AtomicBool) {
    let mut before = 0;
    while !ended.load(Ordering::Relaxed) {
        let now = names(pool);
        assert!(now == 0 || now == all, "a reader saw {now} of {all} names");
        assert!(now >= before, "a reader saw the copy go");
        before = now;
    }
}

/// A number from 0 to 1 that follows from the seed.
fn share(state: &mut u64) -> f64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    f64::from(u32::try_from(*state >> 32).unwrap()) / f64::from(u32::MAX)
}

#[test]
fn a_killed_copy_is_there_or_not() {
    let source = source();
    let source = source.path();
    let pool = formatted();
    let begun = Instant::now();
    run(&mut copy(&pool, source));
    let whole_time = begun.elapsed();
    let all = names(&pool);
    assert!(all > FILES);

    let (mut outcomes, mut random) = ([0, 0], SEED);
    for number in 0..KILLS {
        let pool = formatted();
        let ended = AtomicBool::new(false);
        scope(|scope| {
            let mut child = copy(&pool, source).stderr(Stdio::null()).spawn().unwrap();
            scope.spawn(|| watch(&pool, all, &ended));
            // A twentieth of the time for each, so that they are spread; the last one may end.
            let moment = (f64::from(number) + share(&mut random)) / f64::from(KILLS - 1);
            match number {
                0..KILLS if number < KILLS - 1 => sleep(whole_time.mul_f64(moment)),
                _ => drop(child.wait().unwrap()),
            }
            child.kill().unwrap();
            child.wait().unwrap();
            ended.store(true, Ordering::Relaxed);
        });
        outcomes[usize::from(whole(&pool, source, all))] += 1;
        run(&mut copy(&pool, source));
        assert!(whole(&pool, source, all), "kill {number}: the next copy");
    }
    println!("seed {SEED}: {} copies were there, {} were not", outcomes[1], outcomes[0]);
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "{outcomes:?}");
}

/// Waits until the copy has written bytes of files.
fn wait_for_bytes(pool: &Pool, copy: &mut Child) {
    let media = PoolFile::open(&pool.path, Access::Read).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut bytes = [0; 8];
    while bytes == [0; 8] {
        let start = LOG_OFFSET + default_log_len(media.len());
        media.read_at(start, &mut bytes).unwrap();
        assert!(copy.try_wait().unwrap().is_none(), "the copy ended without bytes");
        assert!(Instant::now() < deadline, "no bytes after a minute");
    }
}

#[test]
fn a_stopped_copy_leaves_nothing() {
    let (source, pool) = (source(), formatted());
    let mut child = copy(&pool, source.path()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_bytes(&pool, &mut child);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let stopped = child.wait_with_output().unwrap();
    let message = String::from_utf8(stopped.stderr).unwrap();
    assert_eq!(stopped.status.code(), Some(130), "{message}");
    assert_eq!(message, "famfs: interrupted; nothing was written\n");
    run(famfs(&pool).arg("fsck"));
    let media = PoolFile::open(&pool.path, Access::Read).unwrap();
    let contents = Contents::read(&media).unwrap();
    assert_eq!((contents.log.published(), contents.plan.space.used()), (0, 0));
    run(&mut copy(&pool, source.path()));
    assert!(whole(&pool, source.path(), names(&pool)));
}
