// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs takeover`

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use famfs::store::identity::Identity;
use famfs::store::lease::{Keeper, LeaseError, Timing};
use famfs::store::role;
use famfs::store::superblock::Superblock;
use famfs::store::takeover::takeover;
use famfs::sys::dax::Access;
use famfs_cli::args;
use serde::Serialize;
use uuid::Uuid;

use crate::output::{FAILED, Failure, OK, Outcome, confirmed, notice, print_json, say};
use crate::place::Place;

/// The current master is alive.
const ALIVE: u8 = 3;

#[derive(Serialize)]
struct TakeoverReport {
    version: u32,
    former: Uuid,
    master: Uuid,
}

pub fn run(pool: Option<&Path>, args: &args::Takeover) -> Outcome {
    let place = Place::open(pool, args.path.as_deref(), Access::Write)?;
    let media = place.volume.lease_media()?;
    let superblock = Superblock::read(&*media)?;
    let here = match pool {
        Some(_) => role::known_system_uuid()?,
        None => Some(role::system_uuid()?),
    };
    let master = args
        .system_uuid
        .or(here)
        .context("this system has no UUID of its own: name the new master with --system-uuid")?;
    let former = superblock.system_uuid;
    let question = format!("system {former} is the master, and system {master} becomes it");
    if !args.yes && former != master && !confirmed(&question, "--yes")? {
        return Err(anyhow!("not confirmed; nothing was changed").into());
    }
    let me = Identity::this(here.unwrap_or_default())?;
    let lease = place.volume.lease_media()?;
    // A living master is an answer, not to be waited for.
    let timing = Timing { patience: Duration::ZERO, ..Timing::default() };
    let _lease = Keeper::acquire(lease, superblock.fs_uuid, me, args.force, timing, |holder| {
        notice!("checking whether the current master is alive: {holder}")
    })
    .map_err(|err| {
        let code = if matches!(err, LeaseError::Held { .. }) { ALIVE } else { FAILED };
        Failure { code, error: err.into() }
    })?;
    takeover(&*media, master)?;
    print_report(args, &TakeoverReport { version: 1, former, master })?;
    Ok(OK)
}

fn print_report(args: &args::Takeover, report: &TakeoverReport) -> Result<()> {
    let TakeoverReport { former, master, .. } = report;
    if args.json {
        print_json(report)
    } else if former == master {
        say!("the master is system {master}, as before")
    } else {
        say!("the master is system {master}; it was {former}")
    }
}
