// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Waiting for the members: only those count that live and tell what can be true.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use famfs::media::PoolFile;
use famfs::store::identity::{Identity, RunningSystem};
use famfs::store::lease::Timing;
use famfs::store::log::Log;
use famfs::store::members::Seat;
use famfs::store::superblock::Superblock;
use famfs::sys::dax::Access;
use uuid::Uuid;

/// Exit code, and all that is printed.
fn famfs(pool: &Path, args: &[&str]) -> (i32, String) {
    let famfs = env!("CARGO_BIN_EXE_famfs");
    let output = Command::new(famfs).arg("--pool").arg(pool).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn only_who_lives_and_tells_what_can_be_true_counts() {
    let dir = tempfile::tempdir().unwrap();
    let pool = dir.path().join("pool");
    File::create_new(&pool).unwrap().set_len(64 << 20).unwrap();
    for args in [&["mkfs"][..], &["mkdir", "d"]] {
        assert_eq!(famfs(&pool, args).0, 0);
    }
    let media = PoolFile::open(&pool, Access::Read).unwrap();
    let superblock = Superblock::read(&media).unwrap();
    let published = Log::open(&media, superblock.log_len).unwrap().published();
    let file = File::options().read(true).write(true).open(&pool).unwrap();
    let media = Box::new(PoolFile::from_file(file, &pool, Access::Write).unwrap());
    let boot = Uuid::from_u128(1);
    let me = RunningSystem { system: boot, machine: None, boot };
    let timing = Timing::default();
    let mut seat = Seat::take(media, superblock.fs_uuid, Identity::of_another(me), timing).unwrap();
    seat.report(0, published, 0).unwrap();

    let wait = ["publish", "--wait-all", "--timeout", "30"];
    let start = Instant::now();
    let (code, text) = famfs(&pool, &wait);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("and is silent"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(20), "silence is known after 5 s");

    let mut beating = |applied| {
        seat.report(0, applied, 0).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| famfs(&pool, &wait));
            while !waiting.is_finished() {
                seat.tend(timing).unwrap();
                thread::sleep(Duration::from_millis(20));
            }
            waiting.join().unwrap()
        })
    };
    assert_eq!(beating(published).0, 0);
    let (code, text) = beating(published + 1);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("so many are not published"), "{text}");
    let (_, text) = famfs(&pool, &["members"]);
    assert!(text.contains("wrong"), "{text}");
}
