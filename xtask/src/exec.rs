// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Running other programs: a line per step, the output in a log, the end of it on failure.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::paths;

/// How much of a log is shown when its step failed.
const TAIL_LINES: usize = 40;

/// Runs `command` as the step `what`: prints one line, keeps all output in
/// `target/log/NAME.log`, and shows the end of that log when the command fails.
pub fn step(name: &str, what: &str, command: &mut Command) -> Result<()> {
    let log_path = paths::target().join("log").join(format!("{name}.log"));
    fs::create_dir_all(paths::target().join("log")).context("cannot create target/log")?;
    let log = File::create(&log_path)
        .with_context(|| format!("cannot create the log {}", log_path.display()))?;
    let start = Instant::now();
    // On a terminal the result takes the place of the announcement.
    let (end, back) = if io::stderr().is_terminal() { ("", "\r") } else { ("\n", "") };
    eprint!("{what} ...{end}");
    let status = command
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share the log between streams")?)
        .stderr(log)
        .status()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if status.success() {
        eprintln!("{back}{what}: done in {:.1} s", start.elapsed().as_secs_f64());
        return Ok(());
    }
    eprintln!("{back}{what}: FAILED ({status}); the last lines of {}:", log_path.display());
    io::stderr().write_all(tail(&log_path).as_bytes()).ok();
    bail!("{what} failed: {status} (whole log: {})", log_path.display())
}

/// The last lines of a log file.
fn tail(path: &Path) -> String {
    let text = fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let mut end = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    end.push('\n');
    end
}

/// Runs `command` and returns what it printed to standard output, without the final newline.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_owned();
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !out.status.success() {
        bail!(
            "{} failed: {}: {}",
            program.display(),
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
}

/// Whether `program` is in the PATH.
pub fn in_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
