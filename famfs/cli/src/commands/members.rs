// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs members`

use std::path::Path;

use anyhow::{Result, anyhow};
use famfs::media::Media;
use famfs::store::lease::Timing;
use famfs::store::log::Log;
use famfs::store::members::{Member, Tools, drop_silent, look};
use famfs::store::superblock::Superblock;
use famfs::sys::dax::Access;
use famfs_cli::args::Members;
use serde::Serialize;
use uuid::Uuid;

use crate::output::{OK, Outcome, print_json, say};
use crate::place::Place;

/// How often to look at members while entries move.
const MOST_LOOKS: u32 = 5;

#[derive(Serialize)]
struct MembersReport {
    version: u32,
    /// Entries of the log.
    published: u64,
    members: Vec<MemberItem>,
    /// Number of silent ones whose place was freed.
    dropped: u64,
}

/// The heartbeat changed while this looked.
pub const ALIVE: &str = "alive";
/// It did not.
pub const SILENT: &str = "silent";
/// It says that it has applied more than there is.
pub const WRONG: &str = "wrong";
/// Its tools are older or newer, so how far it is is not known.
pub const OTHER: &str = "other tools";

/// A running system that follows the log.
#[derive(Serialize)]
pub struct MemberItem {
    /// Its system UUID.
    pub system: Uuid,
    /// Its machine UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<Uuid>,
    /// Which run of it.
    pub boot: Uuid,
    /// Its mount shows the entries below this slot.
    pub applied: u64,
    /// No program there uses what the entries below this slot deleted.
    pub released: u64,
    /// [`ALIVE`], [`SILENT`], [`WRONG`] or [`OTHER`].
    pub state: &'static str,
}

impl MemberItem {
    /// `published` is the number of entries that were published when it was looked at, or later.
    pub fn new(member: &Member, alive: bool, published: u64) -> Self {
        let Member { system, tools, applied, released, .. } = member;
        let state = match alive {
            _ if *tools != Tools::Same => OTHER,
            _ if *applied > published => WRONG,
            true => ALIVE,
            false => SILENT,
        };
        let (machine, boot) = (system.machine, system.boot);
        let (applied, released) = (*applied, *released);
        Self { system: system.system, machine, boot, applied, released, state }
    }
}

pub fn run(pool: Option<&Path>, args: &Members) -> Outcome {
    let access = if args.drop_silent { Access::Write } else { Access::Read };
    let place = Place::open(pool, args.path.as_deref(), access)?;
    let superblock = Superblock::read(place.volume.media())?;
    let fs_uuid = superblock.fs_uuid;
    let media = place.volume.media();
    let seen = (0..MOST_LOOKS).find_map(|_| look_undisturbed(media, &superblock).transpose());
    let moving = || {
        anyhow!(
            "the log's entries have moved into other slots during each of {MOST_LOOKS} looks at the \
             members, so how far these are is not known: try again"
        )
    };
    let (mut members, published) = seen.transpose()?.ok_or_else(moving)?;
    let mut dropped = 0;
    if args.drop_silent {
        let media = place.volume.lease_media()?;
        let mut left = Vec::new();
        for (member, alive) in members {
            match !alive && drop_silent(&*media, fs_uuid, &member)? {
                true => dropped += 1,
                false => left.push((member, alive)),
            }
        }
        members = left;
    }
    let item = |(member, alive): &(Member, bool)| MemberItem::new(member, *alive, published);
    let items = members.iter().map(item).collect();
    let report = MembersReport { version: 1, published, members: items, dropped };
    if args.json {
        print_json(&report)?;
    } else {
        print_report(&report)?;
    }
    Ok(OK)
}

/// A member, and whether it lives.
type Looked = (Member, bool);

/// The members and the number of published entries, unless entries move meanwhile.
fn look_undisturbed(
    media: &dyn Media,
    superblock: &Superblock,
) -> Result<Option<(Vec<Looked>, u64)>> {
    let numbering = Log::open(media, superblock.log_len)?.numbering();
    let members = look(media, superblock.fs_uuid, numbering, Timing::default())?;
    let log = Log::open(media, superblock.log_len)?;
    Ok((log.numbering() == numbering).then(|| (members, log.published())))
}

fn print_report(report: &MembersReport) -> Result<()> {
    let MembersReport { published, members, dropped, .. } = report;
    if *dropped > 0 {
        say!("dropped {dropped} silent members")?;
    }
    if members.is_empty() {
        return say!("no members: no system that can write the memory follows the log");
    }
    say!(
        "{:36}  {:36}  {:>9}  {:>9}  {:>9}  STATE",
        "SYSTEM",
        "MACHINE",
        "APPLIED",
        "BEHIND",
        "RELEASED"
    )?;
    for MemberItem { system, machine, applied, released, state, .. } in members {
        let machine = machine.map_or("-".to_owned(), |machine| machine.to_string());
        let behind = published.saturating_sub(*applied);
        say!("{system}  {machine:36}  {applied:>9}  {behind:>9}  {released:>9}  {state}")?;
    }
    Ok(())
}
