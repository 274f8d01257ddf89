// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests to systemd. The agent may start before systemd does, so it waits for it.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Without this program, there is no systemd to ask.
const SYSTEMCTL: &str = "/usr/bin/systemctl";

/// The socket on which systemd listens for systemctl.
const SOCKET: &str = "/run/systemd/private";

/// How long to wait for systemd to listen.
const LIMIT: Duration = Duration::from_secs(60);

/// Pause between two checks.
const STEP: Duration = Duration::from_millis(20);

/// Powers off the machine. "systemctl poweroff" would first ask for a login manager.
pub fn power_off() -> Result<(), String> {
    wait_until_it_listens();
    let job = ["start", "--no-block", "--job-mode=replace-irreversibly", "poweroff.target"];
    match Command::new(SYSTEMCTL).args(job).stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("systemctl start poweroff.target: {status}")),
        Err(error) => Err(format!("cannot run {SYSTEMCTL}: {error}")),
    }
}

/// The units that had failed by the end of the boot, one entry per problem.
pub fn failed_units() -> Result<Vec<String>> {
    if !Path::new(SYSTEMCTL).exists() {
        return Ok(Vec::new());
    }
    wait_until_it_listens();
    // If units have failed, this command fails with "degraded"; the other command tells which.
    ask(&["is-system-running", "--wait"])?;
    let units = ask(&["list-units", "--failed", "--plain", "--no-legend"])?;
    let names = units.lines().filter_map(|line| line.split_ascii_whitespace().next());
    Ok(names.map(|unit| format!("unit failed: {unit}")).collect())
}

fn ask(arguments: &[&str]) -> Result<String> {
    let output = Command::new(SYSTEMCTL)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {SYSTEMCTL}"))?;
    ensure!(
        output.stderr.is_empty(),
        "systemctl {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn wait_until_it_listens() {
    let start = Instant::now();
    while UnixStream::connect(SOCKET).is_err() && start.elapsed() < LIMIT {
        thread::sleep(STEP);
    }
}
