// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Nothing is written to pool files that others can change, unless the user says so.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn famfs(pool: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
    command.arg("--pool").arg(pool).args(words).output().unwrap()
}

#[test]
fn a_pool_that_others_can_change_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (pool, second) = (dir.path().join("pool"), dir.path().join("second"));
    fs::File::create(&pool).unwrap().set_len(16 << 20).unwrap();
    fs::set_permissions(&pool, Permissions::from_mode(0o666)).unwrap();
    let refused = famfs(&pool, &["mkfs"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("with mode 0666, so that others can change it"), "{said}");
    assert!(said.contains("--foreign-pool"), "{said}");
    assert!(fs::read(&pool).unwrap().iter().all(|byte| *byte == 0), "it was written to");
    let made = famfs(&pool, &["mkfs", "--foreign-pool"]);
    assert!(made.status.success(), "{made:?}");
    // Reading is no risk.
    assert!(famfs(&pool, &["fsck"]).status.success());
    assert!(!famfs(&pool, &["mkdir", "/a"]).status.success());
    fs::set_permissions(&pool, Permissions::from_mode(0o600)).unwrap();
    assert!(famfs(&pool, &["mkdir", "/a"]).status.success());
    fs::hard_link(&pool, &second).unwrap();
    let refused = famfs(&pool, &["mkdir", "/b"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("has 2 names"), "{refused:?}");
}

/// Only root can make a file that belongs to another user.
#[test]
fn another_users_pool_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let pool = dir.path().join("pool");
    fs::File::create(&pool).unwrap().set_len(16 << 20).unwrap();
    fs::set_permissions(&pool, Permissions::from_mode(0o644)).unwrap();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root to make a file of another user");
        return;
    }
    std::os::unix::fs::chown(&pool, Some(65534), None).unwrap();
    let refused = famfs(&pool, &["mkfs"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("belongs to user 65534 with mode 0644, expected user 0"), "{said}");
    assert!(famfs(&pool, &["mkfs", "--foreign-pool"]).status.success());
}
