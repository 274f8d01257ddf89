// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs cat`

use std::path::Path;

use anyhow::{Context, Result};
use famfs::format::map::Memory;
use famfs::sys::dax::Access;
use famfs::write::volume::{COPY_STEP, steps};
use famfs_cli::args::Cat;

use super::file_of;
use crate::output::{FAILED, OK, Outcome, bytes_to_stdout, notice};
use crate::place::Place;

pub fn run(pool: Option<&Path>, args: &Cat) -> Outcome {
    let mut code = OK;
    for path in &args.files {
        match print(pool, path) {
            Ok(true) => {}
            // The reader has closed its end.
            Ok(false) => break,
            Err(err) => {
                notice!("{err:#}");
                code = FAILED;
            }
        }
    }
    Ok(code)
}

/// Writes a file to standard output; false if its reader has closed it.
fn print(pool: Option<&Path>, path: &Path) -> Result<bool> {
    let place = Place::open(pool, Some(path), Access::Read)?;
    let path = place.file_path()?;
    let plan = place.plan()?;
    let (size, map) = file_of(&plan, path)?;
    let bytes = place
        .volume
        .open_file(path, size, &Memory::Map(map.clone()), Access::Read)
        .with_context(|| format!("cannot open \"{path}\""))?;
    let mut buf = vec![0; COPY_STEP];
    for (offset, len) in steps(size) {
        bytes.read(offset, &mut buf[..len]).with_context(|| format!("cannot read \"{path}\""))?;
        if !bytes_to_stdout(&buf[..len])? {
            return Ok(false);
        }
    }
    Ok(true)
}
