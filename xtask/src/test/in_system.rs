// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs a script in a system of its own, and counts what it reports.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use vm_tests::interrupt;

use super::run::Run;
use crate::chroot::{self, Release};
use crate::paths;

/// Runs a script of `given` in a system. Each of its lines `ok: WHAT` is a test that passed.
pub fn run(suite: &str, release: Release, given: &Path, script: &str, run: &mut Run) -> Result<()> {
    let chroot = chroot::get(release)?;
    let log = paths::target().join("log").join(format!("{suite}-{}.log", release.suite));
    let file = fs::File::create(&log).with_context(|| format!("no log {}", log.display()))?;
    let mut command = chroot.command(given, script);
    let mut child =
        interrupt::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let mut last = "the beginning".to_owned();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read what the script prints")?;
        if let Some(what) = line.strip_prefix("ok: ") {
            run.report(&format!("{}: {what}", release.name), Ok(()));
            last = what.to_owned();
        } else {
            println!("{line}");
        }
    }
    let status = child.wait().context("cannot wait")?;
    if !status.success() {
        interrupt::check()?;
        let tail = vhost_famfs::bounded_log::tail(&log, 4096).unwrap_or_default();
        let tail = String::from_utf8_lossy(&tail).into_owned();
        let failed = || -> Result<()> { bail!("{status}, after: {last}\n{tail}") };
        run.report(&format!("{}: what comes next", release.name), failed());
    }
    Ok(())
}
