// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs ln`

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use famfs::format::path::RelPath;
use famfs::replay::tree::Tree;
use famfs::text::json_name::Name;
use famfs::text::terminal::escape_name;
use famfs_cli::args::Ln;
use serde::Serialize;

use super::changes::{group, would};
use crate::operands::{Destination, Operands};
use crate::output::{OK, Outcome, print_json, say};
use crate::place::owner;

/// Permissions of a symbolic link, which nobody asks for.
const LINK_MODE: u32 = 0o777;

#[derive(Serialize)]
struct LnReport {
    version: u32,
    dry_run: bool,
    symbolic: bool,
    links: Vec<Link>,
}

#[derive(Serialize)]
struct Link {
    #[serde(flatten)]
    path: Name,
    #[serde(flatten)]
    target: Name,
}

/// A link to make.
struct New {
    path: RelPath,
    target: Target,
}

enum Target {
    File(RelPath),
    Text(Vec<u8>),
}

impl Target {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::File(path) => path.as_bytes(),
            Self::Text(text) => text,
        }
    }
}

pub fn run(pool: Option<&Path>, args: &Ln) -> Outcome {
    let Some((last, targets)) = args.paths.split_last() else { return Ok(OK) };
    let (place, operands) = Operands::open(pool, last)?;
    let mut writer = place.writer(args.change.dry_run)?;
    let links = links(&operands, writer.plan().tree(), args, targets, last)?;
    group(&mut writer, links.len())?;
    for New { path, target } in &links {
        match target {
            Target::File(old) => writer.link(old, path)?,
            Target::Text(text) => writer.symlink(path, text, owner(None, None, LINK_MODE))?,
        }
    }
    writer.commit()?;
    report(args, &links)?;
    Ok(OK)
}

fn links(
    operands: &Operands<'_>,
    tree: &Tree,
    args: &Ln,
    targets: &[PathBuf],
    last: &Path,
) -> Result<Vec<New>> {
    let destination = operands.destination(tree, last, targets.len())?;
    let link = |target: &PathBuf| {
        let target = match args.symbolic {
            true => Target::Text(target.as_os_str().as_bytes().to_vec()),
            false => Target::File(operands.existing(tree, target)?),
        };
        let path = match (&target, &destination) {
            (Target::File(path), _) => destination.path(path.name())?,
            (Target::Text(_), Destination::As(path)) => path.clone(),
            (Target::Text(text), Destination::Into(_)) => {
                let name = text.rsplit(|&byte| byte == b'/').find(|name| !name.is_empty());
                let unnamed =
                    || format!("\"{}\" gives the link no name: name it", escape_name(text));
                let is_name = |name: &&[u8]| !matches!(*name, b"." | b"..");
                destination.path(name.filter(is_name).with_context(unnamed)?)?
            }
        };
        Ok(New { path, target })
    };
    targets.iter().map(link).collect()
}

fn report(args: &Ln, links: &[New]) -> Result<()> {
    let (dry_run, symbolic) = (args.change.dry_run, args.symbolic);
    if args.change.json {
        let link = |new: &New| Link {
            path: Name::new("path", new.path.as_bytes()),
            target: Name::new("target", new.target.as_bytes()),
        };
        let links = links.iter().map(link).collect();
        return print_json(&LnReport { version: 1, dry_run, symbolic, links });
    }
    for New { path, target } in links.iter().filter(|_| args.change.verbose || dry_run) {
        let (would, arrow) = (would(dry_run, "link"), if symbolic { "->" } else { "=" });
        say!("{would}{path} {arrow} {}", escape_name(target.as_bytes()))?;
    }
    Ok(())
}
