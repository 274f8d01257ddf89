// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cp`.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufReader, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use transfer::pack::{self, Source, Watcher};
use transfer::place::{Place, name_of, places};
use transfer::unpack::{unpack, unpack_file};

use super::bar::Bar;
use super::notice;
use vhost_famfs::args::{CpConfig, HostEnd, Route};
use vhost_famfs::cluster::host::runtime_dir;
use vhost_famfs::cluster::{find, running_vm, state_of};
use vhost_famfs::vm::{Command, ExecError, Guest, Status, Streams};

/// The program that copies in the guest.
const AGENT: &str = "/usr/bin/appliance-agent";

/// As much as is read or written at once.
const BUFFER: usize = 128 * 1024;

/// Longest line of the guest that is shown as one.
const MAX_LINE: usize = 4096;

/// How long an end that has failed may take to say so after the other has.
const SOON: Duration = Duration::from_millis(500);

pub(super) fn run(config: CpConfig) -> Result<ExitCode> {
    let directory = find(&runtime_dir()?, config.cluster.as_deref())?;
    let state = state_of(&directory)?;
    let vm = running_vm(&state, &directory, &config.vm)?;
    let name = &vm.name;
    let port = Guest::on_free_port(&directory.vm(name), vm.channel, config.timeout);
    let guest = port.with_context(|| format!("VM {name}"))?;
    let mut copy = Copy { vm: name, guest, recursive: config.recursive, timeout: config.timeout };
    let is_complete = match config.route {
        Route::ToVm { sources, target } => copy.put(sources, &target)?,
        Route::FromVm { sources, target } => copy.get(&sources, target)?,
    };
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A copy; its methods return whether all was copied. What was not has been named then.
struct Copy<'c> {
    vm: &'c str,
    guest: Guest,
    recursive: bool,
    timeout: Duration,
}

impl Copy<'_> {
    fn put(&mut self, sources: Vec<HostEnd>, target: &str) -> Result<bool> {
        let mut names = Vec::new();
        for source in &sources {
            names.push(match source {
                HostEnd::Stream => String::new(),
                HostEnd::Path(path) => name(path)?,
            });
        }
        let paths: Vec<PathBuf> = sources.iter().filter_map(HostEnd::path).cloned().collect();
        let is_stream = paths.len() < sources.len();
        let total = match io::stderr().is_terminal() && !is_stream {
            true => Some(pack::size(&paths)),
            false => None,
        };
        let sources = sources.into_iter().map(|source| match source {
            HostEnd::Path(path) => Source::Path(path),
            HostEnd::Stream => Source::Stream(Box::new(io::stdin())),
        });
        let sources: Vec<_> = sources.collect();
        let command =
            Command::new([AGENT, "receive", target].into_iter().chain(names.iter().map(|s| &**s)));
        let what = format!("copying to {}", self.vm);
        let bar = if total.is_some() { Bar::new(&what) } else { Bar::endless(&what) };
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        let (done, packed) = mpsc::channel();
        let (recursive, shown) = (self.recursive, bar.clone());
        thread::spawn(move || {
            let mut progress = Progress { bar: shown, total, copied: 0, left_out: 0 };
            let out = BufWriter::with_capacity(BUFFER, writer);
            let result = pack::pack(sources, recursive, out, &mut progress);
            // Nobody listens if the guest has failed first.
            let _ = done.send((result, progress.left_out));
        });
        let mut nothing = io::sink();
        let received = self.run(&command, Some(reader), &mut nothing, &bar);
        // What comes from a terminal may never end: it is not waited for if the guest has failed.
        let packed = match &received {
            Ok(true) => packed.recv().ok(),
            _ => packed.recv_timeout(SOON).ok(),
        };
        bar.clear();
        match packed {
            // The guest's failure follows from this one.
            Some((Err(error @ pack::PackError::Read { .. }), _)) => Err(error.into()),
            Some((Ok(()), left_out)) => Ok(received? && left_out == 0),
            _ => received.map(|_| false),
        }
    }

    fn get(&mut self, sources: &[String], target: HostEnd) -> Result<bool> {
        let mut names = Vec::new();
        for source in sources {
            names.push(name_of(Path::new(source))?.to_owned());
        }
        let option: &[&str] = if self.recursive { &["-r"] } else { &[] };
        let words = [AGENT, "send"].into_iter().chain(option.iter().copied()).chain(["--"]);
        let command = Command::new(words.chain(sources.iter().map(|source| &**source)));
        let sink = Sink::new(target, &names)?;
        let bar = Bar::endless(&format!("copying from {}", self.vm));
        let (reader, mut writer) = io::pipe().context("cannot make a pipe")?;
        let shown = bar.clone();
        let unpacking = thread::spawn(move || {
            let mut progress = Progress { bar: shown, total: None, copied: 0, left_out: 0 };
            let input = BufReader::with_capacity(BUFFER, reader);
            let copied = &mut |bytes| progress.copied(bytes);
            match sink {
                Sink::Places(places) => unpack(input, &places, copied),
                Sink::Stdout => unpack_file(input, io::stdout(), copied),
            }
        });
        let sent = self.run(&command, None, &mut writer, &bar);
        drop(writer);
        let unpacked = unpacking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        bar.clear();
        match (sent, unpacked) {
            (Ok(is_complete), Ok(())) => Ok(is_complete),
            // The guest has said why.
            (Ok(false), Err(_)) => Ok(false),
            (Ok(true), Err(error)) => Err(error.into()),
            (Err(error), unpacked) => {
                let is_consequence = matches!(error.downcast_ref(), Some(ExecError::Output { .. }));
                match unpacked {
                    Err(unpacked) if is_consequence => Err(unpacked.into()),
                    _ => Err(error),
                }
            }
        }
    }

    /// Runs the guest's end; returns whether it did all of its work. If not, it has said why.
    fn run(
        &mut self,
        command: &Command,
        input: Option<io::PipeReader>,
        stdout: &mut dyn Write,
        bar: &Bar,
    ) -> Result<bool> {
        let vm = self.vm;
        let mut stderr = Relay { vm, bar, line: Vec::new(), said: false };
        let input = input.map(|input| Box::new(input) as Box<dyn io::Read + Send>);
        let streams = Streams { input, sizes: None, begin: None, stdout, stderr: &mut stderr };
        let status = self.guest.stream(command, streams, self.timeout);
        stderr.end_line();
        match status {
            Ok(Status::Code(0)) => Ok(true),
            Ok(_) if stderr.said => Ok(false),
            Ok(status) => bail!("VM {vm}: the program that copies ended with {status}"),
            Err(ExecError::Timeout { limit, .. }) => bail!(
                "VM {vm}: the guest did not answer within {limit:?}; see `vhost-famfs logs {vm}` \
                 for what it does"
            ),
            Err(error @ ExecError::Output { .. }) => Err(error.into()),
            Err(error) => Err(anyhow!(error).context(format!("VM {vm}"))),
        }
    }
}

/// The name that a source of the host gets in the guest.
fn name(path: &Path) -> Result<String> {
    let name = match name_of(path) {
        Ok(name) => name.to_owned(),
        // Such as `..`: the directory's own name.
        Err(_) => {
            let whole = fs::canonicalize(path).with_context(|| path.display().to_string())?;
            name_of(&whole)?.to_owned()
        }
    };
    name.into_string().map_err(|name| {
        anyhow!("the name {} is not UTF-8; copy the directory that it is in", name.display())
    })
}

/// Where the host puts what it gets.
enum Sink {
    Places(Vec<Place>),
    Stdout,
}

impl Sink {
    fn new(target: HostEnd, names: &[OsString]) -> Result<Self> {
        Ok(match target {
            HostEnd::Path(path) => Self::Places(places(&path, names)?),
            HostEnd::Stream => Self::Stdout,
        })
    }
}

/// Shows how a copy proceeds.
struct Progress {
    bar: Bar,
    total: Option<u64>,
    copied: u64,
    left_out: u64,
}

impl Watcher for Progress {
    fn copied(&mut self, bytes: u64) {
        self.copied += bytes;
        match self.total {
            Some(total) => self.bar.show(self.copied, total),
            None => self.bar.count(self.copied),
        }
    }

    fn left_out(&mut self, what: String) {
        self.left_out += 1;
        self.bar.suspend(|| notice(what));
    }
}

/// Passes on what the guest's program says, line by line.
struct Relay<'r> {
    vm: &'r str,
    bar: &'r Bar,
    line: Vec<u8>,
    said: bool,
}

impl Relay<'_> {
    fn end_line(&mut self) {
        if !self.line.is_empty() {
            let line = String::from_utf8_lossy(&self.line);
            self.bar.suspend(|| notice(format_args!("VM {}: {line}", self.vm)));
            self.line.clear();
            self.said = true;
        }
    }
}

impl Write for Relay<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if byte == b'\n' || self.line.len() == MAX_LINE {
                self.end_line();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
