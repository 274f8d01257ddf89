// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs creat`

use std::path::Path;

use anyhow::{Context, Result, bail};
use famfs::args::Creat;
use famfs::prng::SeededBytes;
use famfs::replay::{Node, NodeKind};
use famfs::sys::dax::Access;
use famfs::volume::{COPY_STEP, FileBytes, Volume, steps};
use uuid::Uuid;

use crate::output::{INTERRUPTED, OK, OrExit, Outcome, progress_bar, say, stop_flag, stopped};
use crate::place::{Place, masked, owner};

const DEFAULT_MODE: u32 = 0o644;

pub fn run(pool: Option<&Path>, args: &Creat) -> Outcome {
    let stop = stop_flag()?;
    let place = Place::open(pool, Some(&args.path), Access::Write)?;
    let path = place.file_path()?;
    let mut writer = place.writer(false)?;
    let seed = seed(args);
    let mut interrupted = false;
    let mut fill = |bytes: &dyn FileBytes| {
        let bar = progress_bar(args.size);
        let filled = write(bytes, args.size, seed, |len| {
            bar.inc(len);
            interrupted = stopped(&stop);
            !interrupted
        });
        bar.finish_and_clear();
        filled
    };
    let result = match writer.plan().get(path) {
        Some(existing) => refill(&*place.volume, existing, args, seed, fill),
        None if args.size == 0 => Err(anyhow::anyhow!("size is 0, expected at least 1")),
        None => (|| {
            let mode = args.owner.mode.map_or(DEFAULT_MODE, masked);
            let owner = owner(args.owner.uid, args.owner.gid, mode);
            let map = writer.allocate(path, args.size)?;
            writer.create(path, owner, args.size, map, |bytes| {
                fill(bytes).with_context(|| format!("\"{path}\" was not made"))
            })?;
            Ok(writer.commit()?)
        })(),
    };
    let code = if interrupted { INTERRUPTED } else { crate::output::FAILED };
    result.or_exit(code)?;
    if args.verbose {
        match seed {
            Some(seed) => say!("{path}: {} bytes of seed {seed}", args.size)?,
            None => say!("{path}: {} bytes", args.size)?,
        }
    }
    Ok(OK)
}

/// The seed to fill with; zero asks for a random one, as with the reference.
fn seed(args: &Creat) -> Option<u32> {
    match args.seed {
        Some(0) => Some(random_seed()),
        Some(seed) => Some(seed),
        None => args.randomize.then(random_seed),
    }
}

fn random_seed() -> u32 {
    Uuid::new_v4().as_fields().0
}

/// Leaves a file of the right size as it is, or fills it again.
fn refill(
    volume: &dyn Volume,
    existing: &Node,
    args: &Creat,
    seed: Option<u32>,
    mut fill: impl FnMut(&dyn FileBytes) -> Result<()>,
) -> Result<()> {
    let path = &existing.path;
    match &existing.kind {
        NodeKind::Dir => bail!("\"{path}\" is a directory"),
        NodeKind::File { size, .. } if *size != args.size => {
            bail!("\"{path}\" exists with {size} bytes, not {}", args.size)
        }
        NodeKind::File { .. } if seed.is_none() => Ok(()),
        NodeKind::File { size, map } => {
            let bytes = volume
                .open_file(path, *size, map, Access::Write)
                .with_context(|| format!("cannot open \"{path}\""))?;
            fill(&*bytes).with_context(|| format!("\"{path}\" is filled only in part"))?;
            bytes
                .finish()
                .and_then(|()| volume.sync())
                .with_context(|| format!("cannot write back \"{path}\""))
        }
    }
}

fn write(
    bytes: &dyn FileBytes,
    size: u64,
    seed: Option<u32>,
    mut go_on: impl FnMut(u64) -> bool,
) -> Result<()> {
    let mut stream = seed.map(SeededBytes::new);
    let mut buf = vec![0; COPY_STEP];
    for (offset, len) in steps(size) {
        let buf = &mut buf[..len];
        if let Some(stream) = &mut stream {
            stream.fill(buf);
        }
        bytes.write(offset, buf).with_context(|| format!("cannot write at offset {offset}"))?;
        if !go_on(len as u64) {
            bail!("interrupted");
        }
    }
    Ok(())
}
