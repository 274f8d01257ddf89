// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs rm`

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use famfs::format::path::RelPath;
use famfs::replay::tree::Tree;
use famfs::replay::tree::object::ObjectKind;
use famfs::text::json_name::Names;
use famfs_cli::args::Rm;
use serde::{Serialize, Serializer};

use super::changes::group;
use crate::operands::Operands;
use crate::output::{INTERRUPTED, OK, OrExit, Outcome, human, print_json, say, stop_flag, stopped};
use crate::reclaiming::Slots;

#[derive(Default, Serialize)]
struct RmReport {
    version: u32,
    dry_run: bool,
    files: u64,
    directories: u64,
    symlinks: u64,
    /// Bytes that they held.
    bytes: u64,
    /// Bytes of deleted files that became free at once.
    freed: u64,
    #[serde(serialize_with = "as_names", flatten)]
    paths: Vec<RelPath>,
}

fn as_names<S: Serializer>(
    paths: &[RelPath],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    Names::new("paths", paths.iter().map(RelPath::as_bytes)).serialize(serializer)
}

pub fn run(pool: Option<&Path>, args: &Rm) -> Outcome {
    let stop = stop_flag()?;
    let Some(first) = args.paths.first() else { return Ok(OK) };
    let (place, operands) = Operands::open(pool, first)?;
    let mut writer = place.writer(args.change.dry_run)?;
    let paths = paths_to_delete(&operands, args, writer.plan().tree())?;
    writer.check_slots(paths.len() as u64)?;
    group(&mut writer, paths.len())?;
    // A group appears as a whole, or not at all.
    let is_group = paths.len() > 1 && writer.plan().has_extensions();
    let mut report = RmReport { version: 1, dry_run: args.change.dry_run, ..RmReport::default() };
    for path in paths {
        if stopped(&stop) {
            let mut deleted = 0;
            if !is_group {
                writer.commit()?;
                deleted = report.paths.len();
            }
            return Err(anyhow!("interrupted; {deleted} paths are deleted")).or_exit(INTERRUPTED);
        }
        let tree = writer.plan().tree();
        if let Some(listed) = tree.get(&path) {
            match &listed.object.kind {
                ObjectKind::Dir { .. } => report.directories += 1,
                ObjectKind::Symlink { .. } => report.symlinks += 1,
                ObjectKind::File { bytes, .. } => {
                    report.files += 1;
                    // Other names of the file keep its bytes.
                    if listed.object.links == 1 {
                        report.bytes += tree.allocated(bytes);
                    }
                }
            }
        }
        if let Err(error) = writer.delete(&path) {
            // What was deleted before stays deleted, and is reported.
            let (count, committed) = match is_group {
                true => (0, Ok(())),
                false => (report.paths.len(), writer.commit()),
            };
            let done = if committed.is_ok() { "" } else { "not all of " };
            return Err(error).context(format!("{done}{count} paths before it are deleted"))?;
        }
        report.paths.push(path);
    }
    writer.commit()?;
    drop(writer);
    if !args.change.dry_run {
        report.freed = place.reclaim_at_once(Slots::IfWorth);
    }
    print_report(args, &report)?;
    Ok(OK)
}

fn print_report(args: &Rm, report: &RmReport) -> Result<()> {
    if args.change.json {
        return print_json(report);
    }
    if args.change.verbose || args.change.dry_run {
        for path in &report.paths {
            say!("{path}")?;
        }
        let RmReport { files, directories, symlinks, bytes, freed, .. } = report;
        let links = match symlinks {
            0 => String::new(),
            _ => format!(", {symlinks} symbolic links"),
        };
        let verb = if args.change.dry_run { "would be deleted" } else { "deleted" };
        let space = match (args.change.dry_run, *bytes, *freed) {
            (_, 0, 0) => String::new(),
            (true, bytes, _) => {
                format!("; {} are free when nobody uses them any more", human(bytes))
            }
            (false, bytes, 0) => {
                format!("; {} are being released, see `famfs reclaim`", human(bytes))
            }
            (false, _, freed) => format!("; {} became free", human(freed)),
        };
        say!("{files} files{links} and {directories} directories {verb}{space}")?;
    }
    Ok(())
}

/// What to delete; the contents of a directory come before it.
fn paths_to_delete(operands: &Operands<'_>, args: &Rm, tree: &Tree) -> Result<Vec<RelPath>> {
    let (mut paths, mut seen) = (Vec::new(), HashSet::new());
    for arg in &args.paths {
        let path = operands.name(tree, arg)?;
        let found = tree.get(&path);
        match found.map(|listed| &listed.object.kind) {
            Some(ObjectKind::Dir { children, .. }) if !args.recursive && *children > 0 => bail!(
                "\"{path}\" is a directory with {children} names in it: use --recursive to delete \
                 them too"
            ),
            Some(_) => {}
            None if args.force => continue,
            None => bail!("\"{path}\" does not exist"),
        }
        let entries = tree.at_and_below(Some(&path)).into_iter().rev();
        let new = entries.filter(|entry| seen.insert(entry.listed.slot));
        paths.extend(new.map(|entry| entry.path));
    }
    Ok(paths)
}
