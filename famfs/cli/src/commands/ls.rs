// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs ls`

use std::io::{self, Write};
use std::path::Path;

use famfs::replay::Owner;
use famfs::sys::dax::Access;
use famfs::text::json_name::Name;
use famfs::text::terminal::escape_name;
use famfs_cli::args::Ls;
use serde::Serialize;

use super::map_item::MapItem;
use super::rows::{Row, RowKind, rows_at};
use super::warn_of_damage;
use crate::output::{FAILED, OK, Outcome, print_json, to_stdout};
use crate::place::Place;

/// Files and directories as the JSON reports show them.
#[derive(Serialize)]
pub(super) struct List {
    version: u32,
    entries: Vec<Item>,
}

impl List {
    pub(super) fn of(rows: Vec<Row>) -> Self {
        Self { version: 1, entries: rows.into_iter().map(item).collect() }
    }
}

#[derive(Serialize)]
struct Item {
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
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<u64>,
    /// Slot that made what the name names.
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<u64>,
    #[serde(flatten)]
    target: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<MapItem>,
}

pub fn run(pool: Option<&Path>, args: &Ls) -> Outcome {
    let place = Place::open(pool, args.path.as_deref(), Access::Read)?;
    let plan = place.whole_plan()?;
    let damaged = warn_of_damage(&plan);
    let rows = rows_at(&place, &plan)?;
    if args.json {
        print_json(&List::of(rows))?;
    } else {
        to_stdout(|out| rows.iter().try_for_each(|row| print(out, row)))?;
    }
    Ok(if damaged { FAILED } else { OK })
}

fn item(row: Row) -> Item {
    let (kind, size, map, target) = match row.kind {
        RowKind::Dir => ("directory", 0, None, None),
        RowKind::File { size, map, .. } => ("file", size, Some(map), None),
        RowKind::Symlink(target) => {
            ("symlink", target.len() as u64, None, Some(Name::new("target", &target)))
        }
    };
    Item {
        path: Name::new("path", &row.path),
        kind,
        size,
        uid: row.owner.uid,
        gid: row.owner.gid,
        mode: format!("{:04o}", row.owner.mode),
        slot: row.slot,
        mtime: row.mtime.map(|time| (time.sec, time.nsec)),
        links: row.links.map(|(links, _)| links),
        object: row.links.map(|(_, object)| object),
        target,
        map,
    }
}

fn print(out: &mut dyn Write, row: &Row) -> io::Result<()> {
    let (letter, size, target) = match &row.kind {
        RowKind::Dir => ('d', 0, String::new()),
        RowKind::File { size, .. } => ('-', *size, String::new()),
        RowKind::Symlink(target) => {
            ('l', target.len() as u64, format!(" -> {}", escape_name(target)))
        }
    };
    let Owner { uid, gid, mode } = row.owner;
    let mode = permissions(mode);
    writeln!(out, "{letter}{mode} {uid:>5} {gid:>5} {size:>12} {}{target}", row.shown())
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
