// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs stat`

use std::path::Path;

use anyhow::{Context, Result};
use famfs::format::path::RelPath;
use famfs::replay::tree::Tree;
use famfs::replay::tree::list::{Entry, Listed};
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::tree::resolve::LastLink;
use famfs::replay::{Owner, Plan};
use famfs::sys::dax::Access;
use famfs::text::terminal::escape_name;
use famfs_cli::args::Stat;

use super::getmap::print_map;
use super::ls::{List, item};
use super::rows::{map_item, shown};
use crate::output::{FAILED, OK, Outcome, notice, print_json, say};
use crate::place::Place;

pub fn run(pool: Option<&Path>, args: &Stat) -> Outcome {
    let mut code = OK;
    let mut list = List { version: 1, entries: Vec::new() };
    for path in &args.paths {
        let shown = look_up(pool, path).and_then(|(path, plan)| {
            let listed = plan.tree().get(&path);
            let listed = listed.with_context(|| format!("\"{path}\" does not exist"))?;
            let entry = Entry { path, listed };
            if args.json {
                list.entries.push(item(plan.tree(), &entry));
                return Ok(());
            }
            print(plan.tree(), &entry)
        });
        if let Err(err) = shown {
            notice!("{err:#}");
            code = FAILED;
        }
    }
    if args.json {
        print_json(&list)?;
    }
    Ok(code)
}

fn look_up(pool: Option<&Path>, path: &Path) -> Result<(RelPath, Plan)> {
    let place = Place::open_link(pool, Some(path), Access::Read)?;
    let plan = place.plan()?;
    let path = place.resolve(&plan, LastLink::Keep)?;
    Ok((path.context("the root of the file system has no log entry")?, plan))
}

fn print(tree: &Tree, entry: &Entry<'_>) -> Result<()> {
    let Entry { path, listed: Listed { slot, name, object } } = entry;
    match &object.kind {
        ObjectKind::Dir { .. } => say!("{path}: directory")?,
        ObjectKind::File { size, bytes } => {
            say!("{path}: file of {size} bytes, {} allocated", tree.allocated(bytes))?;
        }
        ObjectKind::Symlink { target, .. } => {
            say!("{path}: symbolic link to \"{}\"", escape_name(target))?;
        }
    }
    let Owner { uid, gid, mode } = object.owner;
    say!("  mode {mode:04o}, user {uid}, group {gid}")?;
    say!("  log slot {slot}")?;
    if object.mtime.is_some() {
        say!("  changed {}", shown(object.mtime))?;
    }
    if object.links > 1 {
        say!("  {} names of what slot {} made", object.links, name.object)?;
    }
    match &object.kind {
        ObjectKind::Dir { .. } | ObjectKind::Symlink { .. } => Ok(()),
        ObjectKind::File { size, bytes } => print_map(&map_item(tree, bytes, *size)),
    }
}
