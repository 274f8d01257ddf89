// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs cat`

use std::path::Path;

use anyhow::{Context, Result};
use famfs::sys::dax::Access;
use famfs::write::volume::{COPY_STEP, steps};
use famfs_cli::args::Cat;

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
    let plan = place.plan()?;
    let file = place.file(&plan)?;
    let bytes = file.open(&*place.volume)?;
    let mut buf = vec![0; COPY_STEP];
    for (offset, len) in steps(file.size) {
        bytes
            .read(offset, &mut buf[..len])
            .with_context(|| format!("cannot read \"{}\"", file.path))?;
        if !bytes_to_stdout(&buf[..len])? {
            return Ok(false);
        }
    }
    Ok(true)
}
