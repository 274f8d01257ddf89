// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line: what users type and read is in `cli/*.md`; the cases here need another program
//! that interferes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it is")]

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::fs::FlockOperation;

#[test]
fn reads_as_documented() {
    // The user's clusters and shell settings must have no influence.
    let cases = trycmd::TestCases::new();
    cases.env("XDG_RUNTIME_DIR", "/nonexistent").env("NO_COLOR", "1");
    cases.case("tests/cli/*.md");
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
    let inspected = vhost_famfs(&["pool", "inspect", pool]);
    assert!(inspected.status.success(), "looking takes no lock: {inspected:?}");
}

/// Runs the program without the privilege to write to read-only files.
fn unprivileged(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_vhost-famfs");
    if !rustix::process::geteuid().is_root() {
        return vhost_famfs(arguments);
    }
    let without = ["--bounding-set=-dac_override", "--inh-caps=-dac_override"];
    Command::new("setpriv").args(without).arg(program).args(arguments).output().unwrap()
}

#[test]
fn a_pool_can_be_looked_at_by_those_who_may_only_read_it() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("pool");
    let pool = path.to_str().unwrap();
    assert!(vhost_famfs(&["pool", "create", pool, "--size", "16M"]).status.success());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
    let output = unprivileged(&["device", "--pool", pool, "--socket-path", "unused"]);
    assert_fails_with(&output, "no permission to read and write it");
    let output = unprivileged(&["pool", "inspect", pool]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("view:       devdax"), "{output:?}");
}

/// Creates everything that a host needs for a cluster of one VM on `pool`, in the same directory.
/// Returns the arguments of `up --dry-run`.
fn cluster(dir: &Path, pool: &str) -> Vec<String> {
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    for name in ["vmlinux", "initrd.cpio", "root.erofs"] {
        file(name, "");
    }
    let qemu = file("qemu", "#!/bin/sh\necho QEMU emulator version 11.1.3\n");
    std::fs::set_permissions(&qemu, PermissionsExt::from_mode(0o755)).unwrap();
    let cluster = file("lab.toml", &format!("[pool]\npath = {pool:?}\n[[vm]]\nmount = false\n"));
    let image = dir.to_str().unwrap();
    ["up", &cluster, "--dry-run", "--qemu", &qemu, "--image", image].map(str::to_owned).into()
}

#[test]
fn a_pool_without_permission_is_told_before_a_vm_starts() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("pool");
    let pool = path.to_str().unwrap();
    assert!(vhost_famfs(&["pool", "create", pool, "--size", "16M"]).status.success());
    let arguments = cluster(dir.path(), pool);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let output = unprivileged(&arguments);
    assert!(output.status.success(), "{output:?}");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
    assert_fails_with(&unprivileged(&arguments), "no permission to read and write it");
}

#[test]
fn a_socket_path_that_is_too_long_is_told_before_a_vm_starts() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let pool = dir.path().join("pool");
    let pool = pool.to_str().unwrap();
    assert!(vhost_famfs(&["pool", "create", pool, "--size", "16M"]).status.success());
    let runtime = dir.path().join("r".repeat(90));
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-famfs"));
    command.args(cluster(dir.path(), pool)).env("XDG_RUNTIME_DIR", runtime);
    assert_fails_with(&command.output().unwrap(), "only 107 are allowed; use a shorter directory");
}

#[test]
fn emitted_files_replace_nothing() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let pool = dir.path().join("pool");
    let pool = pool.to_str().unwrap();
    assert!(vhost_famfs(&["pool", "create", pool, "--size", "16M"]).status.success());
    let mut arguments = cluster(dir.path(), pool);
    let output = dir.path().to_str().unwrap();
    arguments.extend(["--emit", "systemd", "--output", output].map(str::to_owned));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let first = vhost_famfs(&arguments);
    assert!(first.status.success(), "{first:?}");
    assert!(String::from_utf8_lossy(&first.stdout).contains("/lab.target\n"), "{first:?}");
    assert_fails_with(&vhost_famfs(&arguments), "lab-pool.service: File exists");
}

#[test]
fn looking_at_a_pipe_does_not_wait_for_a_writer() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let pipe = dir.path().join("pipe");
    let pipe = pipe.to_str().unwrap();
    assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    assert_fails_with(&vhost_famfs(&["pool", "inspect", pipe]), "is a pipe");
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
    assert_fails_with(&output, "not a listening Unix stream socket");
    let output = vhost_famfs(&["device", "--pool-fd", &number, "--socket-path", "unused"]);
    assert_fails_with(&output, "not open for reading and writing");
}

/// A pipe whose reader has closed it, as `| head` does.
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
fn a_name_that_is_no_text_can_be_reported() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let pool = dir.path().join(OsStr::from_bytes(b"p\xffl"));
    for arguments in [["create", "--size", "16M", "--json"].as_slice(), &["inspect", "--json"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-famfs"));
        let output = command.arg("pool").args(arguments).arg(&pool).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report["path"].as_str().unwrap().ends_with("/p\u{fffd}l"), "{report}");
        assert!(report["path_bytes"].as_str().unwrap().ends_with("2f70ff6c"), "{report}");
    }
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
