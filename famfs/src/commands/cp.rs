// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs cp`

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use famfs::args::Cp;
use famfs::copy::{self, Copy, CopyError, Destination, Done, Options, Unsupported};
use famfs::replay::{NodeKind, Plan};
use famfs::sys::dax::Access;
use serde::Serialize;

use crate::output::{FAILED, INTERRUPTED, OK, OrExit, Outcome, human, print_json, progress_bar};
use crate::output::{say, stop_flag, stopped};
use crate::place::{Place, masked};

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    files: u64,
    overwritten: u64,
    directories: u64,
    bytes: u64,
    seconds: f64,
    skipped: Vec<Skipped<'a>>,
}

#[derive(Serialize)]
struct Skipped<'a> {
    path: String,
    reason: &'a str,
}

pub fn run(pool: Option<&Path>, args: &Cp) -> Outcome {
    let Some((target, sources)) = args.paths.split_last() else { return Ok(OK) };
    let stop = stop_flag()?;
    let start = Instant::now();
    let place = Place::open(pool, Some(target), Access::Write)?;
    let mut writer = place.writer()?;
    let destination = destination(&place, writer.plan(), target, sources)?;
    let options = Options {
        recursive: args.recursive,
        skip_unsupported: args.skip_unsupported,
        mode: args.owner.mode.map(masked),
        uid: args.owner.uid,
        gid: args.owner.gid,
    };
    let scan = copy::scan(sources, &destination, &options)?;
    let skipped = scan.unsupported.clone();
    let copy = Copy::prepare(scan, &mut writer)?;
    let bar = progress_bar(copy.bytes);
    let result = copy.run(&*place.volume, &mut writer, |bytes| {
        bar.inc(bytes);
        !stopped(&stop)
    });
    bar.finish_and_clear();
    let code = if matches!(result, Err(CopyError::Interrupted)) { INTERRUPTED } else { FAILED };
    let done = result.or_exit(code)?;
    report(args, done, &skipped, start.elapsed().as_secs_f64())?;
    Ok(OK)
}

/// What the last argument means: a directory to copy into, or a new name for the only source.
fn destination(
    place: &Place,
    plan: &Plan,
    target: &Path,
    sources: &[PathBuf],
) -> Result<Destination> {
    let Some(path) = &place.path else { return Ok(Destination::Into(None)) };
    match plan.get(path).map(|node| &node.kind) {
        Some(NodeKind::Dir) => Ok(Destination::Into(Some(path.clone()))),
        _ if sources.len() > 1 => {
            bail!("\"{path}\" is no directory, expected one for more than one source")
        }
        _ if target.as_os_str().as_bytes().ends_with(b"/") => {
            bail!("\"{path}\" is no directory; make it with `famfs mkdir`")
        }
        _ => Ok(Destination::As(path.clone())),
    }
}

fn report(args: &Cp, done: Done, skipped: &[Unsupported], seconds: f64) -> Result<()> {
    let Done { files, overwritten, directories, bytes } = done;
    if args.json {
        let skipped = skipped
            .iter()
            .map(|item| Skipped { path: item.source.display().to_string(), reason: &item.reason })
            .collect();
        return print_json(&Report {
            version: 1,
            files,
            overwritten,
            directories,
            bytes,
            seconds,
            skipped,
        });
    }
    for item in skipped {
        say!("skipped {}: {}", item.source.display(), item.reason)?;
    }
    if args.verbose || !skipped.is_empty() {
        say!(
            "{files} files, {directories} directories, {overwritten} overwritten, {} skipped, {}",
            skipped.len(),
            human(bytes)
        )?;
    }
    Ok(())
}
