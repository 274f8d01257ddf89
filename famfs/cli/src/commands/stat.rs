// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs stat`

use std::path::Path;

use anyhow::{Context, Result};
use famfs::replay::Owner;
use famfs::replay::tree::object::Time;
use famfs::sys::dax::Access;
use famfs::text::terminal::escape_name;
use famfs_cli::args::Stat;

use super::getmap::print_map;
use super::ls::List;
use super::rows::{Row, RowKind, rows_at};
use crate::output::{FAILED, OK, Outcome, notice, print_json, say};
use crate::place::Place;

pub fn run(pool: Option<&Path>, args: &Stat) -> Outcome {
    let mut code = OK;
    let mut found = Vec::new();
    for path in &args.paths {
        match look_up(pool, path) {
            Ok(node) => found.push(node),
            Err(err) => {
                notice!("{err:#}");
                code = FAILED;
            }
        }
    }
    if args.json {
        print_json(&List::of(found))?;
    } else {
        found.iter().try_for_each(print)?;
    }
    Ok(code)
}

fn look_up(pool: Option<&Path>, path: &Path) -> Result<Row> {
    let place = Place::open(pool, Some(path), Access::Read)?;
    let path = place.path.as_ref().context("the root of the file system has no log entry")?;
    // What is at a path stands before what is below it.
    let row = rows_at(&place, &place.whole_plan()?)?.into_iter().next();
    row.with_context(|| format!("\"{path}\" is not in the log"))
}

fn print(row: &Row) -> Result<()> {
    let path = row.shown();
    match &row.kind {
        RowKind::Dir => say!("{path}: directory")?,
        RowKind::File { size, allocated, .. } => {
            say!("{path}: file of {size} bytes, {allocated} allocated")?;
        }
        RowKind::Symlink(target) => {
            say!("{path}: symbolic link to \"{}\"", escape_name(target))?;
        }
    }
    let Owner { uid, gid, mode } = row.owner;
    say!("  mode {mode:04o}, user {uid}, group {gid}")?;
    say!("  log slot {}", row.slot)?;
    if let Some(Time { sec, nsec }) = row.mtime {
        say!("  changed {sec} s, {nsec} ns since 1970")?;
    }
    if let Some((links, object)) = row.links.filter(|(links, _)| *links > 1) {
        say!("  {links} names of what slot {object} made")?;
    }
    match &row.kind {
        RowKind::Dir | RowKind::Symlink(_) => Ok(()),
        RowKind::File { map, .. } => print_map(map),
    }
}
