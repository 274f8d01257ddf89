// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line: what users type and what they read, in `cli/*.md`, and the cases that need
//! another program to be in the way.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it is")]

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};

use rustix::fs::FlockOperation;

#[test]
fn reads_as_documented() {
    trycmd::TestCases::new().case("tests/cli/*.md");
}

fn vhost_famfs(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vhost-famfs")).args(arguments).output().unwrap()
}

fn assert_fails_with(output: &Output, message: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(message), "{message:?} is not in {stderr:?}");
}

#[test]
fn a_pool_that_another_program_changes_is_busy() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let (pool, socket) = (dir.path().join("pool"), dir.path().join("socket"));
    let [pool, socket] = [&pool, &socket].map(|path| path.to_str().unwrap());
    let file = File::create(pool).unwrap();
    file.set_len(16 << 20).unwrap();
    rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
    let output = vhost_famfs(&["device", "--pool", pool, "--socket-path", socket]);
    assert_fails_with(&output, "busy");
    assert_fails_with(&vhost_famfs(&["pool", "inspect", pool]), "busy");
}

#[test]
fn a_socket_in_use_is_left_alone() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let (pool, socket) = (dir.path().join("pool"), dir.path().join("socket"));
    let [pool, socket] = [&pool, &socket].map(|path| path.to_str().unwrap());
    assert!(vhost_famfs(&["pool", "create", pool, "--size", "16M"]).status.success());
    let _listener = UnixListener::bind(socket).unwrap();
    let output = vhost_famfs(&["device", "--pool", pool, "--socket-path", socket]);
    assert_fails_with(&output, "another program is listening");
}

#[test]
fn only_a_listening_socket_is_taken_over() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let pool = dir.path().join("pool");
    let pool = pool.to_str().unwrap();
    assert!(vhost_famfs(&["pool", "create", pool, "--size", "16M"]).status.success());
    let file = File::open(pool).unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&file).to_string();
    let output = vhost_famfs(&["device", "--pool", pool, "--fd", &number]);
    assert_fails_with(&output, "not a listening unix stream socket");
    let output = vhost_famfs(&["device", "--pool-fd", &number, "--socket-path", "unused"]);
    assert_fails_with(&output, "not open for reading and writing");
}

/// A pipe that nobody reads any more, as `| head` leaves it behind.
fn broken_pipe() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let pool = dir.path().join("pool");
    let pool = pool.to_str().unwrap();
    for arguments in [
        &["pool", "create", pool, "--size", "16M"][..],
        &["pool", "inspect", pool],
        &["pool", "inspect", pool, "--json"],
        &["device", "--print-capabilities"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-famfs"));
        let child = command.args(arguments).stdout(broken_pipe()).stderr(Stdio::piped()).spawn();
        let output = child.unwrap().wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
        assert!(output.status.success(), "{arguments:?}: {}", output.status);
    }
}

#[test]
fn an_error_that_nobody_reads_is_still_an_exit_code() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-famfs"));
    let status = command.args(["pool", "inspect", "missing"]).stderr(broken_pipe()).status();
    assert_eq!(status.unwrap().code(), Some(1));
}

#[test]
fn tells_memory_from_storage() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let pool = dir.path().join("pool");
    let pool = pool.to_str().unwrap();
    let output = vhost_famfs(&["pool", "create", pool, "--size", "1G", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["kind"], "tmpfs");
    assert_eq!(report["view"], "devdax");
    let allocated = report["allocated"].as_u64().unwrap();
    assert!(allocated <= 64 << 10, "{allocated} bytes of memory for an empty pool");
}
