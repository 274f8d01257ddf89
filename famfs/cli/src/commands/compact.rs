// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs compact`

use std::path::Path;

use anyhow::{Context, Result, bail};
use famfs::replay::compact::{Compacted, compact};
use famfs::sys::dax::Access;
use famfs::system::holders;
use famfs_cli::args::Compact;
use serde::Serialize;

use crate::output::{OK, Outcome, human, print_json, say};
use crate::place::Place;

#[derive(Serialize)]
struct CompactReport {
    version: u32,
    dry_run: bool,
    deletions: u64,
    bytes: u64,
    page_bytes: u64,
    slots: u64,
    voids: u64,
}

pub fn run(pool: Option<&Path>, args: &Compact) -> Outcome {
    let pool = pool.context(
        "compact needs --pool FILE: only the host can see whether anybody uses the pool",
    )?;
    let access = if args.dry_run { Access::Read } else { Access::Write };
    // The pool's lock keeps out the back-ends of virtual machines and other commands.
    let place = Place::open_alone(pool, access)?;
    let _lease = if args.dry_run { None } else { place.lease()? };
    if !args.dry_run {
        refuse_held(pool)?;
    }
    let compacted = compact(place.volume.media(), args.dry_run)?;
    let Compacted { deletions, bytes, page_bytes, slots, voids } = compacted;
    if args.json {
        let dry_run = args.dry_run;
        print_json(&CompactReport {
            version: 1,
            dry_run,
            deletions,
            bytes,
            page_bytes,
            slots,
            voids,
        })?;
        return Ok(OK);
    }
    let verb = if args.dry_run { "would free" } else { "freed" };
    say!(
        "{verb} {} of {deletions} deleted files and directories, {slots} log slots",
        human(bytes + page_bytes)
    )?;
    if voids > 0 {
        say!("{voids} void log entries stay, because this log is too long to move the others")?;
    }
    Ok(OK)
}

/// Refuses a pool that other processes have open or mapped, even without a lock.
fn refuse_held(pool: &Path) -> Result<()> {
    let holders =
        holders::of(pool).with_context(|| format!("cannot examine {}", pool.display()))?;
    if holders.is_empty() {
        return Ok(());
    }
    let holders: Vec<String> = holders.iter().map(ToString::to_string).collect();
    bail!(
        "pool {} is held by {}, which may still have deleted files mapped: stop the virtual \
         machines first",
        pool.display(),
        holders.join(", ")
    )
}
