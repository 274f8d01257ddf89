// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The logs of a failed start. They are kept in `vhost-famfs-failed/NAME`, next to the directory of
//! all clusters, until the next start with that name.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use famfs::system::ownership;

use crate::bounded_log::older;

/// Name of the directory for all such logs.
const NAME: &str = "vhost-famfs-failed";

/// Where the logs of a cluster are kept; `base` is the directory that holds all clusters.
#[must_use]
pub fn place(base: &Path, cluster: &str) -> PathBuf {
    base.with_file_name(NAME).join(cluster)
}

/// Moves logs there, except empty and missing ones. `None` if there are none.
///
/// # Errors
/// They cannot be moved.
pub fn keep(base: &Path, cluster: &str, logs: &[PathBuf]) -> io::Result<Option<PathBuf>> {
    let all = logs.iter().flat_map(|log| [log.clone(), older(log)]);
    let written: Vec<_> = all
        .filter(|log| log.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() > 0))
        .collect();
    if written.is_empty() {
        return Ok(None);
    }
    forget(base, cluster)?;
    let place = place(base, cluster);
    DirBuilder::new().mode(0o700).recursive(true).create(&place)?;
    for log in written {
        if let Some(name) = log.file_name() {
            fs::rename(&log, place.join(name))?;
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
    match all.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(metadata) => ownership::own_directory(&metadata).map_err(|fault| {
            io::Error::other(format!("directory {} {fault}; remove it", all.display()))
        })?,
        Err(error) => return Err(error),
    }
    match fs::remove_dir_all(all.join(cluster)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Fails if there are other logs.
    let _ = fs::remove_dir(&all);
    Ok(())
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
        forget(&base, "lab").unwrap();
        forget(&base, "lab").unwrap();
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
