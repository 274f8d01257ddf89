// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs other programs: prints one line per step, writes the output to a log, and shows the end of
//! the log if the step fails.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use vm_tests::interrupt;

use crate::paths;

/// How often a long step prints its progress if there is no terminal.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// How much of a failed step's log to show.
const TAIL_LINES: usize = 40;

/// How many bytes at the end of the log to search for these lines.
const TAIL_BYTES: u64 = 64 * 1024;

/// Runs `command` as the step `what`: prints one line, keeps all output in `target/log/NAME.log`,
/// and shows the end of that log if the command fails.
pub fn step(name: &str, what: &str, command: &mut Command) -> Result<()> {
    let step = Step::begin(name, what)?;
    // On a terminal, the result replaces the announcement.
    eprint!("{what} ...{}", if step.terminal { "" } else { "\n" });
    let status = step.spawn(command, step.output()?.into())?.wait().context("cannot wait")?;
    step.end(status)
}

/// Like [`step`], for a step of many minutes: shows how many of about `total` output lines that
/// `counts` accepts have appeared.
pub fn counted_step(
    name: &str,
    what: &str,
    command: &mut Command,
    total: u64,
    counts: impl Fn(&str) -> bool,
) -> Result<()> {
    let mut step = Step::begin(name, what)?;
    eprintln!("{what} ...");
    let mut child = step.spawn(command, Stdio::piped())?;
    let stdout = child.stdout.take().context("the command has no standard output")?;
    let mut progress = Progress::new(total, step.terminal);
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read the output of the command")?;
        step.log.write_all(&line).and_then(|()| step.log.write_all(b"\n")).context("cannot log")?;
        if counts(&String::from_utf8_lossy(&line)) {
            progress.one_more();
        }
    }
    let status = child.wait().context("cannot wait")?;
    progress.clear();
    step.end(status)
}

/// A running step.
struct Step<'a> {
    what: &'a str,
    log: File,
    log_path: PathBuf,
    start: Instant,
    terminal: bool,
}

impl<'a> Step<'a> {
    fn begin(name: &str, what: &'a str) -> Result<Self> {
        let log_path = paths::target().join("log").join(format!("{name}.log"));
        fs::create_dir_all(paths::target().join("log")).context("cannot create target/log")?;
        let log = File::create(&log_path)
            .with_context(|| format!("cannot create the log {}", log_path.display()))?;
        Ok(Self {
            what,
            log,
            log_path,
            start: Instant::now(),
            terminal: io::stderr().is_terminal(),
        })
    }

    /// A copy of the log's file for another stream.
    fn output(&self) -> Result<File> {
        self.log.try_clone().context("cannot share the log between streams")
    }

    fn spawn(&self, command: &mut Command, stdout: Stdio) -> Result<Child> {
        interrupt::spawn(command.stdin(Stdio::null()).stdout(stdout).stderr(self.output()?))
    }

    fn end(&self, status: ExitStatus) -> Result<()> {
        let Self { what, log_path, .. } = self;
        let back = if self.terminal { "\r" } else { "" };
        if status.success() {
            eprintln!("{back}{what}: done in {:.1} s", self.start.elapsed().as_secs_f64());
            return Ok(());
        }
        if interrupt::seen_after_failure() {
            bail!("{what}: interrupted");
        }
        eprintln!("{back}{what}: FAILED ({status}); the last lines of {}:", log_path.display());
        io::stderr().write_all(tail(log_path).as_bytes()).ok();
        bail!("{what} failed: {status} (whole log: {})", log_path.display())
    }
}

/// The progress of a counted step: a bar on a terminal, otherwise one line per minute.
struct Progress {
    done: u64,
    total: u64,
    bar: ProgressBar,
    said: Option<Instant>,
}

impl Progress {
    fn new(total: u64, terminal: bool) -> Self {
        let style = ProgressStyle::with_template("{wide_bar} {pos} of about {len}, {elapsed}");
        let bar = ProgressBar::new(total);
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self { done: 0, total, bar, said: (!terminal).then(Instant::now) }
    }

    fn one_more(&mut self) {
        self.done += 1;
        self.bar.inc(1);
        if self.said.is_some_and(|said| said.elapsed() >= SAY_EVERY) {
            eprintln!("  {} of about {}", self.done, self.total);
            self.said = Some(Instant::now());
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// The last lines of a log file.
fn tail(path: &Path) -> String {
    let bytes = vhost_famfs::bounded_log::tail(path, TAIL_BYTES).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let mut end = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    end.push('\n');
    end
}

/// Runs `command` and returns its standard output without the final newline.
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
