// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs upgrade`

use std::path::Path;

use famfs::replay::upgrade::{Upgrade as Todo, check, mark};
use famfs::store::superblock::Superblock;
use famfs::sys::dax::Access;
use famfs_cli::args::Upgrade;
use serde::Serialize;
use uuid::Uuid;

use crate::output::{OK, Outcome, print_json, say};
use crate::place::Place;

#[derive(Serialize)]
struct UpgradeReport {
    version: u32,
    dry_run: bool,
    fs_uuid: Uuid,
    /// Whether this run turned extensions on or restored their mark, or would.
    upgraded: bool,
}

pub fn run(pool: Option<&Path>, args: &Upgrade) -> Outcome {
    let dry_run = args.dry_run;
    let access = if dry_run { Access::Read } else { Access::Write };
    let place = Place::open(pool, args.path.as_deref(), access)?;
    // Before the log is read, so that nobody adds to it afterwards.
    let lease = if dry_run { None } else { Some(place.masters_lease()?) };
    let media = place.volume.media();
    let todo = check(media)?;
    let upgraded = todo != Todo::None;
    if upgraded && let Some(lease) = lease {
        lease.check()?;
        mark(&*place.volume.lease_media()?)?;
    }
    let fs_uuid = Superblock::read(media)?.fs_uuid;
    if args.json {
        print_json(&UpgradeReport { version: 1, dry_run, fs_uuid, upgraded })?;
        return Ok(OK);
    }
    match (todo, dry_run) {
        (Todo::None, _) => say!("famfs {fs_uuid} has extensions already")?,
        (Todo::TurnOn, true) => say!("famfs {fs_uuid}: would turn extensions on")?,
        (Todo::TurnOn, false) => say!("famfs {fs_uuid}: extensions are on")?,
        (Todo::Restore, true) => {
            say!("famfs {fs_uuid}: would restore the mark of extensions, which was lost")?;
        }
        (Todo::Restore, false) => say!("famfs {fs_uuid}: the mark of extensions is restored")?,
    }
    Ok(OK)
}
