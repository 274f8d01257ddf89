// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs ls`

use std::io::{self, Write};
use std::path::Path;

use famfs::replay::Owner;
use famfs::replay::tree::Tree;
use famfs::replay::tree::list::{Entry, Listed};
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::tree::resolve::LastLink;
use famfs::sys::dax::Access;
use famfs::text::json_name::Name;
use famfs::text::terminal::escape_name;
use famfs_cli::args::Ls;
use serde::Serialize;

use super::map_item::MapItem;
use super::rows::{map_item, shown};
use super::warn_of_damage;
use crate::output::{FAILED, OK, Outcome, print_json, to_stdout};
use crate::place::Place;

/// Files and directories as the JSON reports show them.
#[derive(Serialize)]
pub(super) struct List {
    pub(super) version: u32,
    pub(super) entries: Vec<Item>,
}

impl List {
    pub(super) fn of(tree: &Tree, entries: &[Entry<'_>]) -> Self {
        Self { version: 1, entries: entries.iter().map(|entry| item(tree, entry)).collect() }
    }
}

#[derive(Serialize)]
pub(super) struct Item {
    #[serde(flatten)]
    path: Name,
    #[serde(rename = "type")]
    kind: &'static str,
    size: u64,
    uid: u32,
    gid: u32,
    mode: String,
    slot: u64,
    /// Seconds and nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime: Option<(i64, u32)>,
    /// Number of its names.
    links: u64,
    /// Slot that made what the name names.
    object: u64,
    #[serde(flatten)]
    target: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<MapItem>,
}

pub fn run(pool: Option<&Path>, args: &Ls) -> Outcome {
    let place = Place::open_link(pool, args.path.as_deref(), Access::Read)?;
    let plan = place.plan()?;
    let damaged = warn_of_damage(&plan);
    let entries = place.entries(&plan, LastLink::Keep)?;
    if args.json {
        print_json(&List::of(plan.tree(), &entries))?;
    } else {
        to_stdout(|out| entries.iter().try_for_each(|entry| print(out, entry, args.long)))?;
    }
    Ok(if damaged { FAILED } else { OK })
}

pub(super) fn item(tree: &Tree, entry: &Entry<'_>) -> Item {
    let Entry { path, listed: Listed { slot, name, object } } = entry;
    let (kind, size, map, target) = match &object.kind {
        ObjectKind::Dir { .. } => ("directory", 0, None, None),
        ObjectKind::File { size, bytes } => {
            ("file", *size, Some(map_item(tree, bytes, *size)), None)
        }
        ObjectKind::Symlink { target, .. } => {
            ("symlink", target.len() as u64, None, Some(Name::new("target", target)))
        }
    };
    Item {
        path: Name::new("path", path.as_bytes()),
        kind,
        size,
        uid: object.owner.uid,
        gid: object.owner.gid,
        mode: format!("{:04o}", object.owner.mode),
        slot: *slot,
        mtime: object.mtime.map(|time| (time.sec, time.nsec)),
        links: object.links,
        object: name.object,
        target,
        map,
    }
}

fn print(out: &mut dyn Write, entry: &Entry<'_>, long: bool) -> io::Result<()> {
    let Entry { path, listed: Listed { object, .. } } = entry;
    let (letter, size, target) = match &object.kind {
        ObjectKind::Dir { .. } => ('d', 0, String::new()),
        ObjectKind::File { size, .. } => ('-', *size, String::new()),
        ObjectKind::Symlink { target, .. } => {
            ('l', target.len() as u64, format!(" -> {}", escape_name(target)))
        }
    };
    let Owner { uid, gid, mode } = object.owner;
    write!(out, "{letter}{}", permissions(mode))?;
    if long {
        write!(out, " {:>3}", object.links)?;
    }
    write!(out, " {uid:>5} {gid:>5} {size:>12}")?;
    if long {
        // As wide as a time with nanoseconds.
        write!(out, " {:<30}", shown(object.mtime))?;
    }
    writeln!(out, " {path}{target}")
}

/// Permission bits as ls(1) shows them.
fn permissions(mode: u32) -> String {
    let mut text: Vec<u8> =
        (0..9).map(|bit| if mode & (0o400 >> bit) != 0 { b"rwx"[bit % 3] } else { b'-' }).collect();
    for (bit, at, set, unset) in
        [(0o4000, 2, b's', b'S'), (0o2000, 5, b's', b'S'), (0o1000, 8, b't', b'T')]
    {
        if mode & bit != 0 {
            text[at] = if text[at] == b'x' { set } else { unset };
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::permissions;

    #[test]
    fn permissions_as_in_ls() {
        for (mode, text) in [
            (0o644, "rw-r--r--"),
            (0o4755, "rwsr-xr-x"),
            (0o2644, "rw-r-Sr--"),
            (0o1777, "rwxrwxrwt"),
        ] {
            assert_eq!(permissions(mode), text);
        }
    }
}
