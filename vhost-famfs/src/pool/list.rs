// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finding pools.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use famfs::text::units::Bytes;

use super::inspect::{PoolReport, open_to_read, without_holders};
use super::open::Owners;
use super::{holders, kind};

/// Where to look for pools, in addition to hugetlbfs mounts and `$XDG_RUNTIME_DIR`.
const PLACES: [&str; 2] = ["/dev/shm", "/var/lib/vhost-famfs"];

/// A directory that the user named cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot look for pools in {}", directory.display())]
pub struct ListError {
    /// The directory.
    pub directory: PathBuf,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// The pools in the usual places and in `directories`, one level deep, sorted by path.
pub fn list(directories: &[PathBuf]) -> Result<Vec<PoolReport>, ListError> {
    let mut paths = BTreeSet::new();
    for directory in usual_places() {
        // The directory does not exist or is not readable: this user has no pools there.
        let _ = collect(&directory, &mut paths);
    }
    for directory in directories {
        collect(directory, &mut paths)
            .map_err(|source| ListError { directory: directory.clone(), source })?;
    }
    Ok(paths.iter().filter_map(|path| pool(path)).collect())
}

fn usual_places() -> Vec<PathBuf> {
    let mut places: Vec<_> = PLACES.iter().map(PathBuf::from).collect();
    places.extend(env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
    let mounts = famfs::system::mounts::read().unwrap_or_default();
    let huge = mounts.into_iter().filter(|mount| mount.fs_type == "hugetlbfs");
    places.extend(huge.map(|mount| mount.mount_point));
    places
}

/// The regular files in a directory and in its subdirectories.
fn collect(directory: &Path, paths: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    // Use one name for each pool, no matter how the directory was named.
    let directory = directory.canonicalize()?;
    let own = directory.metadata()?.dev();
    let mut below = Vec::new();
    for entry in fs::read_dir(&directory)? {
        let entry = entry?;
        // Do not follow symbolic links or enter mounts: each mount is a place of its own.
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_file() {
            paths.insert(entry.path());
        } else if meta.is_dir() && meta.dev() == own {
            below.push(entry.path());
        }
    }
    for directory in below {
        let files = fs::read_dir(directory).into_iter().flatten().flatten();
        paths.extend(files.filter(|e| e.file_type().is_ok_and(|t| t.is_file())).map(|e| e.path()));
    }
    Ok(())
}

/// A file that is recognizable as a pool, because it has an info block or a famfs.
fn pool(path: &Path) -> Option<PoolReport> {
    let (file, facts): (_, kind::Facts) = open_to_read(path, Owners::Any).ok()?;
    let mut report = without_holders(&file, facts, path).ok()?;
    if report.view == "raw" && report.famfs.is_none() {
        return None;
    }
    report.holders = holders::find(path, facts.identity);
    Some(report)
}

/// The pools as a table.
pub fn table(reports: &[PoolReport]) -> String {
    if reports.is_empty() {
        return "no pools; create one with `vhost-famfs pool create /dev/shm/pool --size 1G`"
            .to_owned();
    }
    let width = reports.iter().map(|r| r.path.display().to_string().len()).max().unwrap_or(0);
    let mut text = format!(
        "{:<width$}  {:<9}  {:>10}  {:>12}  {:<7}  {:>6}  {:>5}  CLUSTER",
        "POOL", "KIND", "SIZE", "ALLOCATED", "VIEW", "FILES", "USERS"
    );
    for report in reports {
        let files = match &report.famfs {
            None => "-".to_owned(),
            Some(famfs) if famfs.problem.is_some() => "?".to_owned(),
            Some(famfs) => famfs.files.to_string(),
        };
        let clusters = match report.clusters.as_slice() {
            [] => "-".to_owned(),
            names => names.join(","),
        };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n{:<width$}  {:<9}  {:>10}  {:>12}  {:<7}  {files:>6}  {:>5}  {clusters}",
            report.path.display().to_string(),
            report.kind.name(),
            Bytes(report.size).to_string(),
            Bytes(report.allocated).to_string(),
            report.view,
            report.holders.len()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{CreateOptions, create};
    use famfs::format::view::View;

    #[test]
    fn finds_pools_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("below");
        let too_deep = below.join("deep");
        fs::create_dir_all(&too_deep).unwrap();
        for (path, view) in [
            (dir.path().join("tank"), View::Devdax),
            (below.join("other"), View::Devdax),
            (dir.path().join("raw"), View::Raw),
            (too_deep.join("hidden"), View::Devdax),
        ] {
            create(&CreateOptions::new(path, 16 << 20, view), &mut |_, _| ()).unwrap();
        }
        fs::write(dir.path().join("small"), "no pool").unwrap();
        std::os::unix::fs::symlink("tank", dir.path().join("link")).unwrap();
        let reports = list(&[dir.path().to_owned()]).unwrap();
        let found: Vec<_> = reports.iter().map(|r| &r.path).collect();
        let ours = |name: &str| dir.path().join(name);
        assert!(found.contains(&&ours("tank")), "{found:?}");
        assert!(found.contains(&&ours("below/other")), "{found:?}");
        for name in ["raw", "small", "link", "below/deep/hidden"] {
            assert!(!found.contains(&&ours(name)), "{name}");
        }
        assert!(table(&reports).contains("below/other"));
        let again = list(&[dir.path().to_owned(), dir.path().join("below/..")]).unwrap();
        // Others may have pools, too.
        let of_ours = |report: &&PoolReport| report.path.starts_with(dir.path());
        assert_eq!(again.iter().filter(of_ours).count(), 2, "under another name");
        assert!(list(&[ours("missing")]).is_err());
    }
}
