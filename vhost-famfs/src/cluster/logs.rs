// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The output of VMs' consoles, of QEMU and of back-ends.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use famfs::text::terminal::is_harmful;

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
}

impl Kind {
    const ALL: [Self; 3] = [Self::Backend, Self::Qemu, Self::Console];

    fn name(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Qemu => "qemu",
            Self::Backend => "backend",
        }
    }

    fn path(self, paths: &VmPaths) -> PathBuf {
        match self {
            Self::Console => paths.console_log.clone(),
            Self::Qemu => paths.qemu_log.clone(),
            Self::Backend => paths.backend_log.clone(),
        }
    }
}

/// Bytes of output that are written together.
const BUFFER: usize = 64 * 1024;

/// A log, and how far it has been read.
struct Log {
    reader: Reader,
    /// The label in front of each of its lines.
    label: String,
}

/// The logs of a cluster, of one VM, or of one kind.
pub struct Logs {
    directory: Directory,
    logs: Vec<Log>,
}

impl Logs {
    /// The logs of `vm`, or of all VMs; of `kind`, or of all kinds.
    #[must_use]
    pub fn new(directory: &Directory, state: &State, vm: Option<&str>, kind: Option<Kind>) -> Self {
        let vms = state.vms.iter().filter(|found| vm.is_none_or(|vm| found.name == vm));
        let logs = vms.flat_map(|vm| {
            let paths = directory.vm(&vm.name);
            let kinds =
                Kind::ALL.into_iter().filter(|found| kind.is_none_or(|kind| kind == *found));
            let name = vm.name.clone();
            kinds.map(move |kind| Log {
                reader: Reader::new(kind.path(&paths)),
                label: format!("{name} {} | ", kind.name()),
            })
        });
        Self { directory: directory.clone(), logs: logs.collect() }
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
        while self.directory.path().exists() {
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
        for Log { reader, label } in &mut self.logs {
            reader.finish(&mut |line| write_line(label, line, to))?;
        }
        to.flush()
    }
}

impl Log {
    fn print(&mut self, to: &mut impl Write) -> io::Result<()> {
        let Self { reader, label } = self;
        // A missing log is empty.
        let gap = reader.lines(&mut |line| write_line(label, line, to))?;
        if gap {
            // Printed afterwards: how much is missing is known only when the rest has been read.
            write_line(label, b"(lines before these are gone: the log is full)", to)?;
        }
        Ok(())
    }
}

fn write_line(label: &str, line: &[u8], to: &mut (impl Write + ?Sized)) -> io::Result<()> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    to.write_all(label.as_bytes())?;
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
        let mut log = Log { reader: Reader::new(path.clone()), label: "vm1 console | ".into() };
        let mut shown = Vec::new();
        log.print(&mut shown).unwrap();
        std::fs::write(&path, "one\r\n\x1b[2Jtwo\nthr").unwrap();
        log.print(&mut shown).unwrap();
        std::fs::write(&path, "one\r\n\x1b[2Jtwo\nthree").unwrap();
        log.print(&mut shown).unwrap();
        let Log { reader, label } = &mut log;
        reader.finish(&mut |line| write_line(label, line, &mut shown)).unwrap();
        let expected = "vm1 console | one\nvm1 console | [2Jtwo\nvm1 console | three\n";
        assert_eq!(String::from_utf8(shown).unwrap(), expected);
    }

    /// It took minutes when each line was removed from the front of the remaining text.
    #[test]
    fn a_log_of_empty_lines_is_printed_in_one_pass() {
        const LINES: usize = 4 << 20;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, vec![b'\n'; LINES]).unwrap();
        let mut log = Log { reader: Reader::new(path), label: "x | ".into() };
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
