// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs cp --compare`

use std::path::{Path, PathBuf};

use anyhow::Result;
use famfs::sys::dax::Access;
use famfs::text::json_name::Name;
use famfs::text::terminal::escape_name;
use famfs::write::compare::{CompareError, Compared, Difference, compare};
use famfs::write::sources::{Options, scan};
use famfs_cli::args::Cp;

use super::{CpReport, Differing, Skipped, destination, warn_of_damage};
use crate::output::{FAILED, Failure, INTERRUPTED, OrExit, files_and_dirs, human, progress_bar};
use crate::output::{notice, say, stop_flag, stopped};
use crate::place::Place;

/// Compares; true if anything differs or could not be compared.
pub fn run(
    pool: Option<&Path>,
    args: &Cp,
    sources: &[PathBuf],
    target: &Path,
) -> Result<(CpReport, bool), Failure> {
    let stop = stop_flag()?;
    let place = Place::open(pool, Some(target), Access::Read)?;
    let plan = place.plan()?;
    let damaged = warn_of_damage(&plan);
    let destination = destination(&place, &plan, target, sources)?;
    // What famfs cannot hold has no counterpart: it is reported as such, with everything else.
    let options = Options { skip_unsupported: true, ..super::options(args, &plan) };
    let scan = scan(sources, &destination, &options)?;
    let skipped: Vec<Skipped> = scan.unsupported.iter().map(Skipped::from).collect();
    let bar = progress_bar(0);
    let result = compare(&scan, &plan, &*place.volume, |bytes| {
        bar.inc(bytes);
        !stopped(&stop)
    });
    bar.finish_and_clear();
    let code = if matches!(result, Err(CompareError::Interrupted)) { INTERRUPTED } else { FAILED };
    let Compared { files, directories, symlinks, hard_links, bytes, differences } =
        result.or_exit(code)?;
    let incomplete = damaged || !skipped.is_empty() && !args.skip_unsupported;
    let failed = incomplete || !differences.is_empty();
    let differences = differences.iter().map(Differing::from).collect();
    let report = CpReport {
        unchanged: files,
        directories,
        symlinks,
        hard_links,
        bytes,
        skipped,
        differences: Some(differences),
        ..CpReport::default()
    };
    Ok((report, failed))
}

impl From<&Difference> for Differing {
    fn from(Difference { source, path, reason }: &Difference) -> Self {
        let source = Name::of_path("source", source);
        let target = Name::new("target", path.as_bytes());
        Self { source, target, reason: reason.clone() }
    }
}

/// Names what differs, and counts the rest if asked to.
pub fn print(args: &Cp, report: &CpReport) -> Result<()> {
    let differences = report.differences.as_deref().unwrap_or_default();
    for Differing { source, target, reason } in differences {
        let [source, target] = [source, target].map(|name| escape_name(name.as_bytes()));
        notice!("\"{target}\" {reason} ({source})");
    }
    if !report.skipped.is_empty() && !args.skip_unsupported {
        let count = report.skipped.len();
        notice!(
            "{count} of the sources cannot be read, or be in a famfs, so they differ: use --skip-unsupported \
             to compare the rest only"
        );
    }
    if args.verbose {
        let CpReport { unchanged, directories, bytes, skipped, .. } = report;
        let (different, skipped) = (differences.len(), skipped.len());
        say!(
            "the same: {}; {different} differ, {skipped} skipped, {}",
            files_and_dirs(*unchanged, *directories),
            human(*bytes)
        )?;
    }
    Ok(())
}
