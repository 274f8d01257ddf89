// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs tree`

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use famfs::replay::tree::list::Entry;
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::tree::resolve::LastLink;
use famfs::sys::dax::Access;
use famfs::text::json_name::Name;
use famfs::text::terminal::escape_name;
use famfs::text::units::count;
use famfs_cli::args::Tree;
use serde::Serialize;

use super::rows::is_dir;
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
type Children<'e> = HashMap<&'e [u8], Vec<&'e Entry<'e>>>;

pub fn run(pool: Option<&Path>, args: &Tree) -> Outcome {
    let place = Place::open_link(pool, args.path.as_deref(), Access::Read)?;
    let plan = place.plan()?;
    let damaged = warn_of_damage(&plan);
    let entries = place.entries(&plan, LastLink::Keep)?;
    let directories = entries.iter().filter(|entry| is_dir(entry)).count();
    let files = entries.len() - directories;
    // What is at the path stands before what is below it.
    let is_root = place.resolve(&plan, LastLink::Keep)?.is_none();
    let (top, below) = entries.split_at(usize::from(!is_root));
    let mut children = Children::new();
    for entry in below {
        let path = entry.path.as_bytes();
        let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        children.entry(&path[..end]).or_default().push(entry);
    }
    let root = match top.first() {
        Some(entry) => item(entry, &children),
        None => directory(Name::new("name", b"/"), &[], &children),
    };
    if args.json {
        print_json(&TreeReport { version: 1, root })?;
    } else {
        to_stdout(|out| {
            writeln!(out, "{}", escape_name(root.name.as_bytes()))?;
            print(out, &root, "")?;
            let directories = count(directories, "directory", "directories");
            writeln!(out, "\n{directories}, {}", count(files, "file", "files"))
        })?;
    }
    Ok(if damaged { FAILED } else { OK })
}

/// A path with all below it; as deep as a path of 4,095 bytes can be.
fn item(entry: &Entry<'_>, all: &Children<'_>) -> Item {
    let name = Name::new("name", entry.path.name());
    match &entry.listed.object.kind {
        ObjectKind::Dir { .. } => directory(name, entry.path.as_bytes(), all),
        ObjectKind::File { size, .. } => {
            Item { name, kind: "file", size: Some(*size), target: None, children: None }
        }
        ObjectKind::Symlink { target, .. } => {
            let target = Some(Name::new("target", target));
            Item { name, kind: "symlink", size: None, target, children: None }
        }
    }
}

fn directory(name: Name, path: &[u8], all: &Children<'_>) -> Item {
    let children = all.get(path).into_iter().flatten();
    let children = children.map(|entry| item(entry, all)).collect();
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
