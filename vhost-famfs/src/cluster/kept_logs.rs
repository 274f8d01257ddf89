// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The logs of clusters that have ended, or whose start failed. They are kept in
//! `vhost-famfs-logs/NAME`, next to the directory of all clusters, until the next start with that
//! name.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use famfs::system::ownership;

use super::spec::check_name;
use crate::bounded_log::{older, times_of};

/// Name of the directory for all such logs.
const NAME: &str = "vhost-famfs-logs";

/// Where the logs of a cluster are kept; `base` is the directory that holds all clusters.
#[must_use]
pub fn place(base: &Path, cluster: &str) -> PathBuf {
    base.with_file_name(NAME).join(cluster)
}

/// Moves logs there, except empty and missing ones. `None` if there are none. Those that are there
/// stay.
///
/// # Errors
/// They cannot be moved.
pub fn keep(base: &Path, cluster: &str, logs: &[PathBuf]) -> io::Result<Option<PathBuf>> {
    let both = logs.iter().flat_map(|log| [log.clone(), older(log)]);
    let written: Vec<_> = both
        .filter(|log| log.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() > 0))
        .collect();
    if written.is_empty() {
        return Ok(None);
    }
    check_own(base)?;
    let place = place(base, cluster);
    DirBuilder::new().mode(0o700).recursive(true).create(&place)?;
    for log in written {
        if let Some(name) = log.file_name() {
            fs::rename(&log, place.join(name))?;
            // Without them, it is not known when the lines came.
            let _ = fs::rename(times_of(&log), times_of(&place.join(name)));
        }
    }
    Ok(Some(place))
}

/// Removes the logs of a cluster.
///
/// # Errors
/// They cannot be removed, or the directory is another user's.
pub fn forget(base: &Path, cluster: &str) -> io::Result<()> {
    let all = base.with_file_name(NAME);
    if !check_own(base)? {
        return Ok(());
    }
    match fs::remove_dir_all(all.join(cluster)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Fails if there are other logs.
    let _ = fs::remove_dir(&all);
    Ok(())
}

/// Refuses a directory that other users could have made; `false` if there is none.
fn check_own(base: &Path) -> io::Result<bool> {
    let all = base.with_file_name(NAME);
    match all.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(metadata) => match ownership::own_directory(&metadata) {
            Ok(()) => Ok(true),
            Err(fault) => {
                let text = format!("directory {} {fault}; remove it", all.display());
                Err(io::Error::other(text))
            }
        },
    }
}

/// The names of the clusters whose logs are kept, sorted.
///
/// # Errors
/// The directory cannot be read, or is another user's.
pub fn names(base: &Path) -> io::Result<Vec<String>> {
    if !check_own(base)? {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(base.with_file_name(NAME))?;
    let names = entries.map(|entry| Ok(entry?.file_name().into_string()));
    let names: Vec<_> = names.collect::<io::Result<_>>()?;
    let mut names: Vec<String> =
        names.into_iter().flatten().filter(|name| check_name(name).is_ok()).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_kept_until_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("vhost-famfs");
        let log = |name: &str| dir.path().join(name);
        fs::write(log("a.console"), "panic").unwrap();
        fs::write(older(&log("a.console")), "boot").unwrap();
        fs::write(log("a.qemu"), "").unwrap();
        let logs = [log("a.console"), log("a.qemu"), log("none")];
        let place = keep(&base, "lab", &logs).unwrap().unwrap();
        assert_eq!(fs::read_to_string(place.join("a.console")).unwrap(), "panic");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 2);
        assert_eq!(keep(&base, "other", &logs).unwrap(), None);
        // Whoever goes on after an interruption adds the rest.
        fs::write(log("a.qemu"), "late").unwrap();
        keep(&base, "lab", &logs).unwrap().unwrap();
        assert_eq!(fs::read_dir(&place).unwrap().count(), 3);
        assert_eq!(names(&base).unwrap(), ["lab"]);
        forget(&base, "lab").unwrap();
        forget(&base, "lab").unwrap();
        assert_eq!(names(&base).unwrap(), [""; 0]);
        assert!(!base.with_file_name(NAME).exists());
    }

    #[test]
    fn nothing_is_removed_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("vhost-famfs");
        fs::create_dir_all(dir.path().join("precious/lab")).unwrap();
        std::os::unix::fs::symlink("precious", base.with_file_name(NAME)).unwrap();
        assert!(forget(&base, "lab").is_err());
        assert!(dir.path().join("precious/lab").exists());
        // Nor to a place that other users could have created.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(dir.path().join("precious"), open).unwrap();
        fs::remove_file(base.with_file_name(NAME)).unwrap();
        fs::rename(dir.path().join("precious"), base.with_file_name(NAME)).unwrap();
        assert!(forget(&base, "lab").unwrap_err().to_string().contains("mode 0777"));
    }
}
