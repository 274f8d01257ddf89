// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs mv`

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Result, anyhow};
use famfs::format::path::RelPath;
use famfs::replay::tree::Tree;
use famfs::text::json_name::Name;
use famfs_cli::args::Mv;
use serde::Serialize;

use super::changes::{group, would};
use crate::operands::Operands;
use crate::output::{OK, Outcome, print_json, say};

#[derive(Serialize)]
struct MvReport {
    version: u32,
    dry_run: bool,
    moved: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    #[serde(flatten)]
    from: Name,
    #[serde(flatten)]
    to: Name,
}

pub fn run(pool: Option<&Path>, args: &Mv) -> Outcome {
    let Some((last, sources)) = args.paths.split_last() else { return Ok(OK) };
    let (place, operands) = Operands::open(pool, last)?;
    let mut writer = place.writer(args.change.dry_run)?;
    let tree = writer.plan().tree();
    let destination = operands.destination(tree, last, sources.len())?;
    let (mut moves, mut taken) = (Vec::new(), HashSet::new());
    for source in sources {
        let from = operands.existing(tree, source)?;
        let to = destination.path(from.name())?;
        if from == to {
            return Err(anyhow!("\"{from}\" is there already").into());
        }
        if !taken.insert(to.clone()) {
            return Err(anyhow!("two of the sources would become \"{to}\"").into());
        }
        moves.push((from, to));
    }
    group(&mut writer, moves.len())?;
    for (from, to) in &moves {
        // Two names of one file: rename(2) would leave both, and nobody means that.
        if is_same(writer.plan().tree(), from, to) {
            match args.no_clobber {
                true => return Err(anyhow!("\"{to}\" exists already").into()),
                false => writer.delete(from)?,
            }
        } else {
            writer.rename(from, to, !args.no_clobber)?;
        }
    }
    writer.commit()?;
    report(args, &moves)?;
    Ok(OK)
}

fn is_same(tree: &Tree, one: &RelPath, other: &RelPath) -> bool {
    let object = |path| tree.get(path).map(|listed| listed.name.object);
    object(one).is_some_and(|one| Some(one) == object(other))
}

fn report(args: &Mv, moves: &[(RelPath, RelPath)]) -> Result<()> {
    let dry_run = args.change.dry_run;
    if args.change.json {
        let item = |(from, to): &(RelPath, RelPath)| Item {
            from: Name::new("from", from.as_bytes()),
            to: Name::new("to", to.as_bytes()),
        };
        return print_json(&MvReport {
            version: 1,
            dry_run,
            moved: moves.iter().map(item).collect(),
        });
    }
    for (from, to) in moves.iter().filter(|_| args.change.verbose || dry_run) {
        say!("{}{from} -> {to}", would(dry_run, "move"))?;
    }
    Ok(())
}
