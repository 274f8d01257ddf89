// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs check`

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use famfs::format::path::{META_DIR, RelPath};
use famfs::kernel::mount::Mounted;
use famfs::replay::{Contents, NodeKind, Plan};
use famfs::sys::dax::Access;
use famfs::sys::ioctl;
use famfs::system::mounts;
use famfs::text::json_name::Name;
use famfs::text::terminal::escape_name;
use famfs::write::volume::Volume;
use famfs_cli::args::Check;
use rustix::io::Errno;
use serde::Serialize;

use super::warn_of_damage;
use crate::output::{FAILED, OK, Outcome, print_json, say};

#[derive(Default, Serialize)]
struct CheckReport {
    version: u32,
    files: u64,
    directories: u64,
    /// Files of the log that have not appeared yet.
    missing: u64,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Problem {
    #[serde(flatten)]
    path: Name,
    problem: String,
}

pub fn run(args: &Check) -> Outcome {
    let found = mounts::locate(&args.mount_point)?;
    let mount_point = &found.mount.mount_point;
    if !found.inside.as_os_str().is_empty() {
        let (given, found) = (args.mount_point.display(), mount_point.display());
        return Err(anyhow!("{given} is not a mount point; did you mean {found}?").into());
    }
    let volume = Mounted::at(mount_point, &found.mount.source)?.open(Access::Read, None)?;
    let plan = Contents::read(volume.media())?.plan;
    plan.require_conventional()?;
    let damaged = warn_of_damage(&plan);
    let mut report = CheckReport { version: 1, ..CheckReport::default() };
    let verbose = args.verbose && !args.json && !args.quiet;
    walk(mount_point, Path::new(""), &plan, &mut report, verbose)?;
    let is_there = |path: &RelPath| mount_point.join(path.as_path()).symlink_metadata().is_ok();
    report.missing = plan.nodes().iter().filter(|node| !is_there(&node.path)).count() as u64;
    if args.json {
        print_json(&report)?;
    } else if !args.quiet {
        for Problem { path, problem } in &report.problems {
            say!("problem: {}: {problem}", escape_name(path.as_bytes()))?;
        }
        if report.missing > 0 {
            say!(
                "{} files and directories of the log have not appeared yet: run `famfs logplay`",
                report.missing
            )?;
        }
        let CheckReport { files, directories, problems, .. } = &report;
        say!("{files} files, {directories} directories, {} errors", problems.len())?;
    }
    Ok(if damaged || !report.problems.is_empty() { FAILED } else { OK })
}

/// Examines everything below a directory.
fn walk(
    root: &Path,
    inside: &Path,
    plan: &Plan,
    report: &mut CheckReport,
    verbose: bool,
) -> Result<()> {
    let dir = root.join(inside);
    let reading = || format!("cannot read {}", dir.display());
    let mut names = fs::read_dir(&dir)
        .with_context(reading)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<Vec<_>>>()
        .with_context(reading)?;
    names.sort_unstable();
    for name in names {
        let inside = inside.join(&name);
        if inside == Path::new(META_DIR) {
            continue;
        }
        let path = root.join(&inside);
        if verbose {
            say!("{}", escape_name(path.as_os_str().as_bytes()))?;
        }
        let kind = path
            .symlink_metadata()
            .with_context(|| format!("cannot examine {}", path.display()))?
            .file_type();
        let problem = if kind.is_dir() {
            report.directories += 1;
            walk(root, &inside, plan, report, verbose)?;
            None
        } else if kind.is_file() {
            report.files += 1;
            problem_of(&path, &inside, plan)
        } else {
            Some("neither a file nor a directory".to_owned())
        };
        if let Some(problem) = problem {
            report.problems.push(Problem { path: Name::of_path("path", &path), problem });
        }
    }
    Ok(())
}

/// What is wrong with a file.
fn problem_of(path: &Path, inside: &Path, plan: &Plan) -> Option<String> {
    let mapped = File::open(path).map_err(|err| err.to_string()).and_then(|file| {
        ioctl::map_get(&file).map_err(|err| match err {
            Errno::NODATA => "no map and no memory: the famfs tools did not make it".to_owned(),
            err => err.to_string(),
        })
    });
    let (size, map) = match mapped {
        Ok(mapped) => mapped,
        Err(problem) => return Some(problem),
    };
    let logged = RelPath::new(inside.as_os_str().as_bytes()).ok();
    let logged = logged.and_then(|path| plan.get(&path)).map(|node| &node.kind);
    match logged {
        Some(NodeKind::File { size: logged, .. }) if *logged != size => {
            Some(format!("{size} bytes, expected {logged} as in the log"))
        }
        Some(NodeKind::File { map: logged, .. }) if *logged != map => {
            Some("its memory differs from the log: unmount and mount again".to_owned())
        }
        Some(NodeKind::File { .. }) => None,
        Some(NodeKind::Dir) => Some("a file, expected a directory as in the log".to_owned()),
        None => Some("not in the log".to_owned()),
    }
}
