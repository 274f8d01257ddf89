// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs tree`

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use famfs::format::path::RelPath;
use famfs::replay::{Node, NodeKind};
use famfs::sys::dax::Access;
use famfs::text::json_name::Name;
use famfs::text::terminal::escape_name;
use famfs_cli::args::Tree;
use serde::Serialize;

use super::{nodes_at, warn_of_damage};
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
    #[serde(skip_serializing_if = "Option::is_none")]
    children: Option<Vec<Item>>,
}

/// The direct children of each directory; `None` is the root.
type Children<'p> = HashMap<Option<RelPath>, Vec<&'p Node>>;

pub fn run(pool: Option<&Path>, args: &Tree) -> Outcome {
    let place = Place::open(pool, args.path.as_deref(), Access::Read)?;
    let plan = place.plan()?;
    let damaged = warn_of_damage(&plan);
    let mut children = Children::new();
    let (mut files, mut directories) = (0_u64, 0_u64);
    for node in nodes_at(&place, &plan)? {
        let is_dir = node.kind == NodeKind::Dir;
        *if is_dir { &mut directories } else { &mut files } += 1;
        children.entry(node.path.parent()).or_default().push(node);
    }
    let root = match place.path.as_ref().and_then(|path| plan.get(path)) {
        Some(node) => item(node, &children),
        None => directory(Name::new("name", b"/"), None, &children),
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

/// A node with everything below it; the depth is limited by paths of 79 bytes.
fn item(node: &Node, all: &Children<'_>) -> Item {
    let name = node.path.as_path().file_name().unwrap_or_default();
    let name = Name::of_path("name", Path::new(name));
    match node.kind {
        NodeKind::Dir => directory(name, Some(&node.path), all),
        NodeKind::File { size, .. } => {
            Item { name, kind: "file", size: Some(size), children: None }
        }
    }
}

fn directory(name: Name, path: Option<&RelPath>, all: &Children<'_>) -> Item {
    let children = all.get(&path.cloned()).into_iter().flatten();
    let children = children.map(|node| item(node, all)).collect();
    Item { name, kind: "directory", size: None, children: Some(children) }
}

fn print(out: &mut dyn Write, item: &Item, indent: &str) -> io::Result<()> {
    let children = item.children.as_deref().unwrap_or_default();
    for (index, child) in children.iter().enumerate() {
        let (branch, below) = if index + 1 == children.len() {
            ("└── ", "    ")
        } else {
            ("├── ", "│   ")
        };
        writeln!(out, "{indent}{branch}{}", escape_name(child.name.as_bytes()))?;
        print(out, child, &format!("{indent}{below}"))?;
    }
    Ok(())
}
