// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads a log, in memory that does not grow with the log.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::older;
use super::times::Times;

/// Longest line that is returned whole; a longer one is split into pieces of this length.
pub const MAX_LINE: usize = 8 * 1024;

/// Bytes to read at once.
const CHUNK: usize = 64 * 1024;

/// How often to reopen a log whose files are rotated while it is opened.
const ATTEMPTS: usize = 8;

/// What lines are passed to: the time, and the line.
type Sink<'s> = dyn FnMut(Option<u64>, &[u8]) -> io::Result<()> + 's;

/// A log, and how far it has been read. The log need not exist yet, and its files may be rotated
/// meanwhile.
#[derive(Debug)]
pub struct Reader {
    log: PathBuf,
    file: Option<File>,
    /// The beginning of a line whose end is still missing; shorter than [`MAX_LINE`].
    rest: Vec<u8>,
    /// When that came.
    rest_time: Option<u64>,
    /// When the bytes of the file came that is being read.
    times: Times,
    /// How far it has been read.
    position: u64,
    chunk: Vec<u8>,
}

impl Reader {
    /// A reader at the beginning of a log.
    #[must_use]
    pub fn new(log: PathBuf) -> Self {
        let (rest, times) = (Vec::new(), Times::default());
        Self { log, file: None, rest, rest_time: None, times, position: 0, chunk: vec![0; CHUNK] }
    }

    /// Passes on all new lines, without their line feeds, each with the time at which its beginning
    /// came, if known: milliseconds since 1970, UTC. Returns `true` if some lines before them
    /// are lost, because more was written than the log holds.
    ///
    /// Data that is written after the call begins may be left to the next call, so that the call
    /// ends no matter how fast the writer is.
    ///
    /// # Errors
    /// An error of `line`, or the log cannot be read.
    pub fn lines(&mut self, line: &mut Sink<'_>) -> io::Result<bool> {
        let Some(mut file) = self.file.take() else { return self.begin(line) };
        let newest = open(&self.log)?;
        self.read(&mut file, u64::MAX, line)?;
        let Some(newest) = newest.filter(|newest| !same(newest, &file)) else {
            self.file = Some(file);
            return Ok(false);
        };
        // The file that was being read has been rotated. If that happened only once, it is the
        // older one now.
        let before = open(&older(&self.log))?;
        let gap = before.as_ref().is_none_or(|before| !same(before, &file));
        if gap {
            self.finish(line)?;
            if let Some(mut before) = before {
                self.turn_to(&before);
                self.read(&mut before, u64::MAX, line)?;
            }
        }
        self.read_newest(newest, line)?;
        Ok(gap)
    }

    /// Passes on the last line if it has no line feed.
    ///
    /// # Errors
    /// An error of `line`.
    pub fn finish(&mut self, line: &mut Sink<'_>) -> io::Result<()> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() { Ok(()) } else { line(self.rest_time, &rest) }
    }

    fn begin(&mut self, line: &mut Sink<'_>) -> io::Result<bool> {
        let (before, newest) = open_both(&self.log)?;
        if let Some(mut before) = before {
            self.turn_to(&before);
            self.read(&mut before, u64::MAX, line)?;
        }
        if let Some(newest) = newest {
            self.read_newest(newest, line)?;
        }
        Ok(false)
    }

    /// Reads the current contents of the newest file.
    fn read_newest(&mut self, mut newest: File, line: &mut Sink<'_>) -> io::Result<()> {
        self.turn_to(&newest);
        let len = newest.metadata()?.len();
        self.read(&mut newest, len, line)?;
        self.file = Some(newest);
        Ok(())
    }

    /// Reads this file of the log from its beginning next.
    fn turn_to(&mut self, file: &File) {
        (self.times, self.position) = (Times::of(&self.log, file), 0);
    }

    fn read(&mut self, file: &mut File, most: u64, line: &mut Sink<'_>) -> io::Result<()> {
        let mut left = most;
        while left > 0 {
            let count = match file.read(&mut self.chunk) {
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count.map_err(named(&self.log))?,
            };
            left = left.saturating_sub(count as u64);
            self.times.refresh();
            let (times, position) = (&mut self.times, self.position);
            let time = &mut |offset| times.at(position + offset);
            split(&mut self.rest, &mut self.rest_time, &self.chunk[..count], time, line)?;
            self.position += count as u64;
        }
        Ok(())
    }
}

/// Splits bytes into lines; an incomplete line is kept in `rest`. `time_at` tells when the byte at
/// an offset came.
fn split(
    rest: &mut Vec<u8>,
    rest_time: &mut Option<u64>,
    mut bytes: &[u8],
    time_at: &mut dyn FnMut(u64) -> Option<u64>,
    line: &mut Sink<'_>,
) -> io::Result<()> {
    let all = bytes.len();
    while !bytes.is_empty() {
        if rest.is_empty() {
            *rest_time = time_at((all - bytes.len()) as u64);
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        bytes = end.map_or(&[], |end| &bytes[end + 1..]);
        let mut part = part;
        while rest.len() + part.len() > MAX_LINE {
            let (piece, more) = part.split_at(MAX_LINE - rest.len());
            rest.extend_from_slice(piece);
            line(*rest_time, rest)?;
            rest.clear();
            part = more;
        }
        if end.is_none() {
            rest.extend_from_slice(part);
        } else if rest.is_empty() {
            line(*rest_time, part)?;
        } else {
            rest.extend_from_slice(part);
            line(*rest_time, rest)?;
            rest.clear();
        }
    }
    Ok(())
}

/// The last bytes of a log, at most `most`.
///
/// # Errors
/// The log cannot be read.
pub fn tail(log: &Path, most: u64) -> io::Result<Vec<u8>> {
    let (before, newest) = open_both(log)?;
    let mut left = most;
    let mut parts = Vec::new();
    for mut file in newest.into_iter().chain(before) {
        let len = file.metadata()?.len();
        let mut part = Vec::new();
        file.seek(SeekFrom::Start(len.saturating_sub(left)))?;
        file.take(left).read_to_end(&mut part)?;
        left -= part.len() as u64;
        parts.push(part);
    }
    parts.reverse();
    Ok(parts.concat())
}

/// Opens the older and the newest file of a log, if they exist, and makes sure that they are two
/// different files.
fn open_both(log: &Path) -> io::Result<(Option<File>, Option<File>)> {
    let mut both = (None, None);
    for _ in 0..ATTEMPTS {
        both = (open(&older(log))?, open(log)?);
        let current = open(log)?;
        // If the files were rotated in between, there would be a gap, or one file twice.
        match (&both.1, &current) {
            (Some(newest), Some(current)) if same(newest, current) => break,
            (None, None) => break,
            _ => {}
        }
    }
    Ok(both)
}

fn open(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    // A pipe or link in place of a log is not a log.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.read(true).custom_flags(flags.bits().cast_signed());
    match options.open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(named(path)(error)),
    }
}

fn named(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
}

fn same(one: &File, other: &File) -> bool {
    let identity = |file: &File| file.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
    identity(one).is_some() && identity(one) == identity(other)
}

#[cfg(test)]
mod tests {
    use super::super::MIN_LIMIT;
    use super::super::writer::Writer;
    use super::*;
    use std::fs;

    fn lines(reader: &mut Reader) -> (Vec<String>, bool) {
        let mut lines = Vec::new();
        let gap = reader.lines(&mut |_, line| {
            lines.push(String::from_utf8(line.to_vec()).unwrap());
            Ok(())
        });
        (lines, gap.unwrap())
    }

    #[test]
    fn lines_are_handed_out_once() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut reader = Reader::new(log.clone());
        assert_eq!(lines(&mut reader), (vec![], false));
        fs::write(&log, "one\n\ntw").unwrap();
        assert_eq!(lines(&mut reader).0, ["one", ""]);
        fs::write(&log, "one\n\ntwo\nrest").unwrap();
        assert_eq!(lines(&mut reader).0, ["two"]);
        let mut rest = Vec::new();
        let mut keep = |_: Option<u64>, line: &[u8]| {
            rest.extend_from_slice(line);
            Ok(())
        };
        reader.finish(&mut keep).unwrap();
        assert_eq!(rest, b"rest");
    }

    #[test]
    fn a_line_without_an_end_comes_in_pieces() {
        let (mut rest, mut time, mut found) = (Vec::new(), None, Vec::new());
        let mut line = |_: Option<u64>, line: &[u8]| {
            found.push(line.len());
            Ok(())
        };
        for _ in 0..10 {
            split(&mut rest, &mut time, &[b'x'; 5000], &mut |_| None, &mut line).unwrap();
        }
        split(&mut rest, &mut time, b"\nnext\n", &mut |_| None, &mut line).unwrap();
        assert_eq!(found, [8192, 8192, 8192, 8192, 8192, 8192, 848, 4]);
        assert!(rest.capacity() <= 4 * MAX_LINE);
    }

    #[test]
    fn every_line_of_a_log_that_is_turned_over_comes_once_or_is_said_to_be_gone() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut writer = Writer::new(&log, MIN_LIMIT).unwrap();
        let mut reader = Reader::new(log);
        let (mut next, mut gaps) = (0, 0);
        // From less than one file to more than both, between two reads.
        for round in 1..60 {
            for number in 0..round * 100 {
                writer.add(format!("{round} {number}\n").as_bytes());
            }
            let (found, gap) = lines(&mut reader);
            let last = format!("{round} {}", round * 100 - 1);
            assert_eq!(found.last(), Some(&last));
            if gap {
                gaps += 1;
            } else {
                assert_eq!(found.len(), round * 100, "round {round}");
            }
            next += found.len();
        }
        assert!(gaps > 0 && next > 0);
    }

    #[test]
    fn the_tail_goes_over_both_files() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(tail(&log, 100).unwrap(), b"");
        fs::write(older(&log), "0123456789").unwrap();
        fs::write(&log, "abc").unwrap();
        for (most, expected) in [(2, "bc"), (5, "89abc"), (100, "0123456789abc")] {
            assert_eq!(tail(&log, most).unwrap(), expected.as_bytes());
        }
        let pipe = dir.path().join("link");
        std::os::unix::fs::symlink(&log, &pipe).unwrap();
        assert!(tail(&pipe, 10).is_err(), "links are not followed");
    }
}
