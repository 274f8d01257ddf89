// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs verify`

use std::path::Path;

use anyhow::{Context, Result};
use famfs::args::Verify;
use famfs::path::RelPath;
use famfs::prng::SeededBytes;
use famfs::replay::Plan;
use famfs::sys::dax::Access;
use famfs::volume::{COPY_STEP, Volume, steps};

use super::file_of;
use crate::output::{FAILED, OK, Outcome, notice, say};
use crate::place::Place;

pub fn run(pool: Option<&Path>, args: &Verify) -> Outcome {
    let place = Place::open(pool, Some(&args.path), Access::Read)?;
    let path = place.file_path()?;
    let difference = first_difference(&*place.volume, &place.plan()?, path, args.seed)?;
    if let Some(offset) = difference {
        if !args.quiet {
            notice!("\"{path}\" differs from seed {} at offset {offset}", args.seed);
        }
        return Ok(FAILED);
    }
    if !args.quiet {
        say!("{path}: equal to seed {}", args.seed)?;
    }
    Ok(OK)
}

/// Offset of the first byte that the seed would not have given.
fn first_difference(
    volume: &dyn Volume,
    plan: &Plan,
    path: &RelPath,
    seed: u32,
) -> Result<Option<u64>> {
    let (size, map) = file_of(plan, path)?;
    let bytes = volume
        .open_file(path, size, map, Access::Read)
        .with_context(|| format!("cannot open \"{path}\""))?;
    let mut stream = SeededBytes::new(seed);
    let (mut found, mut expected) = (vec![0; COPY_STEP], vec![0; COPY_STEP]);
    for (offset, len) in steps(size) {
        let (found, expected) = (&mut found[..len], &mut expected[..len]);
        bytes.read(offset, found).with_context(|| format!("cannot read \"{path}\""))?;
        stream.fill(expected);
        if let Some(at) = found.iter().zip(&*expected).position(|(a, b)| a != b) {
            return Ok(Some(offset + at as u64));
        }
    }
    Ok(None)
}
