// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The diskless appliance: no systemd. This program stays process 1, and does for the pool what units do elsewhere.
//!
//! ```text
//! modules, credentials -> agent                     until the host asks it to power off
//!                      -> agent attach (famfs)  ->  agent watch (famfs), if the pool is mounted
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use appliance::attach::NO_POOL_CREDENTIAL;
use appliance::credentials::{self, HOSTNAME, SYSTEM_DIR};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, wait};
use rustix::system::{RebootCommand, reboot, sethostname};

use crate::{DATA_ONLY, NO_DEVICES, modules, mount_kind};

/// Serves the host, mounts and follows the pool.
const AGENT: &str = "/usr/bin/appliance-agent";

/// Mounted beside what the initrd has.
const MOUNTS: [(&str, &str, MountFlags); 4] = [
    ("/run", "tmpfs", NO_DEVICES),
    ("/tmp", "tmpfs", NO_DEVICES),
    ("/dev/shm", "tmpfs", NO_DEVICES),
    ("/sys/kernel/tracing", "tracefs", DATA_ONLY),
];

/// Time for programs to end before they are killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Runs until the agent ends, and powers off.
pub fn run(command_line: &str) -> Result<Infallible> {
    ensure!(
        Path::new(AGENT).exists(),
        "no root= on the kernel command line, and this initrd has no {AGENT} to do without"
    );
    for (path, kind, flags) in MOUNTS {
        fs::create_dir_all(path).with_context(|| format!("cannot make {path}"))?;
        mount_kind(kind, path, flags)?;
    }
    let credentials = take_credentials(command_line)?;
    if let Some(name) = credentials.get(HOSTNAME) {
        sethostname(name.as_bytes()).with_context(|| format!("cannot take the name {name}"))?;
    }
    modules::load(modules::INITRD, &[])?;
    let agent = start(&["diskless"])?;
    let attach = match credentials.contains_key(NO_POOL_CREDENTIAL) {
        true => None,
        false => Some(start(&["attach"])?),
    };
    supervise(agent, attach)?;
    stop()?;
    reboot(RebootCommand::PowerOff).context("cannot power off")?;
    bail!("still running after the power was switched off")
}

/// Credentials from the command line and the firmware, put where systemd would put them.
fn take_credentials(command_line: &str) -> Result<BTreeMap<String, String>> {
    let found = credentials::given(command_line);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(SYSTEM_DIR)
        .with_context(|| format!("cannot make {SYSTEM_DIR}"))?;
    for (name, value) in &found {
        let path = Path::new(SYSTEM_DIR).join(name);
        fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(found)
}

/// Starts the agent in one of its forms.
fn start(arguments: &[&str]) -> Result<Pid> {
    let child = Command::new(AGENT)
        .args(arguments)
        .env("HOME", "/")
        .env("PATH", "/usr/bin")
        .spawn()
        .with_context(|| format!("cannot run {AGENT}"))?;
    Ok(Pid::from_child(&child))
}

/// Waits for the agent, and for everything that has no other parent.
fn supervise(agent: Pid, mut attach: Option<Pid>) -> Result<()> {
    loop {
        let Some((pid, status)) = next_end(WaitOptions::empty())? else { return Ok(()) };
        if pid == agent {
            return Ok(());
        }
        if attach == Some(pid) {
            attach = None;
            match status.exit_status() {
                Some(0) => start(&["watch"])?,
                code => ended(code)?,
            };
        }
    }
}

/// Tells the host, through the agent, that the pool could not be mounted.
fn ended(code: Option<i32>) -> Result<Pid> {
    let child = Command::new(AGENT)
        .arg("attach-ended")
        .env("SERVICE_RESULT", if code.is_some() { "exit-code" } else { "signal" })
        .env("EXIT_STATUS", code.map_or_else(String::new, |code| code.to_string()))
        .spawn()
        .with_context(|| format!("cannot run {AGENT}"))?;
    Ok(Pid::from_child(&child))
}

/// The next process that ends; `None` when there is none left, or none now.
fn next_end(options: WaitOptions) -> Result<Option<(Pid, WaitStatus)>> {
    loop {
        match wait(options) {
            Ok(ended) => return Ok(ended),
            Err(Errno::CHILD) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for programs"),
        }
    }
}

/// Ends all programs, then the mounts.
fn stop() -> Result<()> {
    for signal in [Signal::TERM, Signal::KILL] {
        // To "the group of process 1": every process but this one (kill(2), pid -1). None left is no error.
        let _ = kill_process_group(Pid::INIT, signal);
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            match wait(WaitOptions::NOHANG) {
                Err(Errno::CHILD) => return unmount_pools(),
                Ok(Some(_)) => {}
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
    }
    unmount_pools()
}

fn unmount_pools() -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    for line in mounts.lines().rev() {
        let mut words = line.split(' ').skip(1);
        if let (Some(target), Some("famfs")) = (words.next(), words.next()) {
            unmount(target, UnmountFlags::empty())
                .with_context(|| format!("cannot unmount {target}"))?;
        }
    }
    Ok(())
}
