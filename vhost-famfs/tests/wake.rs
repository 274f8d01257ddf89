// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The keeper of a VM, without QEMU: it wakes its guest, and others when its guest publishes.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use famfs::system::neighbours::{Neighbour, PoolId, wake_all_in};

/// A time that nothing here needs.
const LIMIT: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(10);

struct Keeper {
    child: Child,
    /// Stands for QEMU.
    port: UnixStream,
    log: File,
}

impl Keeper {
    fn start(dir: &Path, pool: PoolId, name: &str) -> Self {
        let (log, socket) = (dir.join(name), dir.join(format!("{name}.sock")));
        let listener = UnixListener::bind(&socket).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-famfs"));
        command.env("XDG_RUNTIME_DIR", dir).arg("keep-logs").arg(&log);
        command.arg("--wake-port").arg(&socket).arg("--wake-pool").arg(pool.to_string());
        let child = command.spawn().unwrap();
        let (port, _) = listener.accept().unwrap();
        port.set_read_timeout(Some(LIMIT)).unwrap();
        let log = File::options().write(true).open(dir.join(format!("{name}.pipe"))).unwrap();
        Self { child, port, log }
    }

    fn hears(&mut self) {
        assert_ne!(self.port.read(&mut [0; 64]).unwrap(), 0);
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(TICK);
    }
}

#[test]
fn a_keeper_wakes_ends_with_its_vm_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pool");
    fs::write(&file, "").unwrap();
    let pool = PoolId::of(&file.metadata().unwrap());
    let base = dir.path().join("vhost-famfs");
    let sockets: PathBuf = base.join(".wake").join(pool.to_string());
    let count = || fs::read_dir(&sockets).map_or(0, Iterator::count);
    let [mut one, mut two] = ["one", "two"].map(|name| Keeper::start(dir.path(), pool, name));
    let follower = Neighbour::join(&base, pool).unwrap();
    wake_all_in(&base, pool);
    one.hears();
    two.hears();
    assert!(follower.take());
    // The guest of the first publishes.
    one.port.write_all(b"\0").unwrap();
    two.hears();
    until("others are woken", || follower.take());
    // A keeper that is killed leaves its socket, until somebody wakes it.
    assert_eq!(count(), 3);
    one.child.kill().unwrap();
    one.child.wait().unwrap();
    assert_eq!(count(), 3);
    wake_all_in(&base, pool);
    two.hears();
    assert_eq!(count(), 2);
    // The VM ends: nobody can write to the log any more.
    let Keeper { mut child, port, log } = two;
    drop((port, log));
    assert!(child.wait().unwrap().success());
    drop(follower);
    assert!(!base.join(".wake").exists());
}

#[test]
fn a_runtime_directory_that_cannot_be_used_does_not_end_the_logs() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vhost-famfs"), "in the way").unwrap();
    let log = dir.path().join("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-famfs"));
    command.env("XDG_RUNTIME_DIR", dir.path()).arg("keep-logs").arg(&log);
    command.args(["--wake-pool", "1-1", "--wake-port"]).arg(dir.path().join("port"));
    let mut child = command.spawn().unwrap();
    let pipe = dir.path().join("log.pipe");
    until("a pipe", || pipe.exists());
    File::options().write(true).open(&pipe).unwrap().write_all(b"said\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read_to_string(&log).unwrap(), "said\n");
}

#[test]
fn a_pool_is_named_by_two_numbers() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-famfs"));
    command.args(["keep-logs", "log", "--wake-port", "port", "--wake-pool", "/dev/shm/pool"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("expected a device and an inode number in hexadecimal"), "{text}");
}
