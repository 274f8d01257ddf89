// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs chmod`

use std::path::Path;

use famfs::replay::tree::object::ObjectKind;
use famfs::replay::tree::resolve::LastLink;
use famfs::write::change::NewAttributes;
use famfs_cli::args::Chmod;

use super::changes::{Change, Found, change, find};
use crate::operands::Operands;
use crate::output::{OK, Outcome};
use crate::place::masked;

/// All permission bits.
const ALL: u32 = 0o7777;

pub fn run(pool: Option<&Path>, args: &Chmod) -> Outcome {
    let Some(first) = args.paths.first() else { return Ok(OK) };
    let (place, operands) = Operands::open(pool, first)?;
    let mut writer = place.writer(args.change.dry_run)?;
    let tree = writer.plan().tree();
    let umask = ALL & !masked(ALL);
    let mut changes = Vec::new();
    for Found { path, object } in
        find(&operands, tree, &args.paths, args.recursive, LastLink::Follow)?
    {
        let is_dir = match object.kind {
            ObjectKind::Symlink { .. } => continue,
            ObjectKind::Dir { .. } => true,
            ObjectKind::File { .. } => false,
        };
        let old = object.owner.mode;
        let mode = args.mode.apply(old, is_dir, umask);
        if mode != old {
            let new = NewAttributes { mode: Some(mode), ..NewAttributes::default() };
            changes.push(Change { path, new, text: format!("mode {old:04o} -> {mode:04o}") });
        }
    }
    change(&mut writer, &changes, args.change)?;
    Ok(OK)
}
