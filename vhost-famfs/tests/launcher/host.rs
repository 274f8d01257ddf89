// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A separate host for a test: a runtime directory, an image that is never booted, a stand-in for
//! QEMU, and an unrelated process.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use signal_hook::iterator::Signals;
use tempfile::TempDir;
use vhost_famfs::cluster::process::MARK;

use super::stand_in;

/// The program name under which this program is the process that must not be touched.
pub const BYSTANDER: &str = "bystander";

/// The `vhost-famfs` program with its own directories.
pub struct Host {
    dir: TempDir,
    bystander: Child,
}

impl Host {
    /// An empty host. Its directory is in memory, for pools.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("launcher-").tempdir_in("/dev/shm").unwrap();
        let image = dir.path().join("image");
        for part in [&image, &dir.path().join("run")] {
            fs::create_dir(part).unwrap();
        }
        for file in ["vmlinux", "initrd.cpio", "root.erofs"] {
            fs::write(image.join(file), file).unwrap();
        }
        let program = std::env::current_exe().unwrap();
        for name in stand_in::NAMES {
            symlink(&program, dir.path().join(name)).unwrap();
        }
        let mut bystander = Command::new(program);
        bystander.arg0(BYSTANDER).stdin(Stdio::piped());
        // Like a process of a cluster, but of another one.
        bystander.env(MARK, uuid::Uuid::new_v4().to_string());
        Self { bystander: bystander.spawn().unwrap(), dir }
    }

    /// The directory of this host.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The directory that holds all clusters.
    pub fn clusters(&self) -> PathBuf {
        self.path().join("run/vhost-famfs")
    }

    /// A command line of `vhost-famfs`, with the stand-in of that name as QEMU.
    pub fn command(&self, qemu: &str, words: &[&str]) -> Command {
        assert!(stand_in::NAMES.contains(&qemu), "{qemu}: no such stand-in");
        let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-famfs"));
        command.args(words).stdin(Stdio::null());
        command.env("XDG_RUNTIME_DIR", self.path().join("run"));
        command.env("VHOST_FAMFS_QEMU", self.path().join(qemu));
        command.env("VHOST_FAMFS_IMAGE", self.path().join("image"));
        command
    }

    /// Runs it to completion, whatever the result.
    pub fn run(&self, words: &[&str]) -> Output {
        self.command("qemu", words).output().unwrap()
    }

    /// Runs it, which must succeed, and parses its output as JSON.
    pub fn json(&self, words: &[&str]) -> Value {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The state of a cluster as it is on disk, if there is one.
    pub fn state(&self, cluster: &str) -> Option<Value> {
        let text = fs::read(self.clusters().join(cluster).join("state.json")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// The command lines of this host's processes: those that name its directory. The unrelated
    /// process is not included.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let dir = self.path().to_str().unwrap();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit());
        pids.filter_map(|entry| {
            let words = fs::read(entry.path().join("cmdline")).ok()?;
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            let pid = entry.file_name().to_str()?.parse().ok()?;
            words.contains(dir).then_some((pid, words))
        })
        .collect()
    }

    /// Fails if a process or a directory of a cluster remains.
    pub fn assert_nothing_left(&self, after: &str) {
        // Some end by themselves at once, such as a QEMU that is asked for its version.
        let end = Instant::now() + Duration::from_secs(10);
        let mut left = self.processes();
        while !left.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            left = self.processes();
        }
        assert!(left.is_empty(), "{after}: processes are left: {left:#?}");
        let clusters = self.clusters();
        assert!(!clusters.exists(), "{after}: {} is left", clusters.display());
    }

    /// Fails if the unrelated process got a signal.
    pub fn assert_bystander_unharmed(&mut self) {
        drop(self.bystander.stdin.take());
        let status = self.bystander.wait().unwrap();
        assert!(status.success(), "a foreign process was signalled: {status}");
    }
}

impl Drop for Host {
    /// A test that failed halfway must leave nothing behind.
    fn drop(&mut self) {
        for entry in fs::read_dir(self.clusters()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let _ = self.run(&["down", "--timeout", "1", &name.to_string_lossy()]);
        }
        for pid in self.processes().into_iter().filter_map(|(pid, _)| Pid::from_raw(pid)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        drop(self.bystander.stdin.take());
        let _ = self.bystander.wait();
    }
}

/// Waits for the end of its input; any catchable signal is a failure.
pub fn bystander() -> ExitCode {
    use signal_hook::consts::{
        SIGALRM, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
    };
    let all = [SIGALRM, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
    let mut signals = Signals::new(all).unwrap();
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            eprintln!("bystander: signal {signal}");
            std::process::exit(1);
        }
    });
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    ExitCode::SUCCESS
}
