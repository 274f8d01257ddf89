// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs check`

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use famfs::format::extension::NO_ENTRY;
use famfs::format::map::Memory;
use famfs::format::path::{META_DIR, RelPath};
use famfs::kernel::mount::Mounted;
use famfs::kernel::sweep::names;
use famfs::kernel::target::{Backed, Dir, Found, Target, describe};
use famfs::replay::Contents;
use famfs::replay::tree::Tree;
use famfs::sys::dax::Access;
use famfs::system::mounts;
use famfs::text::json_name::Name;
use famfs::text::terminal::escape_name;
use famfs::text::units::count;
use famfs::write::volume::Volume;
use famfs_cli::args::Check;
use rustix::fs::FileType;
use serde::Serialize;

use super::warn_of_damage;
use crate::output::{FAILED, OK, Outcome, files_and_dirs, print_json, say};

#[derive(Default, Serialize)]
struct CheckReport {
    version: u32,
    files: u64,
    directories: u64,
    symlinks: u64,
    /// Names of the log that have not appeared yet.
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
    let damaged = warn_of_damage(&plan);
    let no_writer = || false;
    let check =
        Comparison { mount_point, target: &volume.site(&no_writer).target, tree: plan.tree() };
    let mut report = CheckReport { version: 1, ..CheckReport::default() };
    let verbose = args.verbose && !args.json && !args.quiet;
    check.walk(None, &mut report, verbose)?;
    let is_there =
        |path: &[u8]| mount_point.join(OsStr::from_bytes(path)).symlink_metadata().is_ok();
    let _ = plan.tree().walk(NO_ENTRY, |path, _| {
        report.missing += u64::from(!is_there(path));
        Ok::<(), ()>(())
    });
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
        let errors = count(problems.len(), "error", "errors");
        say!("{}, {errors}", files_and_dirs(*files, *directories))?;
    }
    Ok(if damaged || !report.problems.is_empty() { FAILED } else { OK })
}

/// A mounted tree, and what it should be.
struct Comparison<'a> {
    mount_point: &'a Path,
    target: &'a Target<'a>,
    tree: &'a Tree,
}

impl Comparison<'_> {
    /// Examines everything below a directory; `None` is the root.
    fn walk(&self, dir: Option<&RelPath>, report: &mut CheckReport, verbose: bool) -> Result<()> {
        let shown = || dir.map_or_else(|| "the root".to_owned(), RelPath::to_string);
        let open = self.target.open(dir).with_context(|| format!("cannot open {}", shown()))?;
        let mut names = names(&open).with_context(|| format!("cannot read {}", shown()))?;
        names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (name, kind) in names {
            let path = match dir {
                Some(dir) => [dir.as_bytes(), b"/", &name].concat(),
                None if name == META_DIR.as_bytes() => continue,
                None => name.clone(),
            };
            if verbose {
                say!("{}", escape_name(&path))?;
            }
            let inside = RelPath::new(&path).with_context(|| format!("below {}", shown()))?;
            let problem = self.problem_of(&open, &name, &inside);
            match kind {
                FileType::Directory => {
                    report.directories += 1;
                    self.walk(Some(&inside), report, verbose)?;
                }
                FileType::Symlink => report.symlinks += 1,
                _ => report.files += 1,
            }
            if let Some(problem) = problem {
                let path = self.mount_point.join(OsStr::from_bytes(&path));
                report.problems.push(Problem { path: Name::of_path("path", &path), problem });
            }
        }
        Ok(())
    }

    /// What is wrong with a name of an open directory.
    fn problem_of(&self, dir: &Dir, name: &[u8], path: &RelPath) -> Option<String> {
        const NO_MAP: &str = "no map and no memory: the famfs tools did not make it";
        let Some(listed) = self.tree.get(path) else {
            let memory = self.target.memory(dir, name, 0, &Memory::Pieces(Vec::new()));
            let stranger = matches!(memory, Ok(Backed::Without));
            return Some(if stranger { NO_MAP } else { "not in the log" }.to_owned());
        };
        match self.target.examine(dir, name, self.tree, listed.object) {
            Ok(Found::Same(_)) => None,
            Ok(Found::Missing) => Some("it was just removed".to_owned()),
            Ok(Found::Stub) => Some(NO_MAP.to_owned()),
            Ok(Found::OtherMemory) => {
                Some("its memory differs from the log: unmount and mount again".to_owned())
            }
            Ok(Found::Other(found)) => {
                Some(format!("{found}, expected {} as in the log", describe(listed.object)))
            }
            Err(err) => Some(err.to_string()),
        }
    }
}
