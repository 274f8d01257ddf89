// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What VMs wrote: to their consoles, and what QEMU and back-ends said.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::VmPaths;
use super::directory::Directory;
use super::state::State;

/// Pause between two looks at logs that are followed.
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

/// A log, and how far it was read.
struct Log {
    path: PathBuf,
    label: String,
    position: u64,
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
}

/// The logs of a cluster, or of one VM of it, or one kind of these.
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
            let paths = VmPaths::new(directory, &vm.name);
            let kinds =
                Kind::ALL.into_iter().filter(|found| kind.is_none_or(|kind| kind == *found));
            let name = vm.name.clone();
            kinds.map(move |kind| Log {
                path: kind.path(&paths),
                label: format!("{name} {}", kind.name()),
                position: 0,
                rest: Vec::new(),
            })
        });
        Self { directory: directory.clone(), logs: logs.collect() }
    }

    /// Prints what there is, each line with its VM and kind in front.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn print(&mut self, to: &mut dyn Write) -> io::Result<()> {
        for log in &mut self.logs {
            log.print(to)?;
        }
        to.flush()
    }

    /// Goes on printing what comes until the cluster is gone.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn follow(&mut self, to: &mut dyn Write) -> io::Result<()> {
        while self.directory.path().exists() {
            self.print(to)?;
            thread::sleep(PAUSE);
        }
        for log in &mut self.logs {
            log.print_rest(to)?;
        }
        to.flush()
    }

    /// Prints the ends of lines that have none.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn finish(&mut self, to: &mut dyn Write) -> io::Result<()> {
        for log in &mut self.logs {
            log.print_rest(to)?;
        }
        to.flush()
    }
}

impl Log {
    fn print(&mut self, to: &mut dyn Write) -> io::Result<()> {
        // A log that is not there has nothing in it.
        let _ = self.read();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.line(&line, to)?;
        }
        Ok(())
    }

    fn print_rest(&mut self, to: &mut dyn Write) -> io::Result<()> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() { Ok(()) } else { self.line(&rest, to) }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.position))?;
        let count = file.read_to_end(&mut self.rest)?;
        self.position += count as u64;
        Ok(())
    }

    fn line(&self, line: &[u8], to: &mut dyn Write) -> io::Result<()> {
        let text = String::from_utf8_lossy(line);
        // A guest does not get at the reader's terminal.
        let clean: String = text
            .chars()
            .map(|c| if c == '\t' { ' ' } else { c })
            .filter(|c| !c.is_control())
            .collect();
        writeln!(to, "{} | {clean}", self.label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_labelled_and_clean() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log =
            Log { path: path.clone(), label: "vm1 console".into(), position: 0, rest: Vec::new() };
        let mut shown = Vec::new();
        log.print(&mut shown).unwrap();
        std::fs::write(&path, "one\r\n\x1b[2Jtwo\nthr").unwrap();
        log.print(&mut shown).unwrap();
        std::fs::write(&path, "one\r\n\x1b[2Jtwo\nthree").unwrap();
        log.print(&mut shown).unwrap();
        log.print_rest(&mut shown).unwrap();
        let expected = "vm1 console | one\nvm1 console | [2Jtwo\nvm1 console | three\n";
        assert_eq!(String::from_utf8(shown).unwrap(), expected);
    }
}
