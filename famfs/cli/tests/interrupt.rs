// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A copy that is stopped or killed leaves a clean pool with complete files.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::Pool;
use famfs::format::LOG_OFFSET;
use famfs::media::{Media, PoolFile};
use famfs::store::superblock::default_log_len;
use famfs::sys::dax::Access;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const FILES: usize = 5;
/// More than a batch, so that each file is published separately.
const FILE_LEN: u64 = 65 << 20;

/// Where the log's header keeps the number of its entries.
const NEXT_INDEX: u64 = 40;

fn famfs(pool: &Pool) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
    command.arg("--pool").arg(&pool.path);
    command
}

fn output(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    output
}

/// Files that differ at their ends, without holes, so that a copy takes its time.
fn sources() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let between = vec![0xaa; usize::try_from(FILE_LEN).unwrap()];
    for number in 0..FILES {
        let file = File::create(dir.path().join(format!("f{number}"))).unwrap();
        file.write_all_at(&between, 0).unwrap();
        file.write_all_at(format!("start {number}").as_bytes(), 0).unwrap();
        file.write_all_at(format!("end {number}").as_bytes(), FILE_LEN - 5).unwrap();
    }
    dir
}

fn listed(pool: &Pool) -> usize {
    let list = output(famfs(pool).arg("ls")).stdout;
    String::from_utf8(list).unwrap().lines().filter(|line| line.starts_with('-')).count()
}

/// Entries in the log so far, read from the pool itself, so that a wait for one is never late.
fn entries(media: &PoolFile) -> u64 {
    let mut bytes = [0; 8];
    media.read_at(LOG_OFFSET + NEXT_INDEX, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

/// Starts a copy and waits until a file is complete.
fn start_copy(pool: &Pool, sources: &Path) -> Child {
    let mut copy = famfs(pool)
        .args(["cp", "-r"])
        .arg(sources.join("."))
        .arg("/")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let media = PoolFile::open(&pool.path, Access::Read).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while entries(&media) == 0 {
        assert!(copy.try_wait().unwrap().is_none(), "the copy ended without a file");
        assert!(Instant::now() < deadline, "no file after a minute");
    }
    copy
}

/// The pool is clean, and the listed files are complete.
fn check(pool: &Pool, sources: &Path) -> usize {
    output(famfs(pool).arg("fsck"));
    let sums = output(famfs(pool).arg("sum")).stdout;
    let list = sources.join("list");
    fs::write(&list, sums).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_famfs"));
    output(check.args(["sum", "--check"]).arg(&list).arg(sources));
    fs::remove_file(list).unwrap();
    listed(pool)
}

fn pool() -> Pool {
    let pool = Pool::new(&[], 1 << 30);
    output(famfs(&pool).arg("mkfs"));
    pool
}

#[test]
fn a_stopped_copy_keeps_what_is_complete() {
    let (pool, sources) = (pool(), sources());
    let mut copy = start_copy(&pool, sources.path());
    kill_process(Pid::from_child(&copy), Signal::INT).unwrap();
    assert_eq!(copy.wait().unwrap().code(), Some(130));
    let kept = check(&pool, sources.path());
    assert!((1..FILES).contains(&kept), "{kept} files");
}

#[test]
fn a_killed_copy_leaves_a_clean_pool_that_can_be_filled() {
    let (pool, sources) = (pool(), sources());
    let mut copy = start_copy(&pool, sources.path());
    copy.kill().unwrap();
    assert_eq!(copy.wait().unwrap().signal(), Some(9));
    assert!(check(&pool, sources.path()) >= 1);
    output(famfs(&pool).args(["cp", "-r"]).arg(sources.path().join(".")).arg("/"));
    assert_eq!(check(&pool, sources.path()), FILES);
}

/// A new file appears only when it is complete.
#[test]
fn a_stopped_creat_says_what_is_left() {
    let pool = pool();
    let media = PoolFile::open(&pool.path, Access::Read).unwrap();
    let first_bytes = || {
        let mut bytes = [0; 8];
        media.read_at(LOG_OFFSET + default_log_len(media.len()), &mut bytes).unwrap();
        bytes
    };
    assert_eq!(first_bytes(), [0; 8]);

    let mut creat = famfs(&pool);
    let creat = creat.args(["creat", "-s", "256m", "-S", "1", "f"]).stderr(Stdio::piped());
    let creat = creat.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while first_bytes() == [0; 8] {
        assert!(Instant::now() < deadline, "nothing was written in a minute");
    }
    kill_process(Pid::from_child(&creat), Signal::INT).unwrap();
    let stopped = creat.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(130));
    let message = String::from_utf8(stopped.stderr).unwrap();
    assert_eq!(message, "famfs: \"f\" was not made: interrupted\n");
    assert_eq!(listed(&pool), 0);
}

#[test]
fn a_second_writer_waits_for_the_first() {
    let (pool, sources) = (pool(), sources());
    let mut copy = start_copy(&pool, sources.path());
    // It stays there until the other process has said that it waits.
    let copy_pid = Pid::from_child(&copy);
    kill_process(copy_pid, Signal::STOP).unwrap();
    let mut second = famfs(&pool).args(["mkdir", "d"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut message = String::new();
    BufReader::new(second.stderr.take().unwrap()).read_line(&mut message).unwrap();
    let expected = format!("locked by process {copy_pid} (famfs)");
    assert!(
        message.contains("waiting up to 59 s for ") && message.contains(&expected),
        "{message}"
    );
    assert_eq!(second.try_wait().unwrap(), None);
    copy.kill().unwrap();
    copy.wait().unwrap();
    assert!(second.wait().unwrap().success());
}

/// What changes more than names needs the pool for itself: virtual machines have its lock shared.
#[test]
fn names_change_beside_others_and_the_rest_alone() {
    use rustix::fs::{FlockOperation, flock};
    let pool = pool();
    let vm = File::open(&pool.path).unwrap();
    flock(&vm, FlockOperation::NonBlockingLockShared).unwrap();
    for args in [&["mkdir", "d"][..], &["touch", "d"], &["mv", "d", "e"], &["rm", "-r", "e"]] {
        let output = famfs(&pool).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
    for args in [&["compact"][..], &["mkfs", "--force"]] {
        let output = famfs(&pool).args(args).output().unwrap();
        assert!(!output.status.success(), "{args:?}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("is in use by another process"), "{args:?}: {message}");
    }
}
