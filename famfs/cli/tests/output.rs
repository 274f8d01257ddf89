// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a command does when nobody reads its output, or nobody can.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::fs::{File, OpenOptions};
use std::process::{Command, Output, Stdio};

use common::Pool;

fn famfs(pool: &Pool) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_famfs"));
    command.arg("--pool").arg(&pool.path);
    command
}

fn formatted_pool() -> Pool {
    let pool = Pool::new(&[], 64 << 20);
    assert!(famfs(&pool).arg("mkfs").output().unwrap().status.success());
    pool
}

/// A pipe that nobody reads.
fn broken_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn run(command: &mut Command, stdout: Stdio) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.stdout(stdout).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// As in `famfs ls | head`: the command does its work, and prints nothing about the pipe.
#[test]
fn a_reader_that_leaves_is_no_error() {
    let pool = formatted_pool();
    for args in [
        &["mkdir", "-v", "-p", "a/b"][..],
        &["creat", "-v", "-s", "1", "a/b/c"],
        &["cp", "-v", "Cargo.toml", "a"],
        &["ls"],
        &["ls", "--json"],
        &["fsck", "-v"],
        &["fsck", "--json"],
        &["cat", "a/Cargo.toml", "a/b/c"],
        &["stat", "a/b/c", "a"],
        &["stat", "--json", "a"],
        &["df"],
        &["df", "--json"],
        &["du"],
        &["du", "--json"],
        &["tree"],
        &["tree", "--json"],
        &["dump"],
        &["dump", "--json"],
        &["sum"],
        &["sum", "--json"],
        &["mkfs", "--force"],
    ] {
        let result = run(famfs(&pool).args(args), broken_pipe());
        assert_eq!(result, (Some(0), String::new()), "{args:?}");
    }
}

#[test]
fn messages_that_nobody_reads_change_nothing() {
    let pool = formatted_pool();
    let status = famfs(&pool).args(["ls", "nothing"]).stderr(broken_pipe()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_full_disk_is_an_error() {
    let pool = formatted_pool();
    let full = || -> File { OpenOptions::new().write(true).open("/dev/full").unwrap() };
    for args in [&["ls", "--json"][..], &["fsck"], &["df"], &["dump"]] {
        let (code, message) = run(famfs(&pool).args(args), full().into());
        assert_eq!(code, Some(1), "{args:?}");
        assert!(
            message.starts_with("famfs: cannot write to standard output: No space"),
            "{message}"
        );
    }
}

/// The list for people escapes what could harm a terminal; JSON has its own escapes.
#[test]
fn json_names_files_as_they_are() {
    let pool = formatted_pool();
    let creat = run(famfs(&pool).args(["creat", "-s", "1", "line\nbreak"]), Stdio::null());
    assert_eq!(creat, (Some(0), String::new()));
    let list = famfs(&pool).args(["ls", "--json"]).output().unwrap().stdout;
    let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(list["entries"][0]["path"], "line\nbreak");
    let list = famfs(&pool).arg("ls").output().unwrap().stdout;
    assert!(String::from_utf8(list).unwrap().ends_with(" line\\nbreak\n"));
}
