// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs publish`

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use famfs::store::lease::Timing;
use famfs::store::log::Log;
use famfs::store::members::{Member, look, read};
use famfs::store::superblock::Superblock;
use famfs::sys::dax::Access;
use famfs_cli::args::Publish;
use serde::Serialize;

use super::members::MemberItem;
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
    /// Those that have not.
    behind: Vec<MemberItem>,
}

pub fn run(pool: Option<&Path>, args: &Publish) -> Outcome {
    let stop = stop_flag()?;
    let place = Place::open(pool, args.path.as_deref(), Access::Read)?;
    let media = place.volume.media();
    let superblock = Superblock::read(media)?;
    let published = Log::open(media, superblock.log_len)?.published();
    let has_all = |member: &Member| member.applied >= published;
    let start = Instant::now();
    let (applied, done) = loop {
        let members = read(media, superblock.fs_uuid)?;
        let applied = members.iter().filter(|member| has_all(member)).count() as u64;
        if applied == members.len() as u64 && applied >= args.members {
            break (applied, true);
        }
        if start.elapsed() >= Duration::from_secs(args.timeout) {
            break (applied, false);
        }
        if stopped(&stop) {
            return Err(Failure { code: INTERRUPTED, error: anyhow!("interrupted") });
        }
        thread::sleep(PAUSE);
    };
    let behind: Vec<MemberItem> = match done {
        true => Vec::new(),
        false => look(media, superblock.fs_uuid, Timing::default())?
            .iter()
            .filter(|(member, _)| !has_all(member))
            .map(|(member, alive)| MemberItem::new(member, *alive))
            .collect(),
    };
    let report = PublishReport { version: 1, published, members: applied, behind };
    if args.json {
        print_json(&report)?;
    } else {
        say!("{applied} members have applied all {published} entries")?;
    }
    if !done {
        notice!("{}", failure(&report, args));
        return Ok(BEHIND);
    }
    Ok(OK)
}

/// Who is behind or missing, in words.
fn failure(report: &PublishReport, args: &Publish) -> String {
    let PublishReport { published, members, behind, .. } = report;
    let mut text = format!("not every member has applied all {published} entries");
    text += &format!(" within {} s", args.timeout);
    let found = members + behind.len() as u64;
    if found < args.members {
        text += &format!("; {found} members, expected {}", args.members);
    }
    for MemberItem { system, applied, state, .. } in behind {
        text += &format!("; system {system} has applied {applied}");
        if *state == "silent" {
            text += ", and is silent: if it has ended, `famfs members --drop-silent` removes it";
        }
    }
    text
}
