// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs reclaim`

mod fence;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use famfs::replay::reclaim::{self, Releasing, removed_by};
use famfs::store::members::Member;
use famfs::store::numbering::numbering as slot_numbering;
use famfs::sys::dax::Access;
use famfs::system::holders::NamedProcess;
use famfs::text::json_name::Name;
use famfs_cli::args::Reclaim;
use serde::Serialize;
use uuid::Uuid;

use self::fence::{Fenced, Target};
use crate::output::{
    Failure, INTERRUPTED, OK, Outcome, human, notice, print_json, say, stop_flag, stopped,
};
use crate::place::Place;
use crate::reclaiming::{Given, Look, Patience, Slots};

/// Something is still being released.
const HELD: u8 = 3;
/// How long a VM that is to be ended may take at least to let go.
const FENCE: Duration = Duration::from_secs(5);
/// How long members may take to tell how far they are by new numbers of the log slots; it takes
/// them a quarter of a second.
const SETTLE: Duration = Duration::from_secs(2);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Default, Serialize)]
struct ReclaimReport {
    version: u32,
    /// Removed files, directories and links that are gone for good.
    objects: u64,
    /// Bytes that became free.
    bytes: u64,
    /// Bytes that are still being released.
    left: u64,
    /// Log slots that became free.
    slots: u64,
    /// Who is waited for.
    held: Vec<Holder>,
    /// The VM that was ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    fenced: Option<Fenced>,
}

/// Who may still use something, and why that is known or not.
#[derive(Serialize)]
struct Holder {
    /// In words.
    reason: String,
    /// Its machine UUID, of a member.
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<Uuid>,
    /// Its system UUID, of a member.
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<Uuid>,
    /// The slot of the first removal that it has not released, of a member.
    #[serde(skip_serializing_if = "Option::is_none")]
    released: Option<u64>,
    /// What that entry removed.
    #[serde(flatten)]
    path: Option<Name>,
}

pub fn run(pool: Option<&Path>, args: &Reclaim) -> Outcome {
    let pool =
        pool.context("reclaim needs --pool FILE: only the host can see who uses the pool")?;
    let stop = stop_flag()?;
    let wait = Duration::from_secs(args.wait);
    let mut end = Instant::now() + wait;
    let slots = if args.slots { Slots::All } else { Slots::IfShort };
    let mut report = ReclaimReport { version: 1, ..ReclaimReport::default() };
    let mut target = match &args.fence {
        Some(wanted) => {
            // Who uses the pool is known to those who have it open.
            let _view = Place::open(Some(pool), None, Access::Read)?;
            Some(Target::find(pool, wanted)?)
        }
        None => None,
    };
    // How far everything is given back, by which numbers.
    let mut done = None;
    // Which numbers the slots have, and how many entries were published when they got them.
    let mut since: Option<(Option<u64>, u64)> = None;
    let mut slots_left;
    loop {
        // Others may write while this waits.
        let view = Place::open(Some(pool), None, Access::Read)?;
        let look = Look::new(view.volume.media(), pool, Patience::Heartbeats, slots)?;
        report.held.clear();
        let Some(look) = look else {
            (report.left, slots_left) = (0, false);
            break;
        };
        let Releasing { numbering, published, bytes, .. } = look.releasing;
        if since.is_none_or(|(before, _)| before != numbering) {
            let pause = match (&target, since) {
                (Some(_), _) => FENCE,
                (None, Some(_)) => SETTLE,
                (None, None) => Duration::ZERO,
            };
            end = end.max(Instant::now() + pause);
            since = Some((numbering, published));
        }
        report.left = bytes;
        slots_left = slots.are_wanted(&look.releasing);
        let released = (numbering, look.standing.released);
        let is_news = look.standing.released > 0 && done != Some(released);
        if is_news || look.may_move() || look.releasing.is_interrupted() {
            done = Some(released);
            let given = give_back(pool, slots)?;
            report.objects += given.memory.objects;
            report.bytes += given.memory.bytes;
            report.slots += given.slots;
            (report.left, slots_left) = (given.memory.left, given.slots_left);
        }
        if report.left == 0 && !slots_left {
            break;
        }
        if Instant::now() >= end {
            let asked = since.map_or(published, |(_, asked)| asked);
            let is_it = |target: &mut Target| target.is_in_the_way(&look.standing, asked);
            if let Some(target) = target.take_if(is_it) {
                report.fenced = Some(target.end(pool, args.yes)?);
                // What it held is looked at once more.
                continue;
            }
            report.held = holders(&view, &look, report.left > 0)?;
            // Else the slots have other numbers than when this looked.
            if numbering == Some(slot_numbering(view.volume.media())?) {
                break;
            }
        }
        if stopped(&stop) {
            return Err(Failure { code: INTERRUPTED, error: anyhow!("interrupted") });
        }
        thread::sleep(PAUSE);
    }
    let code = if report.left == 0 && !slots_left { OK } else { HELD };
    if args.json {
        print_json(&report)?;
    } else {
        print_report(&report, slots_left)?;
    }
    Ok(code)
}

/// Looks again with the right to write, and gives back what is unused then.
fn give_back(pool: &Path, slots: Slots) -> Result<Given> {
    let place = Place::open(Some(pool), None, Access::Write)?;
    let lease = place.lease()?;
    let media = place.volume.media();
    if reclaim::releasing(media)?.is_interrupted() {
        reclaim::end_interrupted(media)?;
    }
    match Look::new(media, pool, Patience::Heartbeats, slots)? {
        Some(look) => look.give_back(media, pool, lease),
        None => Ok(Given::default()),
    }
}

/// Who keeps something from being given back.
fn holders(place: &Place, look: &Look, memory: bool) -> Result<Vec<Holder>> {
    let unknown = look.standing.unknown.iter().map(|unknown| Holder {
        reason: unknown.to_string(),
        machine: None,
        system: None,
        released: None,
        path: None,
    });
    let mut holders: Vec<Holder> = unknown.collect();
    if memory {
        for (member, process) in &look.standing.members {
            if !member.is_current {
                holders.push(silent(member, process));
            } else if member.released < look.releasing.published {
                holders.push(member_of(place, member, process)?);
            }
        }
        return Ok(holders);
    }
    for (member, process) in look.standing.behind(look.releasing.published) {
        let Member { system, applied, is_current, .. } = *member;
        if !is_current {
            holders.push(silent(member, process));
            continue;
        }
        let machine = system.machine.unwrap_or_default();
        holders.push(Holder {
            reason: format!(
                "VM {machine} ({process}) shows the entries below log slot {applied} only, so log \
                 slots cannot be given back yet"
            ),
            machine: system.machine,
            system: Some(system.system),
            released: None,
            path: None,
        });
    }
    Ok(holders)
}

/// A member that has not told how far it is by the numbers that the slots have now.
fn silent(member: &Member, process: &NamedProcess) -> Holder {
    let system = member.system;
    let machine = system.machine.unwrap_or_default();
    Holder {
        reason: format!(
            "VM {machine} ({process}) has not told how far it is since log entries moved into \
             other slots: its `famfs watch` does not get to it"
        ),
        machine: system.machine,
        system: Some(system.system),
        released: None,
        path: None,
    }
}

fn member_of(place: &Place, member: &Member, process: &NamedProcess) -> Result<Holder> {
    let Member { system, released, applied, .. } = *member;
    let machine = system.machine.unwrap_or_default();
    let path = removed_by(place.volume.media(), released)?;
    let what = match &path {
        Some(path) => format!("\"{path}\", which"),
        None => "what".to_owned(),
    };
    let reason = match released < applied {
        true => format!(
            "VM {machine} ({process}) has not released {what} log slot {released} removed: a \
             program there has it open or mapped, or its famfs cannot tell"
        ),
        false => format!(
            "VM {machine} ({process}) shows the entries below log slot {applied} only, so it still \
             has {what} that slot removed"
        ),
    };
    let path = path.map(|path| Name::new("path", path.as_bytes()));
    let (machine, system) = (system.machine, Some(system.system));
    Ok(Holder { reason, machine, system, released: Some(released), path })
}

fn print_report(report: &ReclaimReport, slots_left: bool) -> Result<()> {
    let ReclaimReport { objects, bytes, left, slots, held, .. } = report;
    match (objects, left) {
        (0, 0) if *slots > 0 => {}
        (0, 0) if slots_left => {}
        (0, 0) => say!("nothing is being released")?,
        (1, _) => say!("gave back {} of 1 removed file, directory or link", human(*bytes))?,
        _ => say!("gave back {} of {objects} removed files, directories and links", human(*bytes))?,
    }
    if *slots > 0 {
        say!("gave back {slots} log slots")?;
    }
    if *left > 0 {
        notice!("{} are still being released", human(*left));
    }
    if slots_left {
        notice!("log slots of deleted files cannot be given back now");
    }
    for holder in held {
        notice!("{}", holder.reason);
    }
    Ok(())
}
