// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs tree`

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use famfs::sys::dax::Access;
use famfs::text::json_name::Name;
use famfs::text::terminal::escape_name;
use famfs_cli::args::Tree;
use serde::Serialize;

use super::rows::{Row, RowKind, rows_at};
use super::warn_of_damage;
use crate::output::{FAILED, OK, Outcome, print_json, to_stdout};
use crate::place::Place;

#[derive(Serialize)]
struct TreeReport {
    version: u32,
    root: Item,
}

/// A file, or a directory with its contents.
#[derive(Serialize)]
struct Item {
    #[serde(flatten)]
    name: Name,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(flatten)]
    target: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    children: Option<Vec<Item>>,
}

/// What is directly in each directory, by its path; the empty one is the root.
type Children = HashMap<Vec<u8>, Vec<Row>>;

pub fn run(pool: Option<&Path>, args: &Tree) -> Outcome {
    let place = Place::open(pool, args.path.as_deref(), Access::Read)?;
    let plan = place.whole_plan()?;
    let damaged = warn_of_damage(&plan);
    let mut rows = rows_at(&place, &plan)?;
    let directories = rows.iter().filter(|row| row.is_dir()).count();
    let files = rows.len() - directories;
    // What is at the path stands before what is below it.
    let below = rows.split_off(usize::from(place.path.is_some()));
    let mut children = Children::new();
    for row in below {
        let end = row.path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        children.entry(row.path[..end].to_vec()).or_default().push(row);
    }
    let root = match rows.first() {
        Some(row) => item(row, &children),
        None => directory(Name::new("name", b"/"), &[], &children),
    };
    if args.json {
        print_json(&TreeReport { version: 1, root })?;
    } else {
        to_stdout(|out| {
            writeln!(out, "{}", escape_name(root.name.as_bytes()))?;
            print(out, &root, "")?;
            writeln!(out, "\n{directories} directories, {files} files")
        })?;
    }
    Ok(if damaged { FAILED } else { OK })
}

/// A row with all below it; as deep as a path of 4,095 bytes can be.
fn item(row: &Row, all: &Children) -> Item {
    let start = row.path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let name = Name::new("name", &row.path[start..]);
    match row.kind {
        RowKind::Dir => directory(name, &row.path, all),
        RowKind::File { size, .. } => {
            Item { name, kind: "file", size: Some(size), target: None, children: None }
        }
        RowKind::Symlink(ref target) => {
            let target = Some(Name::new("target", target));
            Item { name, kind: "symlink", size: None, target, children: None }
        }
    }
}

fn directory(name: Name, path: &[u8], all: &Children) -> Item {
    let children = all.get(path).into_iter().flatten();
    let children = children.map(|row| item(row, all)).collect();
    Item { name, kind: "directory", size: None, target: None, children: Some(children) }
}

fn print(out: &mut dyn Write, item: &Item, indent: &str) -> io::Result<()> {
    let children = item.children.as_deref().unwrap_or_default();
    for (index, child) in children.iter().enumerate() {
        let (branch, below) = if index + 1 == children.len() {
            ("└── ", "    ")
        } else {
            ("├── ", "│   ")
        };
        let target = child.target.as_ref().map(|target| escape_name(target.as_bytes()));
        let target = target.map(|target| format!(" -> {target}")).unwrap_or_default();
        writeln!(out, "{indent}{branch}{}{target}", escape_name(child.name.as_bytes()))?;
        print(out, child, &format!("{indent}{below}"))?;
    }
    Ok(())
}
