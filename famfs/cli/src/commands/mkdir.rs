// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs mkdir`

use std::path::Path;

use anyhow::{Result, anyhow};
use famfs::format::path::RelPath;
use famfs::replay::tree::list::Listed;
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::tree::resolve::LastLink;
use famfs::text::json_name::Names;
use famfs_cli::args::Mkdir;
use serde::Serialize;

use crate::operands::Operands;
use crate::output::{OK, Outcome, print_json, say};
use crate::place::owner;

const DEFAULT_MODE: u32 = 0o755;

#[derive(Serialize)]
struct MkdirReport {
    version: u32,
    dry_run: bool,
    /// Directories that did not exist before, from the top.
    #[serde(flatten)]
    paths: Names,
}

pub fn run(pool: Option<&Path>, args: &Mkdir) -> Outcome {
    let (place, operands) = Operands::open(pool, &args.path)?;
    let mut writer = place.writer(args.change.dry_run)?;
    let owner = owner(args.owner.uid, args.owner.gid, args.owner.mode.unwrap_or(DEFAULT_MODE));
    // A link to a directory is as good as the directory where one may exist.
    let last = if args.parents { LastLink::Follow } else { LastLink::Keep };
    let path = match (operands.find(writer.plan().tree(), &args.path, last)?, args.parents) {
        (Some(path), _) => path,
        (None, true) => {
            print_report(args, &[])?;
            return Ok(OK);
        }
        (None, false) => return Err(anyhow!("the root of the file system exists").into()),
    };
    let mut made = Vec::new();
    for dir in if args.parents { chain(&path) } else { vec![path] } {
        let found = writer.plan().tree().get(&dir);
        let is_dir = |listed: Listed<'_>| matches!(listed.object.kind, ObjectKind::Dir { .. });
        if args.parents && found.is_some_and(is_dir) {
            continue;
        }
        writer.mkdir(&dir, owner)?;
        made.push(dir);
    }
    writer.commit()?;
    print_report(args, &made)?;
    Ok(OK)
}

fn print_report(args: &Mkdir, made: &[RelPath]) -> Result<()> {
    if args.change.json {
        let paths = Names::new("paths", made.iter().map(RelPath::as_bytes));
        return print_json(&MkdirReport { version: 1, dry_run: args.change.dry_run, paths });
    }
    for dir in made.iter().filter(|_| args.change.verbose || args.change.dry_run) {
        match args.change.dry_run {
            true => say!("would make directory {dir}")?,
            false => say!("{dir}")?,
        }
    }
    Ok(())
}

/// The path and all directories above it, from the top.
fn chain(path: &RelPath) -> Vec<RelPath> {
    let mut chain = vec![path.clone()];
    let mut next = path.parent();
    while let Some(dir) = next {
        next = dir.parent();
        chain.push(dir);
    }
    chain.reverse();
    chain
}
