// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the commands that change attributes have in common.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Result, bail};
use famfs::format::extension::NO_ENTRY;
use famfs::format::path::RelPath;
use famfs::replay::tree::Tree;
use famfs::replay::tree::object::Object;
use famfs::replay::tree::resolve::LastLink;
use famfs::text::json_name::Name;
use famfs::write::change::NewAttributes;
use famfs::write::writer::{WriteError, Writer};
use famfs_cli::args::ChangeArgs;
use serde::Serialize;

use crate::operands::Operands;
use crate::output::{print_json, say};

/// Something whose attributes may be changed.
pub struct Found<'t> {
    /// Its path; `None` is the root.
    pub path: Option<RelPath>,
    /// What it is and has.
    pub object: &'t Object,
}

/// A change of attributes.
pub struct Change {
    /// Whose; `None` is the root's.
    pub path: Option<RelPath>,
    /// The new attributes.
    pub new: NewAttributes,
    /// What changes, in words.
    pub text: String,
}

#[derive(Serialize)]
struct ChangeReport {
    version: u32,
    dry_run: bool,
    changed: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    #[serde(flatten)]
    path: Name,
    change: String,
}

/// What the arguments name, and with `recursive` what is below it: everything once, whatever number
/// of names it has.
pub fn find<'t>(
    operands: &Operands<'_>,
    tree: &'t Tree,
    args: &[PathBuf],
    recursive: bool,
    last: LastLink,
) -> Result<Vec<Found<'t>>> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for arg in args {
        let path = operands.find(tree, arg, last)?;
        let (slot, object) = match &path {
            None => (NO_ENTRY, tree.object(NO_ENTRY)),
            Some(path) => match tree.get(path) {
                Some(listed) => (listed.name.object, Some(listed.object)),
                None => bail!("\"{path}\" does not exist"),
            },
        };
        if let Some(object) = object.filter(|_| seen.insert(slot)) {
            found.push(Found { path: path.clone(), object });
        }
        let below = if recursive { tree.at_and_below(path.as_ref()) } else { Vec::new() };
        for entry in below {
            if seen.insert(entry.listed.name.object) {
                found.push(Found { path: Some(entry.path), object: entry.listed.object });
            }
        }
    }
    Ok(found)
}

/// Makes several changes one, in a file system that can.
pub fn group(writer: &mut Writer<'_>, changes: usize) -> Result<(), WriteError> {
    let can = writer.plan().has_extensions();
    if changes > 1 && can { writer.atomic() } else { Ok(()) }
}

/// Changes attributes, all at once, and reports it.
pub fn change(writer: &mut Writer<'_>, changes: &[Change], args: ChangeArgs) -> Result<()> {
    group(writer, changes.len())?;
    for Change { path, new, .. } in changes {
        writer.set_attributes(path.as_ref(), new)?;
    }
    writer.commit()?;
    report(changes, args)
}

/// Reports changes.
pub fn report(changes: &[Change], args: ChangeArgs) -> Result<()> {
    let dry_run = args.dry_run;
    if args.json {
        let item = |Change { path, text, .. }: &Change| Item {
            path: Name::new("path", path.as_ref().map_or(b"/", RelPath::as_bytes)),
            change: text.clone(),
        };
        let changed = changes.iter().map(item).collect();
        return print_json(&ChangeReport { version: 1, dry_run, changed });
    }
    for Change { path, text, .. } in changes.iter().filter(|_| args.verbose || dry_run) {
        let path = path.as_ref().map_or("/".to_owned(), RelPath::to_string);
        say!("{}{path}: {text}", would(dry_run, "change"))?;
    }
    Ok(())
}

/// The beginning of a line about something that is or would be done.
pub fn would(dry_run: bool, verb: &str) -> String {
    if dry_run { format!("would {verb} ") } else { String::new() }
}
