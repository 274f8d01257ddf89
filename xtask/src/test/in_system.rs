// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs a script in a system of its own, and counts what it reports.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use vm_tests::interrupt;

use super::run::Run;
use crate::chroot::{self, Release};
use crate::paths;

/// How much of the log of a script that failed is shown, in bytes.
const TAIL: u64 = 16 << 10;

/// Runs a script of `given` in a system. Each of its lines `ok: WHAT` is a test that passed; there
/// must be one.
pub fn run(suite: &str, release: Release, given: &Path, script: &str, run: &mut Run) -> Result<()> {
    let chroot = chroot::get(release)?;
    let log = paths::target().join("log").join(format!("{suite}-{}.log", release.suite));
    let file = fs::File::create(&log).with_context(|| format!("no log {}", log.display()))?;
    let mut command = chroot.command(given, script);
    let mut child =
        interrupt::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let last = count(BufReader::new(stdout), release.name, run)?;
    let status = child.wait().context("cannot wait")?;
    if let Err(error) = verdict(status, last.as_deref()) {
        if interrupt::seen_after_failure() {
            bail!("{script} in {}: interrupted", release.name);
        }
        let tail = vhost_famfs::bounded_log::tail(&log, TAIL).unwrap_or_default();
        let tail = String::from_utf8_lossy(&tail);
        let error = anyhow!("{error}; all of its log is {}\n{tail}", log.display());
        run.report(&format!("{}: what comes next", release.name), Err(error));
    }
    Ok(())
}

/// Counts what the script reports, and shows its other lines. Returns the last report.
fn count(stdout: impl BufRead, system: &str, run: &mut Run) -> Result<Option<String>> {
    let mut last = None;
    for line in stdout.split(b'\n') {
        let line = line.context("cannot read what the script prints")?;
        let line = String::from_utf8_lossy(&line);
        if let Some(what) = line.strip_prefix("ok: ") {
            run.report(&format!("{system}: {what}"), Ok(()));
            last = Some(what.to_owned());
        } else {
            run.output.say(&line);
        }
    }
    Ok(last)
}

/// Whether the script came to its end and had something to report.
fn verdict(status: ExitStatus, last: Option<&str>) -> Result<()> {
    ensure!(status.success(), "{status}, after: {}", last.unwrap_or("the beginning"));
    ensure!(last.is_some(), "{status}, but it reported nothing: expected lines \"ok: WHAT\"");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::test::output::Output;

    #[test]
    fn a_script_passes_if_it_succeeds_and_reports() {
        let end = |code: i32, text: &str| {
            let mut run = Run { output: Output::Kept(String::new()), ..Run::default() };
            let last = count(text.as_bytes(), "system", &mut run).unwrap();
            let verdict = verdict(ExitStatus::from_raw(code << 8), last.as_deref());
            let Output::Kept(said) = run.output else { panic!("kept") };
            (run.tally.passed, said, verdict.map_err(|error| error.to_string()))
        };
        let said = "check system: one ... ok\nother\ncheck system: two ... ok\n".to_owned();
        assert_eq!(end(0, "ok: one\nother\nok: two\n"), (2, said, Ok(())));
        let (passed, _, failed) = end(1, "ok: one\n");
        assert_eq!((passed, failed.unwrap_err().as_str()), (1, "exit status: 1, after: one"));
        let (passed, said, silent) = end(0, "well\n");
        assert_eq!((passed, said.as_str()), (0, "well\n"));
        assert!(silent.unwrap_err().contains("it reported nothing"));
    }
}
