// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs role`

use std::path::Path;

use anyhow::Result;
use famfs::store::identity::{Identity, RunningSystem};
use famfs::store::lease::{self, Timing};
use famfs::store::role::{self, Role};
use famfs::store::superblock::Superblock;
use famfs::sys::dax::Access;
use famfs::text::error_report::one_line;
use famfs_cli::args;
use serde::Serialize;
use uuid::Uuid;

use crate::output::{OK, Outcome, notice, print_json, say};
use crate::place::Place;

#[derive(Serialize)]
struct RoleReport {
    version: u32,
    /// This system's UUID.
    system: Option<Uuid>,
    /// This machine's UUID.
    machine: Option<Uuid>,
    /// UUID of the master.
    master: Uuid,
    role: &'static str,
    lease: Lease,
}

/// The lease; `state` is "none", "free", "ours", "alive" or "dead".
#[derive(Serialize)]
struct Lease {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<Uuid>,
}

pub fn run(pool: Option<&Path>, args: &args::Role) -> Outcome {
    let place = Place::open(pool, args.path.as_deref(), Access::Read)?;
    let media = place.volume.media();
    let superblock = Superblock::read(media)?;
    let system = role::known_system_uuid()?;
    let report = RoleReport {
        version: 1,
        system,
        machine: role::machine_uuid(),
        master: superblock.system_uuid,
        role: system.map_or(Role::Client, |system| Role::of(&superblock, system)).name(),
        lease: look(&place, &superblock, system.unwrap_or_default())?,
    };
    if args.json {
        print_json(&report)?;
    } else {
        print_report(&report)?;
    }
    Ok(OK)
}

fn look(place: &Place, superblock: &Superblock, system: Uuid) -> Result<Lease> {
    let media = place.volume.media();
    let fs_uuid = superblock.fs_uuid;
    let Some(found) = lease::read(media, fs_uuid)? else {
        return Ok(Lease { state: "none", system: None, machine: None, boot: None });
    };
    // Without root it may be unknown which run of this system this is; if another system is the
    // holder, that does not matter.
    let tell = |err| {
        if found.holder.system == system {
            notice!("{}", one_line(&err));
        }
    };
    let me = Identity::this(system).map_err(tell).ok();
    let me = me.as_ref().map(Identity::system);
    let state = if found.heartbeat == 0 {
        "free"
    } else if me.is_some_and(|me| found.holder.boot == me.boot) {
        "ours"
    } else if lease::living(media, fs_uuid, me.as_ref(), Timing::default(), |_| {})?.is_some() {
        "alive"
    } else {
        "dead"
    };
    let RunningSystem { system, machine, boot } = found.holder;
    Ok(Lease { state, system: Some(system), machine, boot: Some(boot) })
}

fn print_report(report: &RoleReport) -> Result<()> {
    let name = |uuid: Option<Uuid>| uuid.map_or("none".to_owned(), |uuid| uuid.to_string());
    say!("this system: {}", name(report.system))?;
    say!("this machine: {}", name(report.machine))?;
    say!("master: {}", report.master)?;
    say!("role: {}", report.role)?;
    let Lease { state, system, machine, boot } = &report.lease;
    let text = match *state {
        "none" => return say!("lease: never held"),
        "free" => "free, last held by",
        "ours" => "held by this system:",
        "alive" => "held, with a heartbeat:",
        _ => "not released, but without a heartbeat:",
    };
    let holder = match system {
        // Such a command is of no system: the pool's lock makes it the master.
        Some(system) if system.is_nil() => "a command with --pool".to_owned(),
        system => format!("system {}", name(*system)),
    };
    say!("lease: {text} {holder}, machine {}, boot {}", name(*machine), name(*boot))
}
