// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Child processes: those that end with this program, and those that outlive it.
//!
//! Children that must end with this program get the kernel's parent-death signal, which
//! util-linux's `setpriv` sets between fork and exec, so no unsafe code is needed here. The signal
//! is sent when the *thread* that forked ends; therefore one thread that lives as long as the
//! program does all the forking.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use famfs::text::terminal::is_harmful;

use crate::bounded_log;

/// How many lines of a log to put into an error message: enough for a kernel panic with its call
/// trace.
const TAIL_LINES: usize = 32;

/// Maximum length of such a line.
const TAIL_LINE: usize = 512;

/// How many bytes at the end of a log to search for these lines.
const TAIL_BYTES: u64 = 64 * 1024;

type Request = (Command, Sender<io::Result<Child>>);

/// How long a child process lives.
#[derive(Debug)]
pub enum Lifetime {
    /// No longer than this program, however it ends.
    Tied,
    /// As long as it has work, in its own session: neither the end of this program nor that of the
    /// shell ends it.
    Detached {
        /// The environment variable that identifies the process, and its value.
        mark: (&'static str, String),
        /// A file that the process keeps open as its standard input, together with its locks.
        holds: Option<File>,
    },
}

impl Lifetime {
    /// Starts a program without input and output.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_quietly(self, argv: &[OsString]) -> io::Result<Child> {
        let null = File::options().write(true).open("/dev/null")?;
        self.start(argv, null)
    }

    /// Starts a program without input; its standard error goes to a file.
    pub(super) fn start(self, argv: &[OsString], stderr: File) -> io::Result<Child> {
        self.start_with(argv, Stdio::null(), stderr)
    }

    /// Starts a program whose standard output can be read; its standard error goes to a file.
    pub(super) fn start_to_read(self, argv: &[OsString], stderr: File) -> io::Result<Child> {
        self.start_with(argv, Stdio::piped(), stderr)
    }

    fn start_with(self, argv: &[OsString], stdout: Stdio, stderr: File) -> io::Result<Child> {
        match self {
            Self::Tied => {
                let mut command = tied(&argv[0]);
                // Ctrl-C is for this program only, which then ends the others in order.
                command.args(&argv[1..]).stdin(Stdio::null()).stdout(stdout);
                command.stderr(stderr).process_group(0);
                spawn(command)
            }
            Self::Detached { mark: (name, value), holds } => {
                // Without its own process group, `setsid` need not fork, so the child's id is the
                // program's id.
                let mut command = Command::new("setsid");
                command.args(argv).env(name, value).stdout(stdout).stderr(stderr);
                command.stdin(holds.map_or_else(Stdio::null, Stdio::from));
                command.spawn().map_err(|error| missing(error, "setsid"))
            }
        }
    }
}

/// A command that is killed when the thread that starts it ends: [`spawn`] starts it from one that
/// lives as long as this program.
pub(crate) fn tied(program: &OsStr) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts a command from the thread that never ends.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in requests {
                // If the caller no longer listens, its thread has ended; then its child must end
                // too.
                if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        });
        Mutex::new(sender)
    });
    let (answer, child) = mpsc::channel();
    let ended = || io::Error::other("the thread that starts processes has ended");
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .map_err(|_| ended())?;
    child.recv().map_err(|_| ended())?.map_err(|error| missing(error, "setpriv"))
}

/// Names the helper program that is missing.
fn missing(error: io::Error, program: &str) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            let text = format!("{program} not found; install the package util-linux");
            io::Error::new(error.kind(), text)
        }
        _ => error,
    }
}

/// The last lines of a log, each indented, or a note that it is empty.
pub(super) fn tail(log: &Path) -> String {
    bounded_log::settle(log);
    let bytes = bounded_log::tail(log, TAIL_BYTES).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return "  (nothing)".into();
    }
    let lines = lines[lines.len().saturating_sub(TAIL_LINES)..].iter();
    // A guest's control characters must not reach the reader's terminal.
    let clean =
        |line: &&str| line.chars().filter(|c| !is_harmful(*c)).take(TAIL_LINE).collect::<String>();
    lines.map(|line| format!("  {}", clean(line))).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut child = thread::spawn(|| {
            let mut command = tied(OsStr::new("sleep"));
            command.arg("60");
            spawn(command).unwrap()
        })
        .join()
        .unwrap();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(child.try_wait().unwrap(), None, "it is still running");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_detached_child_has_a_session_of_its_own_and_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let held = dir.path().join("held");
        fs::write(&held, "contents").unwrap();
        let report = File::create(dir.path().join("report")).unwrap();
        let lifetime = Lifetime::Detached {
            mark: ("MARK_OF_A_TEST", "xyz".into()),
            holds: Some(File::open(&held).unwrap()),
        };
        let script = "cat >&2; echo \" $MARK_OF_A_TEST $$ $(cut -d ' ' -f 6 /proc/$$/stat)\" >&2";
        let argv = ["sh", "-c", script].map(OsString::from);
        let mut child = lifetime.start(&argv, report).unwrap();
        assert!(child.wait().unwrap().success());
        let report = fs::read_to_string(dir.path().join("report")).unwrap();
        let pid = child.id().to_string();
        let words: Vec<_> = report.split_whitespace().collect();
        assert_eq!(words, ["contents", "xyz", &pid, &pid]);
    }

    #[test]
    fn the_tail_is_short_and_clean() {
        let log = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(tail(log.path()), "  (nothing)");
        let lines: String = (0..100).map(|n| format!("line {n}\r\n\n")).collect();
        fs::write(log.path(), lines + "\x1b[31mred\n").unwrap();
        let tail = tail(log.path());
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.ends_with("  line 99\n  [31mred"), "{tail:?}");
        // A guest that writes a lot without a line feed.
        fs::write(log.path(), vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(super::tail(log.path()).len(), 2 + TAIL_LINE);
    }
}
