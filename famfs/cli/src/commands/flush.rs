// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs flush`

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use famfs::kernel::mapped::MappedFile;
use famfs::sys::dax::Access;
use famfs::sys::ioctl;
use famfs::text::json_name::Name;
use famfs::text::terminal::escape_name;
use famfs::write::volume::{FileBytes, steps};
use famfs_cli::args::Flush;
use serde::Serialize;

use crate::output::{FAILED, OK, Outcome, notice, print_json, say};

#[derive(Serialize)]
struct FlushReport {
    version: u32,
    dry_run: bool,
    files: Vec<Flushed>,
    failed: u64,
}

#[derive(Serialize)]
struct Flushed {
    #[serde(flatten)]
    path: Name,
    bytes: u64,
}

pub fn run(args: &Flush) -> Outcome {
    let mut report =
        FlushReport { version: 1, dry_run: args.dry_run, files: Vec::new(), failed: 0 };
    for path in &args.files {
        let name = escape_name(path.as_os_str().as_bytes());
        match flush(path, args.dry_run).with_context(|| format!("cannot flush {name}")) {
            Ok(bytes) => {
                if !args.json && (args.verbose || args.dry_run) {
                    let verb = if args.dry_run { "would flush" } else { "flushed" };
                    say!("{verb} {name}: {bytes} bytes")?;
                }
                report.files.push(Flushed { path: Name::of_path("path", path), bytes });
            }
            Err(err) => {
                notice!("{err:#}");
                report.failed += 1;
            }
        }
    }
    if args.json {
        print_json(&report)?;
    }
    Ok(if report.failed == 0 { OK } else { FAILED })
}

/// Writes a file's cache lines back and drops them; returns the file's size.
fn flush(path: &Path, dry_run: bool) -> Result<u64> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        bail!("expected a regular file");
    }
    let (size, _) = ioctl::map_get(&file).map_err(io::Error::from).context("not a famfs file")?;
    if dry_run {
        return Ok(size);
    }
    let mapped = MappedFile::new(&file, size, Access::Read)?;
    for (offset, len) in steps(size) {
        mapped.write_back(offset, len)?;
        mapped.refresh(offset, len)?;
    }
    Ok(size)
}
