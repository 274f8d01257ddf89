// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs publish`

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use famfs::store::lease::Timing;
use famfs::store::log::Log;
use famfs::store::members::Looker;
use famfs::store::superblock::Superblock;
use famfs::sys::dax::Access;
use famfs_cli::args::Publish;
use serde::Serialize;

use super::members::{ALIVE, MemberItem, OTHER, SILENT, WRONG};
use crate::output::{
    Failure, INTERRUPTED, OK, Outcome, notice, print_json, say, stop_flag, stopped,
};
use crate::place::Place;

/// Not every member has applied everything in time.
const BEHIND: u8 = 3;
/// Pause between two looks at the members.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Serialize)]
struct PublishReport {
    version: u32,
    /// Entries that were published when the command started.
    published: u64,
    /// Number of members that have applied them all.
    members: u64,
    /// Those that have not, or of which it is not known.
    behind: Vec<MemberItem>,
}

pub fn run(pool: Option<&Path>, args: &Publish) -> Outcome {
    let stop = stop_flag()?;
    let place = Place::open(pool, args.path.as_deref(), Access::Read)?;
    let media = place.volume.media();
    let superblock = Superblock::read(media)?;
    let log = Log::open(media, superblock.log_len)?;
    let (mut published, mut numbering) = (log.published(), log.numbering());
    let (start, timing, timeout) =
        (Instant::now(), Timing::default(), Duration::from_secs(args.timeout));
    let mut looker = Looker::default();
    looker.look(media, superblock.fs_uuid, numbering)?;
    // Who hears it beats at once.
    media.announce();
    let (items, done) = loop {
        let looked = looker.look(media, superblock.fs_uuid, numbering)?;
        // Read afterwards, so that no member that is right can be ahead of it.
        let log = Log::open(media, superblock.log_len)?;
        let latest = log.published();
        if log.numbering() != numbering {
            // The entries have other numbers; all that count are among those that there are now.
            (published, numbering) = (latest, log.numbering());
            continue;
        }
        let items: Vec<MemberItem> =
            looked.iter().map(|(member, alive)| MemberItem::new(member, *alive, latest)).collect();
        let enough = items.len() as u64 >= args.members;
        if enough && items.iter().all(|item| has_all(item, published)) {
            break (items, true);
        }
        // Only time brings what is missing; but who does not beat now will not do so later.
        let waits = !enough || items.iter().any(|item| item.applied < published);
        let elapsed = start.elapsed();
        let known = elapsed >= timing.expiry || items.iter().all(|item| item.state != SILENT);
        let over = elapsed >= timeout || !waits;
        if known && over {
            break (items, false);
        }
        if stopped(&stop) {
            return Err(Failure { code: INTERRUPTED, error: anyhow!("interrupted") });
        }
        thread::sleep(PAUSE);
    };
    let (complete, behind): (Vec<MemberItem>, Vec<MemberItem>) =
        items.into_iter().partition(|item| has_all(item, published));
    let applied = complete.len() as u64;
    let report = PublishReport { version: 1, published, members: applied, behind };
    if args.json {
        print_json(&report)?;
    } else {
        say!("{applied} members have applied all {published} entries")?;
    }
    if !done {
        notice!("{}", failure(&report, args, start.elapsed()));
        return Ok(BEHIND);
    }
    Ok(OK)
}

/// Whether a member is known to show everything: it lives, and tells what can be true.
fn has_all(item: &MemberItem, published: u64) -> bool {
    item.state == ALIVE && item.applied >= published
}

/// Who is behind or missing, in words.
fn failure(report: &PublishReport, args: &Publish, waited: Duration) -> String {
    let PublishReport { published, members, behind, .. } = report;
    let mut text = format!(
        "not every member is known to have applied all {published} entries after {} s",
        waited.as_secs()
    );
    let found = members + behind.len() as u64;
    if found < args.members {
        text += &format!("; {found} members, expected {}", args.members);
    }
    for MemberItem { system, applied, state, .. } in behind {
        text += &format!("; system {system} has applied {applied}");
        match *state {
            SILENT => {
                text +=
                    ", and is silent: if it has ended, `famfs members --drop-silent` removes it";
            }
            OTHER => text += ", as far as this can be known: its tools are of another version",
            WRONG => {
                text += ", as it says, but so many are not published: restart its `famfs watch`";
            }
            _ => {}
        }
    }
    text
}
