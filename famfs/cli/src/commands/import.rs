// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs import`

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use famfs::archive::import::{Done, Import, ImportError, Options};
use famfs::format::path::RelPath;
use famfs::replay::Plan;
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::tree::resolve::LastLink;
use famfs::sys::dax::Access;
use famfs::text::json_name::Name;
use famfs::text::units::count;
use famfs::write::dropped::Counts;
use famfs_cli::args::Import as Args;
use serde::Serialize;

use super::dropped::report_dropped;
use crate::oci;
use crate::output::{FAILED, INTERRUPTED, OK, OrExit, Outcome, human, print_json, progress_bar};
use crate::output::{files_and_dirs, notice, say, stop_flag, stopped};
use crate::place::{Place, masked, owner};

#[derive(Serialize)]
struct ImportReport<'a> {
    version: u32,
    dry_run: bool,
    files: u64,
    directories: u64,
    symlinks: u64,
    hard_links: u64,
    /// Names that layers removed or replaced.
    removed: u64,
    /// Existing directories with new attributes.
    attributes: u64,
    bytes: u64,
    superseded: u64,
    skipped: Vec<Skipped<'a>>,
    dropped: Counts,
}

#[derive(Serialize)]
struct Skipped<'a> {
    #[serde(flatten)]
    path: Name,
    reason: &'a str,
}

/// Where archives come from.
enum Input {
    Files(Vec<File>),
    Stream(File),
}

pub fn run(pool: Option<&Path>, args: &Args) -> Outcome {
    let input = open(args)?;
    let stop = stop_flag()?;
    let place = Place::open(pool, args.path.as_deref(), Access::Write)?;
    let mut writer = place.writer(args.dry_run)?;
    let options = Options {
        into: directory(&place, writer.plan())?,
        skip_unsupported: args.skip_unsupported,
        layers: args.layers || args.oci.is_some(),
        atomic: args.atomic,
        owner: owner(None, None, masked(0o777)),
    };
    let import = Import::new(&mut writer, options);
    let bar = progress_bar(0);
    let mut progress = |bytes| {
        bar.inc(bytes);
        !stopped(&stop)
    };
    let result = match &input {
        Input::Files(files) => import.files(files, |bytes| bar.set_length(bytes), &mut progress),
        Input::Stream(stream) => import.stream(stream, &mut progress),
    };
    bar.finish_and_clear();
    let interrupted = matches!(result, Err(ImportError::Interrupted { .. }));
    let result = match result {
        Err(err @ ImportError::Archive(_)) => Err(anyhow::Error::new(err).context(name(args))),
        result => result.map_err(Into::into),
    };
    report(args, &result.or_exit(if interrupted { INTERRUPTED } else { FAILED })?)?;
    Ok(OK)
}

/// The directory to unpack into; `None` is the root.
fn directory(place: &Place, plan: &Plan) -> Result<Option<RelPath>> {
    let Some(path) = place.resolve(plan, LastLink::Follow)? else { return Ok(None) };
    match plan.tree().get(&path).map(|listed| &listed.object.kind) {
        Some(ObjectKind::Dir { .. }) => Ok(Some(path)),
        Some(_) => Err(anyhow!("\"{path}\" is a file, expected a directory")),
        None => Err(anyhow!("no directory \"{path}\": make it with `famfs mkdir`")),
    }
}

/// What is unpacked, for a message.
fn name(args: &Args) -> String {
    match (&args.oci, args.input.as_slice()) {
        (Some(dir), _) => format!("cannot unpack the image in {}", dir.display()),
        (None, []) => "cannot unpack standard input".to_owned(),
        (None, [path]) => format!("cannot unpack {}", path.display()),
        (None, paths) => format!("cannot unpack {} archives", paths.len()),
    }
}

/// Opens the archives: files, or standard input.
fn open(args: &Args) -> Result<Input> {
    if let Some(dir) = &args.oci {
        return Ok(Input::Files(oci::layers(dir)?));
    }
    let open = |path: &PathBuf| {
        File::open(path).with_context(|| format!("cannot open {}", path.display()))
    };
    let mut files: Vec<File> = args.input.iter().map(open).collect::<Result<_>>()?;
    if files.is_empty() {
        if io::stdin().is_terminal() {
            return Err(anyhow!("name an archive with --input FILE, or send it through a pipe"));
        }
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        files.push(File::from(stdin.context("cannot use standard input")?));
    }
    let is_stream = |file: &File| file.metadata().is_ok_and(|metadata| !metadata.is_file());
    if !files.iter().any(is_stream) {
        return Ok(Input::Files(files));
    }
    if args.layers || args.atomic {
        return Err(anyhow!(
            "--layers and --atomic examine the whole archive first, so they need a regular file: \
             save the archive and name it with --input"
        ));
    }
    match files.pop().filter(|_| files.is_empty()) {
        Some(stream) => Ok(Input::Stream(stream)),
        None => Err(anyhow!("several archives need regular files: import a pipe on its own")),
    }
}

fn report(args: &Args, done: &Done) -> Result<()> {
    let Done { files, directories, symlinks, hard_links, removed, bytes, superseded, .. } = *done;
    if args.json {
        let skipped = done
            .left_out
            .iter()
            .map(|item| Skipped { path: Name::new("path", &item.bytes), reason: &item.reason })
            .collect();
        return print_json(&ImportReport {
            version: 1,
            dry_run: args.dry_run,
            files,
            directories,
            symlinks,
            hard_links,
            removed,
            attributes: done.attributes,
            bytes,
            superseded,
            skipped,
            dropped: done.dropped.counts(),
        });
    }
    for item in &done.left_out {
        say!("skipped {}: {}", item.name, item.reason)?;
    }
    report_dropped(&done.dropped, args.verbose)?;
    // A layer that replaces what is in another one is nothing to tell.
    if superseded > 0 && !args.layers && args.oci.is_none() {
        let members =
            if superseded == 1 { "1 member was" } else { &format!("{superseded} members were") };
        notice!("{members} skipped, because a later one has the same name");
    }
    let some = |number: u64, one: &str, many: &str| match number {
        0 => String::new(),
        _ => format!(", {}", count(number, one, many)),
    };
    let would = if args.dry_run { "would make " } else { "" };
    say!(
        "{would}{}{}{}{}, {} skipped, {}",
        files_and_dirs(files, directories),
        some(symlinks, "symbolic link", "symbolic links"),
        some(hard_links, "hard link", "hard links"),
        some(removed, "removed", "removed"),
        done.left_out.len(),
        human(bytes)
    )
}
