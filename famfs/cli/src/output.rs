// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Shared by the commands: exit codes, JSON, sizes, progress, and stopping on a signal.

use std::fmt;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use famfs::text::error_report::ErrorReport;
use famfs::text::terminal::Escaping;
use famfs::text::units::count;
pub use famfs::text::units::human;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Success.
pub const OK: u8 = 0;
/// Any failure without a code of its own.
pub const FAILED: u8 = 1;
/// A command line that cannot be parsed.
pub const USAGE: u8 = 2;
/// Ended by SIGINT; shells use this code too.
pub const INTERRUPTED: u8 = 130;

/// The result of a command: its exit code, or an error with one.
pub type Outcome = Result<u8, Failure>;

/// An error and its exit code.
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// What went wrong.
    pub error: anyhow::Error,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: FAILED, error: error.into() }
    }
}

/// Gives an error its exit code.
pub trait OrExit<T> {
    /// The value, or a failure with this code.
    fn or_exit(self, code: u8) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, code: u8) -> Result<T, Failure> {
        self.map_err(|error| Failure { code, error: error.into() })
    }
}

/// Asks on the terminal whether to go on; without one it is an error that names the option for it.
pub fn confirmed(question: &str, option: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        anyhow::bail!("{question}; use {option} to do so");
    }
    let mut out = Escaping::new(io::stderr());
    write!(out, "{question}. Go on? [y/N] ").and_then(|()| out.finish())?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// How many files and directories, in words.
pub fn files_and_dirs(files: u64, directories: u64) -> String {
    let files = count(files, "file", "files");
    format!("{files}, {}", count(directories, "directory", "directories"))
}

/// Reports why the program failed, once: on standard error, and on standard output if that is read
/// by a program. Returns the exit code.
pub fn fail(failure: &Failure, json: bool) -> u8 {
    notice!("{:#}", failure.error);
    if json {
        // If this is lost, the exit code still reports the failure.
        let _ = print_json_line(&ErrorReport::new(&*failure.error, failure.code));
    }
    failure.code
}

/// Prints clap's answer to a command line that runs no command: a help text or a usage error.
pub fn answer(answer: &clap::Error, json: bool) -> Outcome {
    if !answer.use_stderr() {
        // A reader that stops early is no error.
        let _ = answer.print();
        return Ok(OK);
    }
    // Without styles: the text may contain what others chose, as with `famfs rm *`.
    let text = answer.render().to_string();
    let _ = to_stderr(&text);
    if json {
        let message = text.lines().next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(message).to_owned();
        let _ = print_json_line(&ErrorReport::new(&*anyhow::Error::msg(message), USAGE));
    }
    Ok(USAGE)
}

/// Prints a line on standard output, with the arguments of [`format!`].
macro_rules! say {
    ($($args:tt)*) => { $crate::output::print_line(format_args!($($args)*)) };
}
/// Prints a message on standard error, with the arguments of [`format!`].
macro_rules! notice {
    ($($args:tt)*) => { $crate::output::print_notice(format_args!($($args)*)) };
}
pub(crate) use {notice, say};

/// Implements [`say!`].
pub fn print_line(line: fmt::Arguments<'_>) -> anyhow::Result<()> {
    to_stdout(|out| writeln!(out, "{line}"))
}

/// Implements [`notice!`]. A message that cannot be printed does not stop the work.
pub fn print_notice(message: fmt::Arguments<'_>) {
    let _ = to_stderr(&format!("famfs: {message}\n"));
}

/// Writes text to standard error, and escapes what could harm a terminal.
fn to_stderr(text: &str) -> io::Result<()> {
    let mut out = Escaping::new(io::stderr().lock());
    out.write_all(text.as_bytes())?;
    out.finish()
}

/// Prints a value as JSON.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    to_stdout(|out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        writeln!(out)
    })
}

/// Prints a value as JSON on one line.
pub fn print_json_line(value: &impl Serialize) -> anyhow::Result<()> {
    let line = serde_json::to_string(value).context("cannot write JSON")?;
    say!("{line}")
}

/// Writes text to standard output, and escapes what could harm a terminal. A reader that stops
/// early, as in `| head`, is no error.
pub fn to_stdout(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    let mut out = Escaping::new(BufWriter::new(io::stdout().lock()));
    is_read(write(&mut out).and_then(|()| out.finish())).map(drop)
}

/// Writes text with styles to standard output; what others chose in it is already escaped.
pub fn styled_to_stdout(bytes: &[u8]) -> anyhow::Result<()> {
    bytes_to_stdout(bytes).map(drop)
}

/// Writes a list to standard output: unchanged for a program, escaped for a terminal.
pub fn list_to_stdout(bytes: &[u8]) -> anyhow::Result<()> {
    if io::stdout().is_terminal() {
        return to_stdout(|out| out.write_all(bytes));
    }
    bytes_to_stdout(bytes).map(drop)
}

/// Writes bytes of a file to standard output; false if nobody reads them any more.
pub fn bytes_to_stdout(bytes: &[u8]) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    is_read(out.write_all(bytes).and_then(|()| out.flush()))
}

fn is_read(written: io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Err(err) if err.kind() == ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true).context("cannot write to standard output"),
    }
}

/// A progress bar on a terminal, hidden elsewhere.
pub fn progress_bar(bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        "{bar:40} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style)
}

/// A flag that SIGINT and SIGTERM set, so that work stops at a safe point. A second signal ends the
/// process at once.
pub fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED.into(), flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(flag)
}

/// Whether the user asked to stop.
pub fn stopped(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}
