// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's end of `vhost-famfs cp`: commands that the host runs as it runs others. Their
//! standard error is for people.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use transfer::pack::{self, Source, Watcher};
use transfer::place::places;
use transfer::unpack::unpack;

/// As much as is read or written at once.
const BUFFER: usize = 128 * 1024;

/// Counts what was not copied.
struct Complaints(u64);

impl Watcher for Complaints {
    fn copied(&mut self, _bytes: u64) {}

    fn left_out(&mut self, what: String) {
        eprintln!("{what}");
        self.0 += 1;
    }
}

/// Writes what is at these paths to standard output.
pub fn send(recursive: bool, paths: &[&str]) -> Result<ExitCode> {
    let sources = paths.iter().map(|path| Source::Path(PathBuf::from(path))).collect();
    let out = BufWriter::with_capacity(BUFFER, file(io::stdout())?);
    let mut complaints = Complaints(0);
    let sent = pack::pack(sources, recursive, out, &mut complaints);
    Ok(code(sent.map_err(Into::into), complaints.0 == 0))
}

/// Makes what comes on standard input, in a directory or under a new name.
pub fn receive(target: &str, names: &[&str]) -> Result<ExitCode> {
    let names: Vec<_> = names.iter().map(OsString::from).collect();
    let input = BufReader::with_capacity(BUFFER, file(io::stdin())?);
    let received = places(Path::new(target), &names)
        .map_err(anyhow::Error::from)
        .and_then(|places| Ok(unpack(input, &places, &mut |_| ())?));
    Ok(code(received, true))
}

/// A standard stream without the library's buffer, which is one of lines.
fn file(stream: impl AsFd) -> Result<File> {
    let owned = stream.as_fd().try_clone_to_owned();
    owned.map(File::from).context("cannot use a standard stream")
}

fn code(result: Result<()>, is_complete: bool) -> ExitCode {
    if let Err(error) = &result {
        eprintln!("{error:#}");
    }
    if result.is_ok() && is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
