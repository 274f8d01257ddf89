// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records how and when processes ended, for commands that are not their parents.
//!
//! Once `up` has returned, nobody waits for QEMU. So a process that lives as long as QEMU watches
//! it through a pidfd and records what the kernel tells of its end. Linux before 6.15 only tells
//! that it has ended.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use famfs::system::process::Handle;
use serde::{Deserialize, Serialize};
use signal_hook::low_level::signal_name;

use crate::host::sys;

/// How long to wait before looking at a process again. Its end is noticed at once in any case.
const LONG: Duration = Duration::from_secs(3600);

/// How long the parent of an ended process has to reap it; before that, the kernel does not tell
/// how it ended.
const REAPED: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(50);

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The id it had.
    pub pid: u32,
    /// When: seconds from the beginning of 1970, UTC.
    pub time: u64,
    /// Its exit code, if it ended by itself and the kernel told.
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did and the kernel told.
    pub signal: Option<i32>,
}

impl End {
    fn now(pid: u32) -> Self {
        Self { pid, time: When::now().0, exit_code: None, signal: None }
    }

    fn with(self, status: ExitStatus) -> Self {
        Self { exit_code: status.code(), signal: status.signal(), ..self }
    }

    /// Appends it to the record, as one line.
    fn write(&self, mut record: &File) {
        if let Ok(line) = serde_json::to_string(self) {
            // On a full disk there is no record, and nobody to tell about it.
            let _ = record.write_all(format!("{line}\n").as_bytes());
        }
    }
}

/// Finds the end of a process in a record: the last one with its id.
#[must_use]
pub fn find(record: &str, pid: u32) -> Option<End> {
    let ends = record.lines().rev().filter_map(|line| serde_json::from_str::<End>(line).ok());
    ends.into_iter().find(|end| end.pid == pid)
}

/// Opens a record for appending, for this user only.
///
/// # Errors
/// It cannot be opened.
pub fn open(record: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(record)
}

/// Watches the processes whose ids are read, one per line, and records how they end. The returned
/// file becomes readable when all have ended and no more ids can come.
///
/// # Errors
/// The thread cannot be started.
pub fn watch(ids: impl Read + Send + 'static, record: File) -> io::Result<UnixStream> {
    let (done, working) = UnixStream::pair()?;
    let shared = Arc::new((record, working));
    thread::Builder::new().spawn(move || {
        for line in BufReader::new(ids).lines().map_while(Result::ok) {
            let Some(handle) = line.parse().ok().and_then(|pid| Handle::open(pid).ok()) else {
                continue;
            };
            let shared = Arc::clone(&shared);
            // Without a thread, the end of this one is not recorded.
            drop(thread::Builder::new().spawn(move || follow(&handle, &shared.0)));
        }
    })?;
    Ok(done)
}

/// Waits for the end of a process. Records the time at once, and the cause as soon as the kernel
/// tells it.
fn follow(handle: &Handle, record: &File) {
    while !handle.wait(LONG) {
        thread::sleep(TICK);
    }
    let end = End::now(handle.pid());
    end.write(record);
    let limit = Instant::now() + REAPED;
    while Instant::now() < limit {
        if let Some(status) = sys::exit_status(handle) {
            return end.with(status).write(record);
        }
        thread::sleep(TICK);
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.signal, self.exit_code) {
            (Some(signal), _) => match signal_name(signal) {
                Some(name) => write!(f, "killed ({name})")?,
                None => write!(f, "killed (signal {signal})")?,
            },
            (_, Some(code)) => write!(f, "exited {code}")?,
            (None, None) => write!(f, "ended")?,
        }
        write!(f, "{}", When(self.time))
    }
}

/// A moment for a table, with a space before it: only the time if it is today. Nothing if the
/// kernel does not tell the local time.
pub(super) struct When(pub(super) u64);

impl When {
    /// This moment.
    pub(super) fn now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(now.map_or(0, |time| time.as_secs()))
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(then) = sys::local_time(self.0) else { return Ok(()) };
        let day = |tm: &libc::tm| (tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
        let today = sys::local_time(Self::now().0);
        if today.is_none_or(|today| day(&today) != day(&then)) {
            let (year, month, day) = day(&then);
            write!(f, " {year}-{month:02}-{day:02}")?;
        }
        write!(f, " {:02}:{:02}:{:02}", then.tm_hour, then.tm_min, then.tm_sec)
    }
}

#[cfg(test)]
#[path = "../../tests/support/kernel.rs"]
mod kernel;

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn ends_are_recorded_with_time_and_cause() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ends");
        let (ids, mut writer) = io::pipe().unwrap();
        let mut done = watch(ids, open(&path).unwrap()).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "read line; exit 7"]).stdin(Stdio::piped());
        let mut children = [command.spawn().unwrap(), command.spawn().unwrap()];
        for child in &children {
            writeln!(writer, "{}", child.id()).unwrap();
        }
        // Neither a line that is not an id nor the id of no process disturbs it.
        writer.write_all(b"nothing\n4294967295\n").unwrap();
        drop(writer);
        // A process that was reaped before it was watched leaves no record.
        for child in &children {
            wait_until_watched(child.id());
        }
        let before = End::now(0).time;
        children[0].kill().unwrap();
        for child in &mut children {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        assert_eq!(done.read(&mut [0]).unwrap(), 0);
        let text = std::fs::read_to_string(&path).unwrap();
        let [killed, exited] = [0, 1].map(|n| find(&text, children[n].id()).unwrap());
        assert!((before..=End::now(0).time).contains(&killed.time), "{killed:?}");
        let told = kernel::tells_ends();
        assert_eq!((killed.signal, killed.exit_code), (told.then_some(9), None));
        assert_eq!((exited.signal, exited.exit_code), (None, told.then_some(7)));
        assert_eq!(find(&text, 1), None);
        assert_eq!(find("{\"pid\":1}\n\n", 1), None);
    }

    /// Waits until this process has a pidfd for another one (proc_pid_fdinfo(5)).
    fn wait_until_watched(pid: u32) {
        let line = format!("Pid:\t{pid}");
        let means = |path: &Path| {
            std::fs::read_to_string(path).is_ok_and(|text| text.lines().any(|one| one == line))
        };
        let limit = Instant::now() + Duration::from_secs(60);
        while Instant::now() < limit {
            let mut open = std::fs::read_dir("/proc/self/fdinfo").unwrap();
            if open.any(|entry| means(&entry.unwrap().path())) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("{pid} is not watched");
    }

    #[test]
    fn an_end_says_how_and_when() {
        let end = End::now(1);
        let words = |text: String| text.rsplit_once(' ').unwrap().0.to_owned();
        assert_eq!(words(end.to_string()), "ended");
        assert_eq!(words(End { signal: Some(9), ..end }.to_string()), "killed (SIGKILL)");
        assert_eq!(words(End { signal: Some(40), ..end }.to_string()), "killed (signal 40)");
        assert_eq!(words(End { exit_code: Some(1), ..end }.to_string()), "exited 1");
        let old = End { time: 1_000_000_000, ..end }.to_string();
        assert!(old.starts_with("ended 2001-09-0") && old.len() == 25, "{old}");
    }
}
