// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs df`

use std::path::Path;

use famfs::replay::Contents;
use famfs::replay::fsck;
use famfs::sys::dax::Access;
use famfs_cli::args::Df;
use serde::Serialize;

use crate::output::{FAILED, OK, Outcome, human, notice, print_json, to_stdout};
use crate::place::Place;

/// The space of a file system; sizes in bytes.
#[derive(Serialize)]
struct Space {
    version: u32,
    capacity: u64,
    used: u64,
    free: u64,
    largest_free: u64,
    deleted: u64,
    file_bytes: u64,
    log_slots: u64,
    log_slots_used: u64,
}

pub fn run(pool: Option<&Path>, args: &Df) -> Outcome {
    let place = Place::open(pool, args.path.as_deref(), Access::Read)?;
    let media = place.volume.media();
    let contents = Contents::read(media)?;
    let report = fsck::check(media, &contents);
    for problem in &report.problems {
        notice!("{problem}");
    }
    // A new file also gets free pages of units that others share.
    let pages = contents.plan.tree().store_use().free;
    let used = report.space.used.saturating_sub(pages);
    let deleted = (report.space.deleted + contents.plan.tree().reusable_pages()).min(used);
    let space = Space {
        version: 1,
        capacity: report.space.capacity,
        used: used - deleted,
        free: report.space.free + pages,
        largest_free: report.space.largest_free,
        deleted,
        file_bytes: report.file_bytes,
        log_slots: report.log.slots,
        log_slots_used: report.log.entries,
    };
    if args.json {
        print_json(&space)?;
    } else {
        print(args, &space)?;
    }
    Ok(if report.problems.is_empty() { OK } else { FAILED })
}

fn print(args: &Df, space: &Space) -> anyhow::Result<()> {
    let size = |bytes: u64| if args.human { human(bytes) } else { bytes.to_string() };
    to_stdout(|out| {
        for (name, bytes) in [
            ("capacity", space.capacity),
            ("used", space.used),
            ("free", space.free),
            ("largest free piece", space.largest_free),
            ("bytes of files", space.file_bytes),
        ] {
            writeln!(out, "{name:<18} {:>14}", size(bytes))?;
        }
        if space.deleted > 0 {
            writeln!(out, "{:<18} {:>14}", "being released", size(space.deleted))?;
        }
        writeln!(
            out,
            "{:<18} {:>14} of {}",
            "log slots used", space.log_slots_used, space.log_slots
        )
    })
}
