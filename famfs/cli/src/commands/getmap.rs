// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs getmap`

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use famfs::replay::tree::list::Listed;
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::tree::resolve::LastLink;
use famfs::sys::dax::Access;
use famfs::sys::ioctl;
use famfs::text::json_name::Name;
use famfs_cli::args::Getmap;
use rustix::io::Errno;
use serde::Serialize;

use super::map_item::{ExtentItem, MapItem};
use super::rows::map_item;
use crate::output::{FAILED, Failure, OK, OrExit, Outcome, notice, print_json, say};
use crate::place::Place;

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
    #[serde(flatten)]
    path: Name,
    size: u64,
    map: MapItem,
}

pub fn run(pool: Option<&Path>, args: &Getmap) -> Outcome {
    let mut files = Vec::new();
    let mut code = OK;
    for path in &args.files {
        let found = match pool {
            Some(pool) => get_offline(pool, path),
            None => get(path),
        };
        let (size, map) = match found {
            Ok(found) => found,
            Err(failure) => {
                code = failure.code;
                match (args.go_on, args.quiet) {
                    (false, false) => return Err(failure),
                    (true, false) => notice!("{:#}", failure.error),
                    (_, true) => {}
                }
                if args.go_on {
                    continue;
                }
                return Ok(code);
            }
        };
        if args.json {
            files.push(Item { path: Name::of_path("path", path), size, map });
        } else if !args.quiet {
            print(path, size, &map)?;
        }
    }
    if args.json {
        print_json(&Maps { version: 1, files })?;
    }
    Ok(code)
}

/// Size and map of a file of a pool, from the log.
fn get_offline(pool: &Path, path: &Path) -> Result<(u64, MapItem), Failure> {
    let place = Place::open(Some(pool), Some(path), Access::Read)?;
    let plan = place.plan()?;
    let Some(path) = place.resolve(&plan, LastLink::Follow)? else {
        return Err(anyhow!("the path names the root of the file system")).or_exit(NOT_REGULAR);
    };
    let Some(Listed { object, .. }) = plan.tree().get(&path) else {
        return Err(anyhow!("\"{path}\" does not exist")).or_exit(NOT_FOUND);
    };
    match &object.kind {
        ObjectKind::File { size, bytes } => Ok((*size, map_item(plan.tree(), bytes, *size))),
        _ => Err(anyhow!("\"{path}\" is a {}", object.kind_name())).or_exit(NOT_REGULAR),
    }
}

fn get(path: &Path) -> Result<(u64, MapItem), Failure> {
    let name = path.display();
    let file = File::open(path).map_err(|err| {
        let code = if err.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { FAILED };
        Failure { code, error: anyhow::Error::from(err).context(format!("cannot open {name}")) }
    })?;
    if !file.metadata().with_context(|| format!("cannot examine {name}"))?.is_file() {
        return Err(anyhow!("{name} is not a regular file")).or_exit(NOT_REGULAR);
    }
    let got = ioctl::map_get(&file).map(|(size, map)| (size, (&map).into()));
    got.map_err(|err| match err {
        Errno::NODATA => {
            let error = anyhow!("{name} has no map: the famfs tools did not make it");
            Failure { code: NO_MAP, error }
        }
        Errno::NOTTY => anyhow!("{name} is not on a famfs").into(),
        err => anyhow::Error::from(err).context(format!("cannot get the map of {name}")).into(),
    })
}

fn print(path: &Path, size: u64, map: &MapItem) -> Result<()> {
    say!("{}: {size} bytes", path.display())?;
    print_map(map)
}

/// Prints where a file's bytes are, a line for each extent.
pub(super) fn print_map(map: &MapItem) -> Result<()> {
    let what = if map.chunk_size.is_some() { "strip" } else { "extent" };
    if let Some(chunk_size) = map.chunk_size {
        say!("  interleaved, chunks of {chunk_size} bytes")?;
    }
    for (index, ExtentItem { at, offset, len }) in map.extents.iter().enumerate() {
        match at {
            Some(at) => say!("  byte {at:#x}: offset {offset:#x}, length {len:#x}")?,
            None => say!("  {what} {index}: offset {offset:#x}, length {len:#x}")?,
        }
    }
    Ok(())
}
