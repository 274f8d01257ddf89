// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs export`

use std::io::{self, IsTerminal};
use std::path::Path;

use anyhow::{Context, anyhow};
use famfs::archive::export::{self, Done, ExportError, Options};
use famfs::replay::tree::Tree;
use famfs::replay::tree::list::Entry;
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::tree::resolve::LastLink;
use famfs::sys::dax::Access;
use famfs::system::output_file::{OutputFile, is_stdout};
use famfs::text::json_name::Names;
use famfs::text::units::count;
use famfs_cli::args::Export;
use serde::Serialize;

use super::rows::is_dir;
use super::{report_set_id, warn_of_damage, without_set_id_names};
use crate::output::{
    FAILED, Failure, INTERRUPTED, OK, OrExit, Outcome, USAGE, human, print_json, progress_bar,
};
use crate::output::{files_and_dirs, say, stop_flag, stopped};
use crate::place::Place;

#[derive(Serialize)]
struct ExportReport {
    version: u32,
    files: u64,
    directories: u64,
    symlinks: u64,
    hard_links: u64,
    packs: u64,
    bytes: u64,
    /// What was exported without set-user-ID or set-group-ID bits.
    #[serde(flatten)]
    without_set_id: Option<Names>,
}

pub fn run(pool: Option<&Path>, args: &Export) -> Outcome {
    // `-` means the same as no option.
    let output = args.output.as_deref().filter(|path| !is_stdout(path));
    if output.is_none() && io::stdout().is_terminal() {
        return Err(anyhow!("standard output is a terminal: use --output FILE, or a pipe").into());
    }
    if output.is_none() && args.json {
        let error = anyhow!("--json needs an --output FILE other than standard output");
        return Err(Failure { code: USAGE, error });
    }
    let stop = stop_flag()?;
    let place = Place::open(pool, args.path.as_deref(), Access::Read)?;
    let plan = place.plan()?;
    let damaged = warn_of_damage(&plan);
    let entries = place.entries(&plan, LastLink::Follow)?;
    // A file keeps its name, a directory stands for its contents.
    let below = match (place.resolve(&plan, LastLink::Follow)?, &entries[..]) {
        (Some(path), [only]) if !is_dir(only) => path.parent(),
        (path, _) => path,
    };
    let tree = plan.tree();
    let bytes = entries.iter().map(|entry| size(tree, entry)).sum();
    let bar = progress_bar(bytes);
    let mut progress = |bytes| {
        bar.inc(bytes);
        !stopped(&stop)
    };
    let volume = &*place.volume;
    let options = Options { keep_packs: args.keep_packs, keep_set_id: args.keep_set_id };
    let result = match output {
        None => {
            let out = io::BufWriter::new(io::stdout().lock());
            export::export(volume, (tree, &entries), below.as_ref(), options, out, &mut progress)
        }
        Some(path) => {
            let failed = || format!("cannot write {}", path.display());
            place.check_output(path)?;
            let mut file = OutputFile::create(path).with_context(failed)?;
            let out = io::BufWriter::new(&mut file);
            export::export(volume, (tree, &entries), below.as_ref(), options, out, &mut progress)
                .and_then(|done| {
                    file.finish().map_err(ExportError::End)?;
                    Ok(done)
                })
        }
    };
    bar.finish_and_clear();
    let code = if matches!(result, Err(ExportError::Interrupted)) { INTERRUPTED } else { FAILED };
    let done = result.or_exit(code)?;
    report_set_id(&done.without_set_id);
    report(args, output, done)?;
    Ok(if damaged { FAILED } else { OK })
}

/// Bytes of a file that have memory.
fn size(tree: &Tree, entry: &Entry<'_>) -> u64 {
    match &entry.listed.object.kind {
        ObjectKind::File { size, bytes } => tree.allocated(bytes).min(*size),
        _ => 0,
    }
}

/// A report on standard output is possible only if the archive goes elsewhere.
fn report(args: &Export, output: Option<&Path>, done: Done) -> anyhow::Result<()> {
    let Done { files, directories, symlinks, hard_links, packs, bytes, without_set_id } = done;
    let Some(path) = output else { return Ok(()) };
    if args.json {
        let without_set_id = without_set_id_names(&without_set_id);
        let version = 1;
        return print_json(&ExportReport {
            version,
            files,
            directories,
            symlinks,
            hard_links,
            packs,
            bytes,
            without_set_id,
        });
    }
    let mut also = String::new();
    for (number, one, many) in [
        (symlinks, "symbolic link", "symbolic links"),
        (hard_links, "hard link", "hard links"),
        (packs, "pack unpacked", "packs unpacked"),
    ] {
        if number > 0 {
            also += &format!(", {}", count(number, one, many));
        }
    }
    let bytes = human(bytes);
    say!("{}: {}{also}, {bytes}", path.display(), files_and_dirs(files, directories))
}
