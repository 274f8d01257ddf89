// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs ls`

use std::io::{self, Write};
use std::path::Path;

use famfs::format::map::{Extent, FileMap};
use famfs::replay::{Node, NodeKind};
use famfs::sys::dax::Access;
use famfs::text::json_name::Name;
use famfs_cli::args::Ls;
use serde::Serialize;

use super::{nodes_at, warn_of_damage};
use crate::output::{FAILED, OK, Outcome, print_json, to_stdout};
use crate::place::Place;

/// Files and directories as the JSON reports show them.
#[derive(Serialize)]
pub(super) struct List {
    version: u32,
    entries: Vec<Item>,
}

impl List {
    pub(super) fn of(nodes: &[&Node]) -> Self {
        Self { version: 1, entries: nodes.iter().map(|node| item(node)).collect() }
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
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<MapItem>,
}

/// A file's map as the JSON reports show it.
#[derive(Serialize)]
pub struct MapItem {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_size: Option<u64>,
    extents: Vec<ExtentItem>,
}

#[derive(Serialize)]
struct ExtentItem {
    offset: u64,
    len: u64,
}

impl From<&FileMap> for MapItem {
    fn from(map: &FileMap) -> Self {
        let (kind, chunk_size) = match map {
            FileMap::Simple(_) => ("simple", None),
            FileMap::Interleaved { chunk_size, .. } => ("interleaved", Some(*chunk_size)),
        };
        let item = |extent: &Extent| ExtentItem { offset: extent.offset, len: extent.len };
        Self { kind, chunk_size, extents: map.extents().iter().map(item).collect() }
    }
}

pub fn run(pool: Option<&Path>, args: &Ls) -> Outcome {
    let place = Place::open(pool, args.path.as_deref(), Access::Read)?;
    let plan = place.plan()?;
    let damaged = warn_of_damage(&plan);
    let nodes = nodes_at(&place, &plan)?;
    if args.json {
        print_json(&List::of(&nodes))?;
    } else {
        to_stdout(|out| nodes.iter().try_for_each(|node| print(out, node)))?;
    }
    Ok(if damaged { FAILED } else { OK })
}

fn item(node: &Node) -> Item {
    let (kind, size, map) = match &node.kind {
        NodeKind::Dir => ("directory", 0, None),
        NodeKind::File { size, map } => ("file", *size, Some(map.into())),
    };
    Item {
        path: Name::new("path", node.path.as_bytes()),
        kind,
        size,
        uid: node.owner.uid,
        gid: node.owner.gid,
        mode: format!("{:04o}", node.owner.mode),
        slot: node.slot,
        map,
    }
}

fn print(out: &mut dyn Write, node: &Node) -> io::Result<()> {
    let item = item(node);
    let letter = if item.kind == "file" { '-' } else { 'd' };
    writeln!(
        out,
        "{letter}{} {:>5} {:>5} {:>12} {}",
        permissions(node.owner.mode),
        item.uid,
        item.gid,
        item.size,
        node.path
    )
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
