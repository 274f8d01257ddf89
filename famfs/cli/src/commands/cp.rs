// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs cp`

mod compare;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use famfs::archive::extract::{self, Base, ExtractError};
use famfs::format::path::RelPath;
use famfs::replay::Plan;
use famfs::replay::tree::object::{Object, ObjectKind};
use famfs::replay::tree::resolve::LastLink;
use famfs::sys::dax::Access;
use famfs::text::json_name::{Name, Names};
use famfs::text::terminal::escape_name;
use famfs::text::units::count;
use famfs::write::copy::{Action, Copy, CopyError};
use famfs::write::dropped::{Counts, Dropped};
use famfs::write::sources::{Destination, Options, Unsupported, scan};
use famfs::write::transfer::How;
use famfs_cli::args::Cp;
use serde::Serialize;

use super::dropped::report_dropped;
use super::{report_set_id, warn_of_damage, without_set_id_names};
use crate::output::{
    FAILED, Failure, INTERRUPTED, OK, OrExit, Outcome, files_and_dirs, human, print_json,
    progress_bar,
};
use crate::output::{say, stop_flag, stopped};
use crate::place::{Place, check_dir, masked, names_dir, pool_path, striping};

#[derive(Default, Serialize)]
struct CpReport {
    version: u32,
    dry_run: bool,
    files: u64,
    overwritten: u64,
    /// Files and links that others took the place of.
    replaced: u64,
    unchanged: u64,
    directories: u64,
    symlinks: u64,
    hard_links: u64,
    /// Existing files, directories and links that got the owner, mode or time of their sources.
    attributes: u64,
    bytes: u64,
    seconds: f64,
    skipped: Vec<Skipped>,
    /// Existing files and directories that keep an owner or mode other than their source's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kept: Vec<Skipped>,
    /// What the sources have and a famfs does not keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<Counts>,
    #[serde(skip)]
    lost: Dropped,
    /// The differences that --compare found.
    #[serde(skip_serializing_if = "Option::is_none")]
    differences: Option<Vec<Differing>>,
    /// Files that were copied out without their set-user-ID or set-group-ID bits.
    #[serde(flatten)]
    without_set_id: Option<Names>,
    /// What a dry run would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    actions: Option<Vec<Planned>>,
}

#[derive(Serialize)]
struct Skipped {
    #[serde(flatten)]
    path: Name,
    reason: String,
}

#[derive(Serialize)]
struct Differing {
    #[serde(flatten)]
    source: Name,
    #[serde(flatten)]
    target: Name,
    reason: String,
}

#[derive(Serialize)]
struct Planned {
    action: &'static str,
    #[serde(flatten)]
    source: Name,
    #[serde(flatten)]
    target: Name,
}

pub fn run(pool: Option<&Path>, args: &Cp) -> Outcome {
    let Some((target, sources)) = args.paths.split_last() else { return Ok(OK) };
    let start = Instant::now();
    let (mut report, failed) = match (args.compare, args.out) {
        (true, _) => compare::run(pool, args, sources, target)?,
        (false, true) => copy_out(pool, args, sources, target)?,
        (false, false) => (copy_in(pool, args, sources, target)?, false),
    };
    report.version = 1;
    report.dry_run = args.dry_run;
    report.seconds = start.elapsed().as_secs_f64();
    if args.json {
        print_json(&report)?;
    } else {
        print(args, &report)?;
    }
    Ok(if failed { FAILED } else { OK })
}

fn copy_in(
    pool: Option<&Path>,
    args: &Cp,
    sources: &[PathBuf],
    target: &Path,
) -> Result<CpReport, Failure> {
    let stop = stop_flag()?;
    let place = Place::open(pool, Some(target), Access::Write)?;
    let mut writer = place.writer(args.dry_run)?;
    if let Some(striping) = striping(&args.interleave)? {
        writer.interleave(striping)?;
    }
    let destination = destination(&place, writer.plan(), target, sources)?;
    let scan = scan(sources, &destination, &options(args, writer.plan()))?;
    if args.atomic {
        writer.atomic()?;
    }
    let skipped = scan.unsupported.iter().map(Skipped::from).collect();
    let mut copy = match args.replace {
        false => match Copy::prepare(scan, &mut writer) {
            Err(error @ CopyError::Taken(_)) => {
                let hint = "files and links that are in the way: see --replace";
                return Err(anyhow::anyhow!("{error}\n{hint}").into());
            }
            prepared => prepared?,
        },
        true => match Copy::prepare_to_replace(scan, &mut writer, &|_| !stopped(&stop)) {
            Err(error @ CopyError::Interrupted { .. }) => Err(error).or_exit(INTERRUPTED)?,
            prepared => prepared?,
        },
    };
    let kept = copy.kept.iter().map(Skipped::from).collect();
    let lost = std::mem::take(&mut copy.dropped);
    let dropped = Some(lost.counts());
    if args.dry_run {
        return Ok(CpReport { skipped, kept, dropped, lost, ..planned(&copy) });
    }
    let how = match (How::default(), usize::from(args.threads)) {
        (default, 0) => How { verify: args.verify, ..default },
        (_, threads) => How { threads, verify: args.verify },
    };
    let bar = progress_bar(copy.bytes);
    let result = copy.run(&*place.volume, &mut writer, &how, |bytes| {
        bar.inc(bytes);
        !stopped(&stop)
    });
    bar.finish_and_clear();
    let done = match result {
        Err(error @ CopyError::Interrupted { .. }) => Err(error).or_exit(INTERRUPTED)?,
        // Says itself what became of the rest.
        Err(error @ CopyError::NotAtomic { .. }) => return Err(error.into()),
        result => result.context(match args.atomic {
            true => "the copy failed, and nothing was written",
            false => {
                "the copy is not complete; what was complete is kept, and the same command continues \
                 it"
            }
        })?,
    };
    let counts = CpReport {
        files: done.files,
        overwritten: done.overwritten,
        replaced: done.replaced,
        unchanged: done.unchanged,
        directories: done.directories,
        symlinks: done.symlinks,
        hard_links: done.hard_links,
        attributes: done.attributes,
        bytes: done.bytes,
        ..CpReport::default()
    };
    Ok(CpReport { skipped, kept, dropped, lost, ..counts })
}

/// How to examine the sources.
fn options(args: &Cp, plan: &Plan) -> Options {
    Options {
        recursive: args.recursive,
        dereference: args.dereference,
        conventional: !plan.has_extensions(),
        skip_unsupported: args.skip_unsupported,
        mode: args.owner.mode.map(masked),
        uid: args.owner.uid,
        gid: args.owner.gid,
    }
}

impl From<&Unsupported> for Skipped {
    fn from(item: &Unsupported) -> Self {
        Self { path: Name::of_path("path", &item.source), reason: item.reason.clone() }
    }
}

/// What a copy would do, as counts and as a list.
fn planned(copy: &Copy) -> CpReport {
    let unchanged = copy.unchanged();
    let mut report = CpReport { bytes: copy.bytes, unchanged, ..CpReport::default() };
    let actions = copy.actions().map(|(action, source, target)| {
        let (count, action) = match action {
            Action::Mkdir => (&mut report.directories, "mkdir"),
            Action::Create => (&mut report.files, "create"),
            Action::Update => (&mut report.overwritten, "update"),
            Action::Replace => (&mut report.replaced, "replace"),
            Action::Symlink => (&mut report.symlinks, "symlink"),
            Action::Link => (&mut report.hard_links, "link"),
            Action::Attributes => (&mut report.attributes, "attributes"),
        };
        *count += 1;
        let target = Name::new("target", target.as_bytes());
        Planned { action, source: Name::of_path("source", source), target }
    });
    let actions = actions.collect();
    CpReport { actions: Some(actions), ..report }
}

/// The meaning of the last argument: a directory to copy into, or a new name for the only source.
fn destination(
    place: &Place,
    plan: &Plan,
    target: &Path,
    sources: &[PathBuf],
) -> Result<Destination> {
    let Some(path) = &place.resolve(plan, LastLink::Follow)? else {
        return Ok(Destination::Into(None));
    };
    let dir_wanted = sources.len() > 1 || names_dir(target);
    match plan.tree().get(path).map(|listed| listed.object) {
        Some(Object { kind: ObjectKind::Dir { .. }, .. }) => {
            Ok(Destination::Into(Some(path.clone())))
        }
        None if dir_wanted => bail!("no directory \"{path}\": make it with `famfs mkdir`"),
        Some(object) if dir_wanted => {
            bail!("\"{path}\" is a {}, expected a directory", object.kind_name())
        }
        _ => Ok(Destination::As(path.clone())),
    }
}

fn copy_out(
    pool: Option<&Path>,
    args: &Cp,
    sources: &[PathBuf],
    target: &Path,
) -> Result<(CpReport, bool), Failure> {
    let pool =
        pool.context("--out needs --pool FILE; to copy out of a mounted famfs, use cp(1)")?;
    if args.owner.mode.is_some() || args.owner.uid.is_some() || args.owner.gid.is_some() {
        return Err(anyhow::anyhow!("--out takes no --mode, --uid and --gid").into());
    }
    let stop = stop_flag()?;
    let place = Place::open(Some(pool), None, Access::Read)?;
    let plan = place.plan()?;
    let damaged = warn_of_damage(&plan);
    let into = target.is_dir();
    if !into && sources.len() > 1 {
        return Err(no_directory(target).into());
    }
    // Paths below the named directory are opened without following links.
    let base = match into {
        true => Base::open(target)?,
        false => Base::open(target.parent().unwrap_or(Path::new("")))?,
    };
    let mut items = Vec::new();
    for source in sources {
        let path = pool_path(source)?;
        let name = path.as_ref().and_then(|path| path.as_path().file_name());
        // `DIR/.` and the root stand for what is in the directory.
        let contents = source.as_os_str().as_bytes().ends_with(b"/.");
        let below = match (into, name.filter(|_| !contents)) {
            (true, Some(name)) => Path::new(name),
            (true, None) => Path::new(""),
            (false, _) => Path::new(target.file_name().unwrap_or_default()),
        };
        let path = source_path(&plan, source, path.as_ref())?;
        items.extend(extract::list(plan.tree(), path.as_ref(), (&base, below), args.recursive)?);
    }
    if !into && names_dir(target) && !items[0].is_dir() {
        return Err(no_directory(target).into());
    }
    // A guest can give a file the name of the pool.
    for item in items.iter().filter(|item| item.size().is_some()) {
        if let Some(existing) = &item.existing {
            place.check_existing(existing, &item.target())?;
        }
    }
    let bytes = items.iter().filter_map(extract::Item::size).sum();
    let report = CpReport { bytes, ..CpReport::default() };
    if args.dry_run {
        return Ok((planned_out(&items, report), damaged));
    }
    let bar = progress_bar(bytes);
    let result =
        extract::extract((&*place.volume, plan.tree()), &items, args.keep_set_id, |bytes| {
            bar.inc(bytes);
            !stopped(&stop)
        });
    bar.finish_and_clear();
    let code = if matches!(result, Err(ExtractError::Interrupted)) { INTERRUPTED } else { FAILED };
    let extract::Done { files, directories, symlinks, hard_links, without_set_id } =
        result.or_exit(code)?;
    report_set_id(&without_set_id);
    let without_set_id = without_set_id_names(&without_set_id);
    let report = CpReport { files, directories, symlinks, hard_links, without_set_id, ..report };
    Ok((report, damaged))
}

/// What is wrong with a target on the host that should be a directory.
fn no_directory(target: &Path) -> anyhow::Error {
    let name = target.display();
    match target.symlink_metadata() {
        Ok(_) => anyhow::anyhow!("{name} is not a directory, expected one"),
        Err(_) => anyhow::anyhow!("no directory {name}: make it first"),
    }
}

/// The path that a source stands for. A symbolic link is copied as a link, as cp(1) does in a tree,
/// unless the source names what is in the directory that it leads to.
fn source_path(plan: &Plan, source: &Path, path: Option<&RelPath>) -> Result<Option<RelPath>> {
    let last = match names_dir(source) {
        true => LastLink::Follow,
        false => LastLink::Keep,
    };
    let Some(path) = path else { return Ok(None) };
    let path = plan.tree().resolve(path, last)?;
    if names_dir(source) {
        check_dir(plan.tree(), path.as_ref())?;
    }
    Ok(path)
}

fn planned_out(items: &[extract::Item<'_>], mut report: CpReport) -> CpReport {
    let mut actions = Vec::new();
    for item in items {
        let action = match (item.is_dir(), item.existing.is_some()) {
            (true, true) => continue,
            (true, false) => "mkdir",
            (false, true) => "replace",
            (false, false) => "create",
        };
        match action {
            "mkdir" => report.directories += 1,
            "replace" => report.overwritten += 1,
            _ if item.is_symlink() => report.symlinks += 1,
            _ => report.files += 1,
        }
        let source = Name::new("source", item.path().map_or(b"/", RelPath::as_bytes));
        let target = Name::of_path("target", &item.target());
        actions.push(Planned { action, source, target });
    }
    CpReport { actions: Some(actions), ..report }
}

fn print(args: &Cp, report: &CpReport) -> Result<()> {
    for Planned { action, source, target } in report.actions.iter().flatten() {
        let [source, target] = [source, target].map(|name| escape_name(name.as_bytes()));
        match *action {
            "mkdir" => say!("would make directory {target}")?,
            "update" => say!("would compare {target} with {source} and replace what differs")?,
            "replace" => say!("would replace {target} with {source}")?,
            "link" => say!("would link {target} to the other name of {source}")?,
            "attributes" => say!("would give {target} owner, mode and time of {source}")?,
            _ => say!("would copy {source} to {target}")?,
        }
    }
    for item in &report.skipped {
        say!("skipped {}: {}", escape_name(item.path.as_bytes()), item.reason)?;
    }
    for item in &report.kept {
        say!("{}: {}", escape_name(item.path.as_bytes()), item.reason)?;
    }
    report_dropped(&report.lost, args.verbose)?;
    if args.compare {
        return compare::print(args, report);
    }
    if args.verbose || args.dry_run || !report.skipped.is_empty() {
        let CpReport { files, directories, overwritten, replaced, .. } = report;
        let CpReport { unchanged, bytes, skipped, .. } = report;
        let CpReport { symlinks, hard_links, attributes, .. } = report;
        let skipped = skipped.len();
        let mut counts = files_and_dirs(*files, *directories);
        for (number, one, many) in
            [(symlinks, "symbolic link", "symbolic links"), (hard_links, "hard link", "hard links")]
        {
            if *number > 0 {
                counts.push_str(&format!(", {}", count(*number, one, many)));
            }
        }
        match args.replace {
            true => counts.push_str(&format!(", {replaced} replaced")),
            false => counts.push_str(&format!(", {overwritten} overwritten")),
        }
        if *attributes > 0 {
            counts.push_str(&format!(", attributes of {attributes}"));
        }
        match args.dry_run {
            true => say!("{counts}, {skipped} skipped, {}; nothing was written", human(*bytes))?,
            false => say!("{counts}, {unchanged} unchanged, {skipped} skipped, {}", human(*bytes))?,
        }
    }
    Ok(())
}
