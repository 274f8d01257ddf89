// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs verify`

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};
use famfs::sys::dax::Access;
use famfs::text::json_name::Name;
use famfs::text::terminal::escape_name;
use famfs::write::prng::SeededBytes;
use famfs::write::volume::{COPY_STEP, steps};
use famfs_cli::args::Verify;
use serde::Serialize;

use crate::output::{FAILED, OK, Outcome, notice, print_json, say};
use crate::place::Place;

/// Highest default number of threads.
const THREADS: usize = 8;

#[derive(Serialize)]
struct VerifyReport {
    version: u32,
    failed: usize,
    files: Vec<Verified>,
}

#[derive(Serialize)]
struct Verified {
    #[serde(flatten)]
    path: Name,
    seed: u32,
    equal: bool,
    /// Offset of the first byte that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<u64>,
    /// Why the file could not be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub fn run(pool: Option<&Path>, args: &Verify) -> Outcome {
    let single = args.path.iter().cloned().zip(args.seed);
    let wanted: Vec<(PathBuf, u32)> = single.chain(args.multi.iter().cloned()).collect();
    let files = verify_all(pool, &wanted, args.threads.into());
    let failed = files.iter().filter(|file| !file.equal).count();
    for file in files.iter().filter(|_| !args.quiet) {
        let Verified { path, seed, .. } = file;
        let path = escape_name(path.as_bytes());
        match (&file.error, file.difference) {
            (Some(error), _) => notice!("{error}"),
            (None, Some(offset)) => {
                notice!("\"{path}\" differs from seed {seed} at offset {offset}")
            }
            (None, None) if args.json => {}
            (None, None) => say!("{path}: equal to seed {seed}")?,
        }
    }
    if args.json {
        print_json(&VerifyReport { version: 1, failed, files })?;
    }
    Ok(if failed == 0 { OK } else { FAILED })
}

/// Compares files on several threads; the results are in the order of the files.
fn verify_all(pool: Option<&Path>, wanted: &[(PathBuf, u32)], threads: usize) -> Vec<Verified> {
    let threads = match threads {
        0 => thread::available_parallelism().map_or(1, NonZero::get).min(THREADS),
        threads => threads,
    };
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..threads.min(wanted.len()) {
            scope.spawn(|| {
                while let Some((index, (path, seed))) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    wanted.get(index).map(|file| (index, file))
                } {
                    let result = verify(pool, path, *seed);
                    results.lock().unwrap_or_else(|err| err.into_inner()).push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(|err| err.into_inner());
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

fn verify(pool: Option<&Path>, path: &Path, seed: u32) -> Verified {
    let (name, compared) = match Place::open(pool, Some(path), Access::Read) {
        Ok(place) => {
            let name = place.path.as_ref().map(|path| Name::new("path", path.as_bytes()));
            (name, first_difference(&place, seed))
        }
        Err(error) => (None, Err(error)),
    };
    let path = name.unwrap_or_else(|| Name::of_path("path", path));
    match compared {
        Ok(difference) => {
            Verified { path, seed, equal: difference.is_none(), difference, error: None }
        }
        Err(error) => {
            let error = Some(format!("{error:#}"));
            Verified { path, seed, equal: false, difference: None, error }
        }
    }
}

/// Offset of the first byte that differs from the data of the seed.
fn first_difference(place: &Place, seed: u32) -> Result<Option<u64>> {
    let plan = place.plan()?;
    let file = place.file(&plan)?;
    let bytes = file.open(&*place.volume)?;
    let mut stream = SeededBytes::new(seed);
    let (mut found, mut expected) = (vec![0; COPY_STEP], vec![0; COPY_STEP]);
    for (offset, len) in steps(file.size) {
        let (found, expected) = (&mut found[..len], &mut expected[..len]);
        bytes
            .refresh(offset, len)
            .and_then(|()| bytes.read(offset, found))
            .with_context(|| format!("cannot read \"{}\"", file.path))?;
        stream.fill(expected);
        if let Some(at) = found.iter().zip(&*expected).position(|(a, b)| a != b) {
            return Ok(Some(offset + at as u64));
        }
    }
    Ok(None)
}
