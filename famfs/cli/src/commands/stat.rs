// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs stat`

use std::path::Path;

use anyhow::{Context, Result};
use famfs::replay::{Node, NodeKind};
use famfs::sys::dax::Access;
use famfs_cli::args::Stat;

use super::getmap::print_map;
use super::ls::List;
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
        print_json(&List::of(&found.iter().collect::<Vec<_>>()))?;
    } else {
        found.iter().try_for_each(print)?;
    }
    Ok(code)
}

fn look_up(pool: Option<&Path>, path: &Path) -> Result<Node> {
    let place = Place::open(pool, Some(path), Access::Read)?;
    let path = place.path.as_ref().context("the root of the file system has no log entry")?;
    let plan = place.plan()?;
    let node = plan.get(path).with_context(|| format!("\"{path}\" is not in the log"))?;
    Ok(node.clone())
}

fn print(node: &Node) -> Result<()> {
    let Node { path, slot, owner, kind } = node;
    match kind {
        NodeKind::Dir => say!("{path}: directory")?,
        NodeKind::File { size, map } => {
            let allocated: u64 = map.extents().iter().map(|extent| extent.len).sum();
            say!("{path}: file of {size} bytes, {allocated} allocated")?;
        }
    }
    say!("  mode {:04o}, user {}, group {}", owner.mode, owner.uid, owner.gid)?;
    say!("  log slot {slot}")?;
    match kind {
        NodeKind::Dir => Ok(()),
        NodeKind::File { map, .. } => print_map(map),
    }
}
