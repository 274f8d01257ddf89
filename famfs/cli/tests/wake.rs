// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands that publish something in a pool file wake those who follow it.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use famfs::system::neighbours::{Neighbour, PoolId};

fn famfs(dir: &Path, args: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
    command.current_dir(dir).env("XDG_RUNTIME_DIR", dir);
    let output = command.args(["--pool", "pool"]).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
}

#[test]
fn whoever_publishes_wakes_followers() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for pool in ["pool", "other"] {
        File::create_new(path(pool)).unwrap().set_len(64 << 20).unwrap();
    }
    famfs(dir.path(), &["mkfs"]);
    fs::write(path("file"), "text").unwrap();
    fs::write(path("list"), "").unwrap();
    let follow = |pool: &str| {
        let pool = PoolId::of(&path(pool).metadata().unwrap());
        Neighbour::join(&path("vhost-famfs"), pool).unwrap()
    };
    let (follower, other) = (follow("pool"), follow("other"));
    let publishing: [&[&str]; 12] = [
        &["mkdir", "d"],
        &["cp", "file", "d"],
        &["cp", "-r", "--atomic", "list", "tree"],
        &["creat", "-s", "4k", "made"],
        &["ln", "made", "hard"],
        &["ln", "-s", "made", "soft"],
        &["mv", "made", "moved"],
        &["chmod", "0600", "moved"],
        &["chown", "1:1", "moved"],
        &["touch", "moved"],
        &["rm", "moved"],
        &["rm", "-r", "d"],
    ];
    for args in publishing {
        famfs(dir.path(), args);
        assert!(follower.take(), "{args:?}");
    }
    let reading: [&[&str]; 4] = [&["ls"], &["mkdir", "--dry-run", "e"], &["fsck"], &["df"]];
    for args in reading {
        famfs(dir.path(), args);
        assert!(!follower.take(), "{args:?}");
    }
    // Who waits for members wakes them, so that they beat.
    famfs(dir.path(), &["publish", "--wait-all"]);
    assert!(follower.take());
    assert!(!other.take(), "of another pool");
}
