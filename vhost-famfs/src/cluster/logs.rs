// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The output of VMs' consoles, of QEMU and of back-ends.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use famfs::text::terminal::is_harmful;
use famfs::text::time::utc;

use super::directory::Directory;
use super::state::State;
use crate::bounded_log::Reader;
use crate::vm::VmPaths;

/// Pause between two checks of logs that are followed.
const PAUSE: Duration = Duration::from_millis(200);

/// Which logs to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The guest's serial console.
    Console,
    /// QEMU's messages.
    Qemu,
    /// The back-end's messages.
    Backend,
    /// The messages of the process that serves its root device.
    Ublk,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Ublk, Self::Backend, Self::Qemu, Self::Console];

    fn name(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Qemu => "qemu",
            Self::Backend => "backend",
            Self::Ublk => "ublk",
        }
    }

    fn path(self, paths: &VmPaths) -> PathBuf {
        match self {
            Self::Console => paths.console_log.clone(),
            Self::Qemu => paths.qemu_log.clone(),
            Self::Backend => paths.backend_log.clone(),
            Self::Ublk => paths.device_log.clone(),
        }
    }
}

/// Instead of a time that is not known; as wide as one.
const UNKNOWN: &str = "(time not recorded)     ";

/// A time as RFC 3339 writes it, to the millisecond.
fn text_of(milliseconds: u64) -> String {
    let seconds = i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX / 1000);
    let text = utc(seconds, 0);
    let whole = text.strip_suffix('Z').unwrap_or(&text);
    format!("{whole}.{:03}Z", milliseconds % 1000)
}

/// Bytes of output that are written together.
const BUFFER: usize = 64 * 1024;

/// Which lines to show, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct View {
    /// Only lines that came at this time or later: milliseconds since 1970, UTC. A line of which
    /// that is not known is shown.
    pub since: Option<u64>,
    /// Of each log, only so many lines at the end.
    pub tail: Option<u64>,
    /// Show when each line came.
    pub timestamps: bool,
}

impl View {
    fn shows(&self, time: Option<u64>) -> bool {
        self.since.is_none_or(|since| time.is_none_or(|time| time >= since))
    }
}

/// A log, and how far it has been read.
struct Log {
    path: PathBuf,
    reader: Reader,
    /// The label in front of each of its lines.
    label: String,
    view: View,
    /// How many lines to leave out, once they were counted.
    left_out: Option<u64>,
}

/// The logs of a cluster, of one VM, or of one kind.
pub struct Logs {
    /// Where they are; it exists as long as more can come.
    directory: PathBuf,
    logs: Vec<Log>,
}

impl Logs {
    /// The logs of `vm`, or of all VMs of a cluster; of `kind`, or of all kinds.
    #[must_use]
    pub fn new(
        directory: &Directory,
        state: &State,
        vm: Option<&str>,
        kind: Option<Kind>,
        view: View,
    ) -> Self {
        let names = state.vms.iter().map(|vm| vm.name.clone());
        let names = names.filter(|name| vm.is_none_or(|vm| name == vm));
        Self::of(directory.path(), names, kind, view)
    }

    /// The same of logs that were kept in a directory. `None` if there are none of `vm`.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn kept(
        place: &Path,
        vm: Option<&str>,
        kind: Option<Kind>,
        view: View,
    ) -> io::Result<Option<Self>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(place)? {
            let file = entry?.file_name();
            // Names of VMs have no dots.
            let Some((name, _)) = file.to_str().and_then(|file| file.split_once('.')) else {
                continue;
            };
            if vm.is_none_or(|vm| name == vm) {
                names.push(name.to_owned());
            }
        }
        names.sort();
        names.dedup();
        Ok((!names.is_empty()).then(|| Self::of(place, names.into_iter(), kind, view)))
    }

    fn of(
        directory: &Path,
        vms: impl Iterator<Item = String>,
        kind: Option<Kind>,
        view: View,
    ) -> Self {
        let logs = vms.flat_map(|name| {
            let paths = VmPaths::new(&name, directory, directory);
            let kinds =
                Kind::ALL.into_iter().filter(|found| kind.is_none_or(|kind| kind == *found));
            kinds.map(move |kind| {
                Log::new(kind.path(&paths), format!("{name} {} | ", kind.name()), view)
            })
        });
        Self { directory: directory.to_owned(), logs: logs.collect() }
    }

    /// Prints what there is, each line labelled with its VM and kind.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn print(&mut self, to: &mut dyn Write) -> io::Result<()> {
        let mut to = BufWriter::with_capacity(BUFFER, to);
        for log in &mut self.logs {
            log.print(&mut to)?;
        }
        to.flush()
    }

    /// Keeps printing new lines until the cluster is gone.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn follow(&mut self, to: &mut dyn Write) -> io::Result<()> {
        while self.directory.exists() {
            self.print(to)?;
            thread::sleep(PAUSE);
        }
        self.finish(to)
    }

    /// Prints the last lines, even if they have no line end.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn finish(&mut self, to: &mut dyn Write) -> io::Result<()> {
        for log in &mut self.logs {
            log.finish(to)?;
        }
        to.flush()
    }
}

impl Log {
    fn new(path: PathBuf, label: String, view: View) -> Self {
        Self { reader: Reader::new(path.clone()), path, label, view, left_out: None }
    }

    /// How many lines are before those at the end that are to be shown.
    fn count_left_out(&self) -> io::Result<u64> {
        let Some(tail) = self.view.tail else { return Ok(0) };
        let mut count = 0_u64;
        let mut add = |time: Option<u64>, _: &[u8]| {
            count += u64::from(self.view.shows(time));
            Ok(())
        };
        let mut reader = Reader::new(self.path.clone());
        reader.lines(&mut add)?;
        reader.finish(&mut add)?;
        Ok(count.saturating_sub(tail))
    }

    fn print(&mut self, to: &mut impl Write) -> io::Result<()> {
        let mut left_out = match self.left_out {
            Some(left_out) => left_out,
            None => self.count_left_out()?,
        };
        let Self { reader, label, view, .. } = self;
        // A missing log is empty.
        let gap = reader.lines(&mut |time, line| {
            if !view.shows(time) {
                return Ok(());
            }
            if left_out > 0 {
                left_out -= 1;
                return Ok(());
            }
            write_line(label, view, time, line, to)
        })?;
        self.left_out = Some(left_out);
        if gap {
            // Printed afterwards: how much is missing is known only when the rest has been read.
            to.write_all(self.label.as_bytes())?;
            to.write_all(b"(lines before these are gone: the log is full)\n")?;
        }
        Ok(())
    }

    fn finish(&mut self, to: &mut dyn Write) -> io::Result<()> {
        let Self { reader, label, view, left_out, .. } = self;
        reader.finish(&mut |time, line| match view.shows(time) && left_out.unwrap_or(0) == 0 {
            true => write_line(label, view, time, line, to),
            false => Ok(()),
        })
    }
}

fn write_line(
    label: &str,
    view: &View,
    time: Option<u64>,
    line: &[u8],
    to: &mut (impl Write + ?Sized),
) -> io::Result<()> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    to.write_all(label.as_bytes())?;
    if view.timestamps {
        let text = time.map_or_else(|| UNKNOWN.to_owned(), text_of);
        to.write_all(text.as_bytes())?;
        to.write_all(b" ")?;
    }
    if line.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        to.write_all(line)?;
    } else {
        let text = String::from_utf8_lossy(line);
        // A guest must not control the reader's terminal.
        let clean = text.chars().map(|c| if c == '\t' { ' ' } else { c });
        let clean: String = clean.filter(|c| !is_harmful(*c)).collect();
        to.write_all(clean.as_bytes())?;
    }
    to.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_labelled_and_clean() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::new(path.clone(), "vm1 console | ".into(), View::default());
        let mut shown = Vec::new();
        log.print(&mut shown).unwrap();
        fs::write(&path, "one\r\n\x1b[2Jtwo\nthr").unwrap();
        log.print(&mut shown).unwrap();
        fs::write(&path, "one\r\n\x1b[2Jtwo\nthree").unwrap();
        log.print(&mut shown).unwrap();
        log.finish(&mut shown).unwrap();
        let expected = "vm1 console | one\nvm1 console | [2Jtwo\nvm1 console | three\n";
        assert_eq!(String::from_utf8(shown).unwrap(), expected);
    }

    #[test]
    fn the_end_of_a_log_is_its_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "one\ntwo\nthree\nfour").unwrap();
        let shown = |tail| {
            let view = View { tail: Some(tail), ..View::default() };
            let mut log = Log::new(path.clone(), String::new(), view);
            let mut shown = Vec::new();
            log.print(&mut shown).unwrap();
            log.finish(&mut shown).unwrap();
            String::from_utf8(shown).unwrap()
        };
        assert_eq!([0, 1, 2].map(shown), ["", "four\n", "three\nfour\n"]);
        assert_eq!(shown(9), "one\ntwo\nthree\nfour\n");
    }

    #[test]
    fn lines_have_times_and_those_before_a_time_are_left_out() {
        let view = View { since: Some(2000), timestamps: true, ..View::default() };
        assert!(view.shows(Some(2000)) && view.shows(None) && !view.shows(Some(1999)));
        let mut shown = Vec::new();
        write_line("x | ", &view, Some(1_795_825_588_042), b"line", &mut shown).unwrap();
        write_line("x | ", &view, None, b"line", &mut shown).unwrap();
        let expected = format!("x | 2026-11-28T00:26:28.042Z line\nx | {UNKNOWN} line\n");
        assert_eq!(String::from_utf8(shown).unwrap(), expected);
        assert_eq!(text_of(0).len(), UNKNOWN.len());
    }

    /// It took minutes when each line was removed from the front of the remaining text.
    #[test]
    fn a_log_of_empty_lines_is_printed_in_one_pass() {
        const LINES: usize = 4 << 20;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, vec![b'\n'; LINES]).unwrap();
        let mut log = Log::new(path, "x | ".into(), View::default());
        let mut shown = Counter(0);
        log.print(&mut shown).unwrap();
        assert_eq!(shown.0, LINES * "x | \n".len());
    }

    struct Counter(usize);

    impl Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
