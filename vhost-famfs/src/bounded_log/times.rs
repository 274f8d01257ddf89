// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When the bytes of a log came. Each file of a log has a second one beside it, with pairs of a
//! position and a time. The log itself stays as the program wrote it.
//!
//! The file begins with [`MAGIC`] and the inode number of its log, because both are renamed one
//! after the other. All numbers are 64 bits, little-endian.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};

use super::{older, with_suffix};

const MAGIC: [u8; 8] = *b"logtimes";

/// Bytes of the beginning, and of each pair.
const PAIR: usize = 16;

/// How many pairs there may be before the log is large.
const FEW: u64 = 1024;

/// So many bytes of the log there are for each pair beyond these.
const BYTES_OF_LOG: u64 = 64;

/// The path of the file with the times of a log's file.
#[must_use]
pub fn times_of(log: &Path) -> PathBuf {
    with_suffix(log, ".times")
}

/// Notes when bytes are added to a log's file. What cannot be noted is not known later.
#[derive(Debug)]
pub(super) struct TimesWriter {
    file: Option<File>,
    pairs: u64,
    last: u64,
}

impl TimesWriter {
    /// Begins the times of a file that was just created in a directory.
    pub(super) fn new(dir: &OwnedFd, name: &OsString, log: &File) -> Self {
        let begin = || -> std::io::Result<File> {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            let mut file = File::from(rustix::fs::openat(dir, name, flags, mode)?);
            file.write_all(&pair(u64::from_le_bytes(MAGIC), log.metadata()?.ino()))?;
            Ok(file)
        };
        Self { file: begin().ok(), pairs: 0, last: 0 }
    }

    /// Bytes come at this position now.
    pub(super) fn note(&mut self, position: u64) {
        let now = milliseconds();
        if now == self.last || self.pairs > FEW + position / BYTES_OF_LOG {
            return;
        }
        if let Some(file) = &mut self.file {
            // Half a pair would shift those after it.
            if file.write_all(&pair(position, now)).is_err() {
                self.file = None;
            }
        }
        self.pairs += 1;
        self.last = now;
    }
}

/// The current time, in milliseconds since 1970, UTC.
fn milliseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn pair(first: u64, second: u64) -> [u8; PAIR] {
    let mut bytes = [0; PAIR];
    bytes[..PAIR / 2].copy_from_slice(&first.to_le_bytes());
    bytes[PAIR / 2..].copy_from_slice(&second.to_le_bytes());
    bytes
}

fn numbers(bytes: [u8; PAIR]) -> (u64, u64) {
    let [mut first, mut second] = [[0; PAIR / 2]; 2];
    first.copy_from_slice(&bytes[..PAIR / 2]);
    second.copy_from_slice(&bytes[PAIR / 2..]);
    (u64::from_le_bytes(first), u64::from_le_bytes(second))
}

/// Pairs to read at once.
const CHUNK: usize = 1024;

/// Tells when the bytes of a log's file came, if that is known; positions only grow.
#[derive(Debug, Default)]
pub(super) struct Times {
    file: Option<File>,
    chunk: Vec<u8>,
    used: usize,
    /// Whether everything that is there has been read.
    at_end: bool,
    next: Option<(u64, u64)>,
    time: Option<u64>,
}

impl Times {
    /// The times of a file of a log.
    pub(super) fn of(log: &Path, file: &File) -> Self {
        let inode = file.metadata().map(|metadata| metadata.ino()).ok();
        let find = |path: &Path| {
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(flags.bits().cast_signed());
            let mut found = options.open(path).ok()?;
            let mut beginning = [0; PAIR];
            found.read_exact(&mut beginning).ok()?;
            let (magic, of) = numbers(beginning);
            (magic.to_le_bytes() == MAGIC && Some(of) == inode).then_some(found)
        };
        let file = find(&times_of(log)).or_else(|| find(&times_of(&older(log))));
        Self { file, ..Self::default() }
    }

    /// There may be more times now.
    pub(super) fn refresh(&mut self) {
        self.at_end = false;
    }

    /// When the byte at a position came, in milliseconds since 1970, UTC.
    pub(super) fn at(&mut self, position: u64) -> Option<u64> {
        loop {
            if self.next.is_none() {
                self.next = self.read();
            }
            match self.next {
                Some((from, time)) if from <= position => {
                    self.time = Some(time);
                    self.next = None;
                }
                _ => return self.time,
            }
        }
    }

    fn read(&mut self) -> Option<(u64, u64)> {
        if self.chunk.len() - self.used < PAIR {
            let file = self.file.as_mut().filter(|_| !self.at_end)?;
            self.chunk.drain(..self.used);
            self.used = 0;
            // What cannot be read is not known.
            let count = file.take((PAIR * CHUNK) as u64).read_to_end(&mut self.chunk).ok()?;
            self.at_end = count < PAIR * CHUNK;
        }
        let bytes = self.chunk.get(self.used..self.used + PAIR)?;
        self.used += PAIR;
        Some(numbers(bytes.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::MIN_LIMIT;
    use super::super::writer::Writer;
    use super::*;
    use std::fs;

    #[test]
    fn times_are_few_however_small_the_pieces_are() {
        let dir = tempfile::tempdir().unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let at = rustix::fs::open(dir.path(), OFlags::RDONLY, Mode::empty()).unwrap();
        let mut times = TimesWriter::new(&at, &"log.times".into(), &log);
        for position in 0..200_000 {
            times.last = 0;
            times.note(position);
        }
        let size = fs::metadata(dir.path().join("log.times")).unwrap().len();
        assert!(size <= (FEW + 2) * 16 + 200_000 / 4, "{size}");
    }

    #[test]
    fn each_byte_has_the_time_of_its_piece() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = Writer::new(&path, MIN_LIMIT).unwrap();
        let mut moments = Vec::new();
        for piece in ["one\n", "two\nthr", "ee\n"] {
            moments.push(milliseconds());
            writer.add(piece.as_bytes());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let mut times = Times::of(&path, &File::open(&path).unwrap());
        let found = [0, 3, 4, 8, 10, 11, 500].map(|position| times.at(position).unwrap());
        let pieces = [0, 0, 1, 1, 1, 2, 2];
        for (time, piece) in found.into_iter().zip(pieces) {
            assert!((moments[piece]..moments[piece] + 5).contains(&time), "{found:?} {moments:?}");
        }
        // More comes later.
        writer.add(b"four\n");
        times.refresh();
        assert!(times.at(14).unwrap() > found[6]);
        // Another file with that name has no times.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "one\n").unwrap();
        assert_eq!(Times::of(&path, &File::open(&path).unwrap()).at(0), None);
    }
}
