// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The directory for a user's own pools in tmpfs or hugetlbfs: other users can neither create nor
//! replace files in it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use famfs::system::ownership;
use famfs::system::parent;

use super::PoolError;

/// The directory for this user's pools below `memory`, which is /dev/shm or a hugetlbfs mount.
#[must_use]
pub fn own_directory(memory: &Path) -> PathBuf {
    memory.join(name())
}

/// Whether a path is that of the directory for this user's pools.
#[must_use]
pub fn is_own_directory(path: &Path) -> bool {
    path.file_name().is_some_and(|found| found == name().as_str())
}

fn name() -> String {
    format!("vhost-famfs-{}", rustix::process::geteuid().as_raw())
}

/// Whether a pool is in the directory for this user's pools.
#[must_use]
pub fn is_in_own_directory(pool: &Path) -> bool {
    pool.parent().is_some_and(is_own_directory)
}

/// Checks that other users cannot change the directory; `false` if it does not exist.
///
/// # Errors
/// It belongs to another user, or others can change it.
pub fn check_own_directory(path: &Path) -> Result<bool, PoolError> {
    let io = |source| PoolError::Io { pool: path.to_owned(), action: "look at it", source };
    let wrong = |path: &Path| {
        let directory = path.to_owned();
        move |fault| PoolError::Directory { directory, fault }
    };
    let parent = parent::of(path);
    let metadata = fs::metadata(parent).map_err(io)?;
    ownership::safe_parent(&metadata).map_err(wrong(parent))?;
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io(error)),
        Ok(metadata) => {
            ownership::own_directory(&metadata).map_err(wrong(path))?;
            Ok(true)
        }
    }
}

/// Creates the directory if it does not exist, for this user only.
///
/// # Errors
/// As [`check_own_directory`], or it cannot be created.
pub fn make_own_directory(path: &Path) -> Result<(), PoolError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(PoolError::Io { pool: path.to_owned(), action: "make this directory", source })
        }
        _ => check_own_directory(path).map(drop),
    }
}

/// Removes the directory if no pool is left in it.
pub fn tidy_own_directory(path: &Path) {
    if is_own_directory(path) {
        // Fails if there are other pools.
        let _ = fs::remove_dir(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{CreateError, CreateOptions, check_room, create};
    use famfs::format::view::View;
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn options(memory: &Path) -> CreateOptions {
        let path = own_directory(memory).join("a.pool");
        CreateOptions { own: true, ..CreateOptions::new(path, 16 << 20, View::Devdax) }
    }

    #[test]
    fn it_comes_and_goes_with_its_pools() {
        let memory = tempfile::tempdir().unwrap();
        let options = options(memory.path());
        let directory = own_directory(memory.path());
        check_room(&options).unwrap();
        assert!(!directory.exists(), "checking creates nothing");
        create(&options, &mut |_, _| ()).unwrap();
        assert_eq!(directory.metadata().unwrap().mode() & 0o777, 0o700);
        tidy_own_directory(&directory);
        assert!(options.path.exists());
        fs::remove_file(&options.path).unwrap();
        tidy_own_directory(&directory);
        assert!(!directory.exists());
    }

    #[test]
    fn one_that_others_can_change_is_refused() {
        let memory = tempfile::tempdir().unwrap();
        let options = options(memory.path());
        let directory = own_directory(memory.path());
        let refused = || {
            let errors = [check_room(&options).err(), create(&options, &mut |_, _| ()).err()];
            errors.map(|error| match error {
                Some(CreateError::Directory(error)) => error.to_string(),
                other => panic!("{other:?}"),
            })
        };
        symlink("/tmp", &directory).unwrap();
        assert!(refused().iter().all(|told| told.contains("is a symbolic link")));
        fs::remove_file(&directory).unwrap();
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        assert!(refused().iter().all(|told| told.contains("mode 0777, so that others")));
        fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&directory, Some(65534), None).unwrap();
            assert!(refused().iter().all(|told| told.contains("belongs to user 65534")));
            std::os::unix::fs::chown(&directory, Some(0), None).unwrap();
        }
        // Whoever can rename files in there could replace the directory.
        fs::set_permissions(memory.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(refused().iter().all(|told| told.contains("mode 0777")));
        assert!(!options.path.exists());
    }
}
