// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The self-check: reports what is wrong with this machine, one problem per line.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use famfs::system::mounts;
use guest::given;
use protocol::credentials::SSH_KEYS;

use crate::{asked, systemd};

/// The program that would use the key.
const SSH_SERVER: &str = "/usr/sbin/sshd";

/// Prints the problems; the exit code is 1 if there are any.
pub fn check() -> Result<ExitCode> {
    let credentials = given::credentials();
    let mut problems = asked::mistakes(&credentials);
    if credentials.contains_key(SSH_KEYS) && !Path::new(SSH_SERVER).exists() {
        problems.push(format!(
            "credential {SSH_KEYS}: has no effect, as this image has no SSH server; run commands \
             from the host with `vhost-famfs exec`"
        ));
    }
    problems.extend(systemd::failed_units()?);
    problems.extend(doctor()?);
    for problem in &problems {
        println!("{problem}");
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The findings of `famfs doctor`; called only if a pool is mounted.
fn doctor() -> Result<Vec<String>> {
    if !mounts::read()?.iter().any(|mount| mount.fs_type == "famfs") {
        return Ok(Vec::new());
    }
    let output = Command::new("/usr/bin/famfs")
        .arg("doctor")
        .stdin(Stdio::null())
        .output()
        .context("cannot run famfs doctor")?;
    if output.status.success() {
        return Ok(Vec::new());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Ok(said.lines().map(|line| format!("famfs doctor: {}", line.trim())).collect())
}
