// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs the program as a user does, with its own runtime directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use tempfile::TempDir;
use vhost_famfs::cluster::process;
use vm_tests::{Artifacts, interrupt, memory_dir};

/// `vhost-famfs`, its clusters, and a directory for pools.
pub struct Program<'a> {
    artifacts: &'a Artifacts,
    runtime: TempDir,
    /// In tmpfs.
    pub pools: TempDir,
}

impl<'a> Program<'a> {
    pub fn new(artifacts: &'a Artifacts) -> Result<Self> {
        let runtime = tempfile::Builder::new()
            .prefix("vhost-famfs-")
            .tempdir_in(&artifacts.runtime)
            .with_context(|| format!("cannot use {}", artifacts.runtime.display()))?;
        Ok(Self { artifacts, runtime, pools: memory_dir(1 << 30)? })
    }

    /// A command line of the program.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.artifacts.programs.join("vhost-famfs"));
        command.args(words).stdin(Stdio::null());
        command.env("XDG_RUNTIME_DIR", self.runtime.path());
        command.env("VHOST_FAMFS_QEMU", &self.artifacts.qemu);
        command.env("VHOST_FAMFS_IMAGE", &self.artifacts.image);
        command
    }

    /// Runs it to completion, whatever the result, but not for ever.
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        let mut command = self.command(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().context("cannot run vhost-famfs")?;
        end_of(child, words)
    }

    /// Runs it, which must succeed, and returns its output.
    pub fn ok(&self, words: &[&str]) -> Result<String> {
        let output = self.run(words)?;
        ensure!(output.status.success(), "{words:?}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it, which must succeed, and parses its output as JSON.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.ok(words)?)?)
    }

    /// Runs a script in a VM, which must succeed.
    pub fn shell(&self, vm: &str, script: &str) -> Result<String> {
        let exec = ["exec", "--no-stdin", "--timeout", "120", vm, "--"];
        self.ok(&[&exec[..], &["bash", "-euo", "pipefail", "-c", script]].concat())
    }

    /// What `ps --json` reports about the only cluster, and its exit code.
    pub fn ps(&self) -> Result<(Value, Option<i32>)> {
        let output = self.run(&["ps", "--json"])?;
        let reports: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("not what ps should print: {output:?}"))?;
        Ok((reports["clusters"][0].clone(), output.status.code()))
    }

    /// Runs `famfs --pool` on a pool.
    pub fn famfs(&self, pool: &Path, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.artifacts.programs.join("famfs"));
        command.env("XDG_RUNTIME_DIR", self.runtime.path());
        command.arg("--pool").arg(pool).args(words).output().context("cannot run famfs")
    }

    /// The state of a cluster, as it is on disk.
    pub fn state(&self, cluster: &str) -> Result<Value> {
        let path = self.directory().join(cluster).join("state.json");
        Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
    }

    /// The directory that holds all clusters.
    pub fn directory(&self) -> PathBuf {
        self.runtime.path().join("vhost-famfs")
    }

    /// Fails if anything of a cluster remains: a process or a file.
    pub fn check_nothing_left(&self, instance: &Value) -> Result<()> {
        let instance = instance.as_str().context("the state had no mark of the processes")?;
        let left = process::marked(instance.parse()?);
        ensure!(left.is_empty(), "processes are left: {left:?}");
        ensure!(!self.directory().exists(), "{} is left", self.directory().display());
        Ok(())
    }
}

impl Drop for Program<'_> {
    /// A test that failed halfway must leave nothing behind.
    fn drop(&mut self) {
        for entry in fs::read_dir(self.directory()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let _ = self.run(&["down", "--timeout", "1", &name.to_string_lossy()]);
        }
    }
}

/// Waits for the end of a program that was started with these words, and collects what it says to
/// pipes. Kills it if it takes longer than [`ENDLESS`].
pub fn end_of(child: Child, words: &[&str]) -> Result<Output> {
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let (ended, end) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let killer = scope.spawn(move || {
            let is_late = end.recv_timeout(ENDLESS) == Err(RecvTimeoutError::Timeout);
            if is_late {
                // Fails only if it has just ended.
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
            is_late
        });
        let output = child.wait_with_output();
        drop(ended);
        let was_late = killer.join().unwrap_or_default();
        let output = output.context("cannot wait for vhost-famfs")?;
        ensure!(!was_late, "{words:?}: not ended after {ENDLESS:?}, and killed: {output:?}");
        Ok(output)
    })
}

/// How long a program may take that a test waits for: longer than any of them needs.
const ENDLESS: Duration = Duration::from_secs(600);

/// How long anything may take on a busy host.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Polls until there is a result.
pub fn until(what: &str, limit: Duration, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + limit;
    while !look()? {
        interrupt::check()?;
        if Instant::now() > end {
            bail!("{what}: not within {limit:?}");
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
