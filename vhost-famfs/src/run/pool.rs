// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `pool`.

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::bar::Bar;
use super::report::{json, json_list};
use super::{notice, say};
use vhost_famfs::args::PoolConfig;
use vhost_famfs::cluster::host::runtime_dir;
use vhost_famfs::cluster::pools;
use vhost_famfs::pool::{self, Identity, PoolReport, Unused};

/// Longest answer that is read.
const MAX_ANSWER: u64 = 80;

pub(super) fn run(config: PoolConfig) -> Result<()> {
    match config {
        PoolConfig::Create { options, json } => {
            let bar = Bar::new("allocating memory");
            let report = pool::create(&options, &mut |done, total| bar.show(done, total))?;
            bar.clear();
            print(&report, json)
        }
        PoolConfig::List { directories, json } => {
            let mut reports = pool::list(&directories)?;
            name_clusters(&mut reports);
            if json { json_list("pools", &reports) } else { say(pool::table(&reports)) }
        }
        PoolConfig::Inspect { path, owners, json } => {
            pool::check_owners(&path, owners)?;
            let mut report = pool::inspect(&path)?;
            name_clusters(std::slice::from_mut(&mut report));
            print(&report, json)
        }
        PoolConfig::Grow { options, json } => {
            let bar = Bar::new("reserving storage");
            let tell = |text: &str| notice(text);
            let report = pool::grow(&options, &mut |done, total| bar.show(done, total), tell)?;
            bar.clear();
            print(&report, json)
        }
        PoolConfig::Resize { options, json } => {
            let bar = Bar::new("allocating memory");
            let report = pool::resize(&options, &mut |done, total| bar.show(done, total))?;
            bar.clear();
            print(&report, json)
        }
        PoolConfig::Prune { pools, yes, dry_run } => prune(&pools, yes, dry_run),
        PoolConfig::Remove { path, force, owners } => {
            pool::remove(&path, force, owners)?;
            say(format_args!("{}: removed", path.display()))
        }
    }
}

/// Fills in which clusters have the pools. Returns why the pools of some clusters are not known.
fn name_clusters(reports: &mut [PoolReport]) -> Vec<anyhow::Error> {
    let users = match runtime_dir() {
        Ok(base) => pools::users(&base),
        Err(error) => return vec![error.into()],
    };
    for report in reports {
        let found = Identity { dev: report.dev, ino: report.ino };
        let names = users.pools.iter().filter(|(pool, _)| *pool == found);
        report.clusters = names.map(|(_, name)| name.clone()).collect();
    }
    users.unknown.into_iter().map(anyhow::Error::from).collect()
}

/// Fails if the pools of a cluster are not known.
fn name_all_clusters(reports: &mut [PoolReport]) -> Result<()> {
    match name_clusters(reports).into_iter().next() {
        Some(error) => {
            Err(error.context("it is not known which pools clusters have, so none is removed"))
        }
        None => Ok(()),
    }
}

fn prune(paths: &[PathBuf], yes: bool, dry_run: bool) -> Result<()> {
    let mut named = Vec::new();
    for path in paths {
        named.push(path.canonicalize().with_context(|| path.display().to_string())?);
    }
    let directories: Vec<_> = named.iter().filter_map(|path| path.parent()).collect();
    let directories: Vec<_> = directories.into_iter().map(Path::to_owned).collect();
    let mut reports = pool::list(&directories)?;
    name_all_clusters(&mut reports)?;
    if !named.is_empty() {
        reports.retain(|report| named.contains(&report.path));
    }
    let is_pool = |path: &PathBuf| reports.iter().any(|found| found.path == *path);
    if let Some(path) = named.iter().find(|path| !is_pool(path)) {
        bail!("{}: is not a pool; `vhost-famfs pool list` shows all", path.display());
    }
    let mut failed = 0;
    let mut removed = 0;
    for report in &reports {
        let unused = match pool::unused(report) {
            Ok(unused) => unused,
            Err(why) if !named.is_empty() => {
                notice(format_args!("{}: {why}; not removed", report.path.display()));
                failed += 1;
                continue;
            }
            // A pool that is not for this command.
            Err(_) => continue,
        };
        let remove = match (dry_run, yes) {
            (true, _) => {
                say(format_args!("{unused}: would be removed{}", condition(&unused)))?;
                continue;
            }
            (_, true) => unused.contents.is_empty() || !named.is_empty(),
            _ => ask(&unused)?,
        };
        if !remove {
            say(format_args!("{unused}: kept{}", condition(&unused)))?;
            continue;
        }
        match remove_pool(report, &unused) {
            Ok(()) => {
                removed += 1;
                say(format_args!("{unused}: removed"))?;
            }
            Err(error) => {
                notice(format_args!("{error:#}"));
                failed += 1;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} pools were not removed");
    }
    if !dry_run {
        say(format_args!("pools removed: {removed}"))?;
    }
    Ok(())
}

/// Removes a pool, unless somebody uses it by now.
fn remove_pool(report: &PoolReport, unused: &Unused) -> Result<()> {
    let mut now = [report.clone()];
    name_all_clusters(&mut now)?;
    if let [cluster, ..] = &now[0].clusters[..] {
        bail!("pool {}: cluster {cluster} has it now; not removed", report.path.display());
    }
    Ok(pool::remove_unused(report, unused)?)
}

/// What it takes to remove a pool with files.
fn condition(unused: &Unused) -> String {
    match unused.contents.is_empty() {
        true => String::new(),
        false => format!("; to remove it unasked: pool prune --yes {}", unused.path.display()),
    }
}

/// Asks on the terminal; everything but `y` or `yes` is no.
fn ask(unused: &Unused) -> Result<bool> {
    if !io::stdin().is_terminal() {
        bail!(
            "{unused}: cannot ask without a terminal; use --yes, or --dry-run to see what there is"
        );
    }
    notice(format_args!("remove {unused}? [y/N]"));
    let mut answer = String::new();
    io::stdin().lock().take(MAX_ANSWER).read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "yes"))
}

fn print(report: &PoolReport, as_json: bool) -> Result<()> {
    if as_json { json(report) } else { say(report) }
}
