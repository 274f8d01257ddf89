// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands of the host on one pool wait for each other, and say so.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use famfs::media::PoolFile;
use famfs::sys::dax::Access;

/// Exit code, and what is printed on standard error.
fn famfs(pool: &Path, args: &[&str]) -> (i32, String) {
    let famfs = env!("CARGO_BIN_EXE_famfs");
    let output = Command::new(famfs).arg("--pool").arg(pool).args(args).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn whoever_comes_second_waits() {
    let dir = tempfile::tempdir().unwrap();
    let pool = dir.path().join("pool");
    File::create_new(&pool).unwrap().set_len(64 << 20).unwrap();
    assert_eq!(famfs(&pool, &["mkfs"]).0, 0);
    // As `pool resize`, `compact` and `cp` have it.
    let open: [fn(&Path) -> PoolFile; 3] = [
        |pool| PoolFile::open(pool, Access::Write).unwrap(),
        |pool| PoolFile::open_alone(pool, |_| {}).unwrap(),
        |pool| PoolFile::open_beside_others(pool, |_| {}).unwrap(),
    ];
    let both: [&[&str]; 2] = [&["mkdir", "-p", "d"], &["compact"]];
    for (first, open) in open.iter().enumerate() {
        for command in both {
            let held = open(&pool);
            let (code, said) = thread::scope(|scope| {
                let waiting = scope.spawn(|| famfs(&pool, command));
                thread::sleep(Duration::from_millis(2500));
                drop(held);
                waiting.join().unwrap()
            });
            // Who has it alone and is no command of famfs is not waited for by who must be alone.
            if first == 0 && command == ["compact"] {
                assert_eq!(code, 1, "{said}");
                continue;
            }
            assert_eq!(code, 0, "{first} {command:?}: {said}");
            assert_eq!(said.matches("waiting up to").count(), 1, "{first} {command:?}: {said}");
        }
    }
}
