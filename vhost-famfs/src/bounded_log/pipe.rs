// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The named pipe through which a log is written.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::with_suffix;

/// How long data may take from the pipe to the log.
const SETTLED: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(20);

/// The path of a log's pipe.
#[must_use]
pub fn pipe_of(log: &Path) -> PathBuf {
    with_suffix(log, ".pipe")
}

/// Creates the pipe of a log if it is missing, and opens its read end. While that is open, programs
/// can open the other end without waiting.
///
/// # Errors
/// Something else has its name, or it cannot be created or opened.
pub fn make_pipe(log: &Path) -> io::Result<File> {
    let path = pipe_of(log);
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::mkfifoat(CWD, &path, mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pipe = File::from(rustix::fs::open(&path, flags, Mode::empty())?);
    let meta = pipe.metadata()?;
    if !meta.file_type().is_fifo() || meta.uid() != rustix::process::geteuid().as_raw() {
        let text = format!("{}: expected a pipe of this user", path.display());
        return Err(io::Error::other(text));
    }
    Ok(pipe)
}

/// Opens what a program writes its log to: the pipe, or the file itself, truncated.
///
/// # Errors
/// It cannot be opened.
pub fn open_for_writing(log: &Path, piped: bool) -> io::Result<File> {
    if piped { File::options().write(true).open(pipe_of(log)) } else { File::create(log) }
}

/// Adds a line to a log, through its pipe, between what programs write there. If nobody reads the
/// pipe, or it is full, the line is lost.
pub fn add_line(log: &Path, text: &str) {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(pipe) = rustix::fs::open(pipe_of(log), flags, Mode::empty()) {
        // A short write to a pipe is not divided (pipe(7)).
        let _ = rustix::io::write(pipe, format!("vhost-famfs: {text}\n").as_bytes());
    }
}

/// Waits until everything in a log's pipe has reached the log, but not for long.
pub fn settle(log: &Path) {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(pipe) = rustix::fs::open(pipe_of(log), flags, Mode::empty()) else { return };
    let end = Instant::now() + SETTLED;
    while rustix::io::ioctl_fionread(&pipe).is_ok_and(|left| left > 0) && Instant::now() < end {
        thread::sleep(TICK);
    }
    // The data has left the pipe; it is now being written.
    thread::sleep(TICK);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_pipe_is_made_once_and_nothing_else_is_taken_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let held = make_pipe(&log).unwrap();
        assert_eq!(held.metadata().unwrap().mode() & 0o777, 0o600);
        // This does not wait, because the read end is open.
        File::options().write(true).open(pipe_of(&log)).unwrap().write_all(b"x").unwrap();
        make_pipe(&log).unwrap();
        for other in ["file", "link"] {
            let log = dir.path().join(other);
            match other {
                "file" => std::fs::write(pipe_of(&log), "").unwrap(),
                _ => std::os::unix::fs::symlink("/dev/null", pipe_of(&log)).unwrap(),
            }
            make_pipe(&log).unwrap_err();
        }
    }
}
