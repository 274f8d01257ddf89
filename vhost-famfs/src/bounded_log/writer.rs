// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes a log.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use famfs::system::parent;
use rustix::fs::{Mode, OFlags};

use super::older;
use super::times::{TimesWriter, times_of};

/// Default maximum size of a log, in bytes.
pub const DEFAULT_LIMIT: u64 = 16 << 20;

/// Smallest limit: enough for a kernel panic and what led to it.
pub const MIN_LIMIT: u64 = 64 << 10;

/// A log that is being written. All names are looked up in its open directory.
#[derive(Debug)]
pub(super) struct Writer {
    dir: OwnedFd,
    name: OsString,
    older: OsString,
    file: File,
    /// Bytes in the file.
    size: u64,
    times: TimesWriter,
    /// Maximum size of the file: half of the limit.
    most: u64,
    /// Bytes that could not be written and are not yet reported in the log.
    lost: u64,
}

impl Writer {
    /// Begins a log. An existing file becomes the older half.
    pub(super) fn new(log: &Path, limit: u64) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(parent::of(log), flags, Mode::empty())?;
        let name = |path: &Path| path.file_name().map(OsString::from);
        let (Some(name), Some(older)) = (name(log), name(&older(log))) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if rustix::fs::statat(&dir, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            rustix::fs::renameat(&dir, &name, &dir, &older)?;
        }
        let (file, times) = begin(&dir, &name, &older)?;
        Ok(Self { dir, name, older, file, times, size: 0, most: limit / 2, lost: 0 })
    }

    /// Adds bytes. Bytes that cannot be written, for example on a full disk, are counted, and
    /// reported in the log once there is room again: the writer must never have to wait.
    pub(super) fn add(&mut self, mut bytes: &[u8]) {
        if self.lost > 0 {
            let line = format!("\n({} bytes of this log could not be written)\n", self.lost);
            if self.store(line.as_bytes()).is_ok() {
                self.lost = 0;
            }
        }
        while !bytes.is_empty() {
            match self.store(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.lost += bytes.len() as u64;
                    return;
                }
            }
        }
    }

    /// Stores as many bytes as fit, and returns their number.
    fn store(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size >= self.most {
            rustix::fs::renameat(&self.dir, &self.name, &self.dir, &self.older)?;
            // If no new file can be created, the old one stays full: nothing is written until there
            // is a new one.
            (self.file, self.times) = begin(&self.dir, &self.name, &self.older)?;
            self.size = 0;
        }
        // Before the bytes, so that whoever sees them knows when they came.
        self.times.note(self.size);
        let room = usize::try_from(self.most - self.size).unwrap_or(usize::MAX);
        let count = self.file.write(&bytes[..bytes.len().min(room)])?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.size += count as u64;
        Ok(count)
    }
}

/// Creates a file of a log and the one for its times; those of the file before become the older's.
fn begin(dir: &OwnedFd, name: &OsString, older: &OsString) -> io::Result<(File, TimesWriter)> {
    let file = create(dir, name)?;
    let [times, old_times] = [name, older].map(|name| times_of(Path::new(name)).into_os_string());
    // Without it, it is not known when the older bytes came.
    let _ = rustix::fs::renameat(dir, &times, dir, &old_times);
    let times = TimesWriter::new(dir, &times, &file);
    Ok((file, times))
}

fn create(dir: &OwnedFd, name: &OsString) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    Ok(File::from(rustix::fs::openat(dir, name, flags, mode)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_log_has_the_last_of_what_was_written_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut writer = Writer::new(&log, MIN_LIMIT).unwrap();
        let mut all = Vec::new();
        for number in 0..20_000 {
            let line = format!("line {number}\n");
            writer.add(line.as_bytes());
            all.extend(line.into_bytes());
            let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
            assert!(size(&log) + size(&older(&log)) <= MIN_LIMIT);
        }
        let kept = [fs::read(older(&log)).unwrap(), fs::read(&log).unwrap()].concat();
        assert!(kept.len() as u64 >= MIN_LIMIT / 2 && all.ends_with(&kept));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "with the times");
    }

    #[test]
    fn one_write_larger_than_the_limit_keeps_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut writer = Writer::new(&log, MIN_LIMIT).unwrap();
        let bytes: Vec<u8> = (0..251).cycle().take(1_000_000).collect();
        writer.add(&bytes);
        let kept = [fs::read(older(&log)).unwrap(), fs::read(&log).unwrap()].concat();
        assert!(bytes.ends_with(&kept) && kept.len() as u64 <= MIN_LIMIT);
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut writer = Writer::new(&log, MIN_LIMIT).unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let file = std::mem::replace(&mut writer.file, full);
        writer.add(b"lost");
        writer.add(b"lost too");
        writer.file = file;
        writer.add(b"written\n");
        let text = fs::read_to_string(&log).unwrap();
        assert_eq!(text, "\n(12 bytes of this log could not be written)\nwritten\n");
    }

    #[test]
    fn an_earlier_log_is_the_older_half() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        Writer::new(&log, MIN_LIMIT).unwrap().add(b"before\n");
        Writer::new(&log, MIN_LIMIT).unwrap().add(b"now\n");
        assert_eq!(fs::read_to_string(older(&log)).unwrap(), "before\n");
        assert_eq!(fs::read_to_string(&log).unwrap(), "now\n");
    }
}
