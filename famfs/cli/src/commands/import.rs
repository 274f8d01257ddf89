// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs import`

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use famfs::archive::import::{Done, Import, ImportError, Options};
use famfs::replay::NodeKind;
use famfs::sys::dax::Access;
use famfs::text::json_name::Name;
use famfs::write::dropped::Counts;
use famfs_cli::args::Import as Args;
use serde::Serialize;

use super::dropped::report_dropped;
use crate::output::{FAILED, INTERRUPTED, OK, OrExit, Outcome, human, print_json, progress_bar};
use crate::output::{notice, say, stop_flag, stopped};
use crate::place::{Place, masked, owner};

#[derive(Serialize)]
struct ImportReport<'a> {
    version: u32,
    dry_run: bool,
    files: u64,
    directories: u64,
    packs: u64,
    packed_files: u64,
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

pub fn run(pool: Option<&Path>, args: &Args) -> Outcome {
    let input = open(args)?;
    let is_file = input.metadata().is_ok_and(|metadata| metadata.is_file());
    if args.pack && !is_file {
        let error = anyhow!(
            "--pack reads the whole archive first, so it needs a file: save the archive and \
             name it with --input"
        );
        return Err(error.into());
    }
    let stop = stop_flag()?;
    let place = Place::open(pool, args.path.as_deref(), Access::Write)?;
    let mut writer = place.writer(args.dry_run)?;
    if let Some(path) = &place.path {
        match writer.plan().get(path).map(|node| &node.kind) {
            Some(NodeKind::Dir) => {}
            Some(NodeKind::File { .. }) => {
                return Err(anyhow!("\"{path}\" is a file, expected a directory").into());
            }
            None => {
                let error = anyhow!("no directory \"{path}\": make it with `famfs mkdir`");
                return Err(error.into());
            }
        }
    }
    let options = Options {
        into: place.path.clone(),
        skip_unsupported: args.skip_unsupported,
        pack: args.pack,
        dry_run: args.dry_run,
        owner: owner(None, None, masked(0o777)),
    };
    let import = Import::new(&mut writer, options);
    let bar = progress_bar(0);
    let mut progress = |bytes| {
        bar.inc(bytes);
        !stopped(&stop)
    };
    let result = if is_file {
        import.file(&input, |bytes| bar.set_length(bytes), &mut progress)
    } else {
        import.stream(&input, &mut progress)
    };
    bar.finish_and_clear();
    let code = if matches!(result, Err(ImportError::Interrupted)) { INTERRUPTED } else { FAILED };
    let name = || match &args.input {
        Some(path) => format!("cannot unpack {}", path.display()),
        None => "cannot unpack standard input".to_owned(),
    };
    let result = match result {
        Err(err @ ImportError::Archive(_)) => Err(anyhow::Error::new(err).context(name())),
        result => result.map_err(Into::into),
    };
    report(args, &result.or_exit(code)?)?;
    Ok(OK)
}

/// Opens the archive: a file, or standard input.
fn open(args: &Args) -> Result<File> {
    match &args.input {
        Some(path) => File::open(path).with_context(|| format!("cannot open {}", path.display())),
        None if io::stdin().is_terminal() => {
            Err(anyhow!("name an archive with --input FILE, or send it through a pipe"))
        }
        None => {
            let stdin = io::stdin().as_fd().try_clone_to_owned();
            Ok(File::from(stdin.context("cannot use standard input")?))
        }
    }
}

fn report(args: &Args, done: &Done) -> Result<()> {
    let Done { files, directories, packs, packed_files, bytes, left_out, superseded, dropped } =
        done;
    if args.json {
        let skipped = left_out
            .iter()
            .map(|item| Skipped { path: Name::new("path", &item.bytes), reason: &item.reason })
            .collect();
        return print_json(&ImportReport {
            version: 1,
            dry_run: args.dry_run,
            files: *files,
            directories: *directories,
            packs: *packs,
            packed_files: *packed_files,
            bytes: *bytes,
            superseded: *superseded,
            skipped,
            dropped: dropped.counts(),
        });
    }
    for item in left_out {
        say!("skipped {}: {}", item.name, item.reason)?;
    }
    let packs = match packs {
        0 => String::new(),
        _ => format!(", {packs} of them packs of {packed_files} files"),
    };
    let (skipped, bytes) = (left_out.len(), human(*bytes));
    report_dropped(dropped, args.verbose)?;
    if *superseded > 0 {
        notice!("{superseded} members were skipped, because a later one has the same name");
    }
    let would = if args.dry_run { "would make " } else { "" };
    say!("{would}{files} files{packs}, {directories} directories, {skipped} skipped, {bytes}")
}
