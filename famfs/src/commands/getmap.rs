// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs getmap`

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use famfs::args::Getmap;
use famfs::map::FileMap;
use famfs::sys::ioctl;
use rustix::io::Errno;
use serde::Serialize;

use super::ls::MapItem;
use crate::output::{FAILED, Failure, OK, OrExit, Outcome, print_json, say};

/// Exit codes of the reference.
const NO_MAP: u8 = 2;
const NOT_FOUND: u8 = 9;
const NOT_REGULAR: u8 = 21;

#[derive(Serialize)]
struct Maps {
    version: u32,
    files: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    path: String,
    size: u64,
    map: MapItem,
}

pub fn run(args: &Getmap) -> Outcome {
    let mut files = Vec::new();
    for path in &args.files {
        let (size, map) = match get(path) {
            Ok(found) => found,
            Err(failure) if args.quiet => return Ok(failure.code),
            Err(failure) => return Err(failure),
        };
        if args.json {
            files.push(Item { path: path.display().to_string(), size, map: (&map).into() });
        } else if !args.quiet {
            print(path, size, &map)?;
        }
    }
    if args.json {
        print_json(&Maps { version: 1, files })?;
    }
    Ok(OK)
}

fn get(path: &Path) -> Result<(u64, FileMap), Failure> {
    let name = path.display();
    let file = File::open(path).map_err(|err| {
        let code = if err.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { FAILED };
        Failure { code, error: anyhow::Error::from(err).context(format!("cannot open {name}")) }
    })?;
    if !file.metadata().with_context(|| format!("cannot look at {name}"))?.is_file() {
        return Err(anyhow!("{name} is no regular file")).or_exit(NOT_REGULAR);
    }
    ioctl::map_get(&file).map_err(|err| match err {
        Errno::NODATA => {
            let error = anyhow!("{name} has no map: it was not made by famfs tools");
            Failure { code: NO_MAP, error }
        }
        Errno::NOTTY => anyhow!("{name} is not on a famfs").into(),
        err => anyhow::Error::from(err).context(format!("cannot ask for the map of {name}")).into(),
    })
}

fn print(path: &Path, size: u64, map: &FileMap) -> Result<()> {
    say!("{}: {size} bytes", path.display())?;
    print_map(map)
}

/// Prints where a file's bytes are, a line for each extent.
pub(super) fn print_map(map: &FileMap) -> Result<()> {
    let what = match map {
        FileMap::Simple(_) => "extent",
        FileMap::Interleaved { chunk_size, .. } => {
            say!("  interleaved, chunks of {chunk_size} bytes")?;
            "strip"
        }
    };
    for (index, extent) in map.extents().iter().enumerate() {
        say!("  {what} {index}: offset {:#x}, length {:#x}", extent.offset, extent.len)?;
    }
    Ok(())
}
