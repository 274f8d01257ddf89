// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs rm`

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use famfs::format::path::RelPath;
use famfs::replay::{Node, NodeKind, Plan};
use famfs::sys::dax::Access;
use famfs::text::json_name::Names;
use famfs_cli::args::Rm;
use serde::{Serialize, Serializer};

use crate::output::{INTERRUPTED, OK, OrExit, Outcome, human, print_json, say, stop_flag, stopped};
use crate::place::{Place, paths_of_one};

#[derive(Serialize)]
struct RmReport {
    version: u32,
    dry_run: bool,
    files: u64,
    directories: u64,
    /// Bytes that `compact` will free.
    bytes: u64,
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
    let place = Place::open(pool, Some(first), Access::Write)?;
    let mut writer = place.writer(args.dry_run)?;
    let nodes = nodes_to_delete(pool, args, writer.plan())?;
    writer.check_slots(nodes.len() as u64)?;
    let mut report = RmReport {
        version: 1,
        dry_run: args.dry_run,
        files: 0,
        directories: 0,
        bytes: 0,
        paths: Vec::new(),
    };
    for node in nodes {
        if stopped(&stop) {
            writer.commit()?;
            return Err(anyhow::anyhow!("interrupted; {} paths are deleted", report.paths.len()))
                .or_exit(INTERRUPTED);
        }
        if let Err(error) = writer.delete(&node.path) {
            // What was deleted before stays deleted, and is reported.
            let done = match writer.commit() {
                Ok(()) => "",
                Err(_) => "not all of ",
            };
            let count = report.paths.len();
            return Err(error).context(format!("{done}{count} paths before it are deleted"))?;
        }
        match &node.kind {
            NodeKind::Dir => report.directories += 1,
            NodeKind::File { map, .. } => {
                report.files += 1;
                report.bytes += map.extents().iter().map(|extent| extent.len).sum::<u64>();
            }
        }
        report.paths.push(node.path);
    }
    writer.commit()?;
    print_report(args, &report)?;
    Ok(OK)
}

fn print_report(args: &Rm, report: &RmReport) -> Result<()> {
    if args.json {
        return print_json(report);
    }
    if args.verbose || args.dry_run {
        for path in &report.paths {
            say!("{path}")?;
        }
        let RmReport { files, directories, bytes, .. } = report;
        let verb = if args.dry_run { "would be deleted" } else { "deleted" };
        say!(
            "{files} files and {directories} directories {verb}; `famfs compact` then frees {}",
            human(*bytes)
        )?;
    }
    Ok(())
}

/// What to delete; the contents of a directory come before it.
fn nodes_to_delete(pool: Option<&Path>, args: &Rm, plan: &Plan) -> Result<Vec<Node>> {
    let mut roots = Vec::new();
    let paths: Vec<&Path> = args.paths.iter().map(PathBuf::as_path).collect();
    for path in paths_of_one(pool, &paths)? {
        match plan.get(&path).map(|node| &node.kind) {
            Some(NodeKind::Dir) if !args.recursive => {
                plan.check_delete(&path)
                    .with_context(|| format!("\"{path}\" is a directory: use --recursive"))?;
                roots.push(path);
            }
            Some(_) => roots.push(path),
            None if args.force => {}
            None => bail!("\"{path}\" is not in the log"),
        }
    }
    let is_to_delete = |node: &&Node| roots.iter().any(|root| node.path.is_within(root));
    let mut nodes: Vec<Node> = plan.nodes().iter().filter(is_to_delete).cloned().collect();
    // A plan has directories before their contents; they are deleted after them.
    nodes.reverse();
    Ok(nodes)
}
