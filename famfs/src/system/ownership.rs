// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who can change a file or directory: this user alone, or others too.
//!
//! Anybody can take a name first, in /dev/shm for example. So what is found by name is checked
//! before data is put into it, or taken from it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Permission bits that let users other than the owner change a file.
const WRITABLE: u32 = 0o022;

/// Permission bits to show.
const MODE: u32 = 0o7777;

/// The bit of a directory in which users can remove only their own files (chmod(2)).
const STICKY: u32 = 0o1000;

/// The user identifier of the superuser.
const ROOT: u32 = 0;

/// Why something does not belong to this user alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is of another kind.
    #[error("is {found}, expected {expected}")]
    Kind {
        /// What it is.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// It belongs to another user.
    #[error("belongs to user {owner} with mode {mode:04o}, expected user {expected}")]
    Owner {
        /// Its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
        /// Who should own it.
        expected: u32,
    },
    /// Users other than its owner can change it.
    #[error("belongs to user {owner} with mode {mode:04o}, so that others can change it")]
    Writable {
        /// Its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// It has another name too.
    #[error("belongs to user {owner} with mode {mode:04o} and has {names} names, expected one")]
    Names {
        /// Its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
        /// How many hard links it has.
        names: u64,
    },
}

/// Checks that a directory belongs to this user, and that nobody else can put anything into it. The
/// metadata must not be those of a link's target.
///
/// # Errors
/// What is wrong with it.
pub fn own_directory(metadata: &Metadata) -> Result<(), Fault> {
    if !metadata.is_dir() {
        return Err(kind(metadata, "a directory"));
    }
    own(metadata)?;
    not_writable(metadata)
}

/// Checks that no other user except root can replace what is in a directory.
///
/// # Errors
/// What is wrong with it.
pub fn safe_parent(metadata: &Metadata) -> Result<(), Fault> {
    if !metadata.is_dir() {
        return Err(kind(metadata, "a directory"));
    }
    own_or_roots(metadata)?;
    if metadata.mode() & STICKY != 0 { Ok(()) } else { not_writable(metadata) }
}

/// Checks that a file is a regular one with one name, that it belongs to this user, and that nobody
/// else can write to it.
///
/// # Errors
/// What is wrong with it.
pub fn own_file(metadata: &Metadata) -> Result<(), Fault> {
    own(metadata)?;
    file(metadata)
}

/// As [`own_file`], but the file may also belong to root, who can do everything anyway.
///
/// # Errors
/// What is wrong with it.
pub fn trusted_file(metadata: &Metadata) -> Result<(), Fault> {
    own_or_roots(metadata)?;
    file(metadata)
}

fn file(metadata: &Metadata) -> Result<(), Fault> {
    if !metadata.is_file() {
        return Err(kind(metadata, "a regular file"));
    }
    not_writable(metadata)?;
    let (owner, mode, names) = (metadata.uid(), metadata.mode() & MODE, metadata.nlink());
    if names > 1 { Err(Fault::Names { owner, mode, names }) } else { Ok(()) }
}

fn own(metadata: &Metadata) -> Result<(), Fault> {
    let (owner, mode, expected) = (metadata.uid(), metadata.mode() & MODE, user());
    if owner == expected { Ok(()) } else { Err(Fault::Owner { owner, mode, expected }) }
}

fn own_or_roots(metadata: &Metadata) -> Result<(), Fault> {
    if metadata.uid() == ROOT { Ok(()) } else { own(metadata) }
}

fn not_writable(metadata: &Metadata) -> Result<(), Fault> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & MODE);
    if mode & WRITABLE == 0 { Ok(()) } else { Err(Fault::Writable { owner, mode }) }
}

/// This user.
fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn kind(metadata: &Metadata, expected: &'static str) -> Fault {
    let kind = metadata.file_type();
    let found = if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_file() {
        "a regular file"
    } else {
        "a device, pipe or socket"
    };
    Fault::Kind { found, expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    fn of(path: &Path) -> Metadata {
        path.symlink_metadata().unwrap()
    }

    #[test]
    fn what_others_can_change_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "").unwrap();
        symlink(&file, &link).unwrap();
        let text = |result: Result<(), Fault>| result.map_err(|fault| fault.to_string());
        let chmod = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        for mode in [0o600, 0o644, 0o755] {
            chmod(&file, mode).unwrap();
            assert_eq!((own_file(&of(&file)), trusted_file(&of(&file))), (Ok(()), Ok(())));
        }
        for mode in [0o620, 0o602, 0o666] {
            chmod(&file, mode).unwrap();
            let told = text(trusted_file(&of(&file))).unwrap_err();
            assert!(told.contains(&format!("mode {mode:04o}, so that others")), "{told}");
        }
        chmod(&file, 0o600).unwrap();
        fs::hard_link(&file, dir.path().join("second")).unwrap();
        assert!(text(own_file(&of(&file))).unwrap_err().contains("has 2 names, expected one"));
        let told = text(own_directory(&of(&link))).unwrap_err();
        assert_eq!(told, "is a symbolic link, expected a directory");
        assert!(text(own_file(&of(dir.path()))).unwrap_err().contains("is a directory"));
        assert_eq!(own_directory(&of(dir.path())), Ok(()));
        chmod(dir.path(), 0o1777).unwrap();
        assert!(text(own_directory(&of(dir.path()))).unwrap_err().contains("mode 1777"));
        assert_eq!(safe_parent(&of(dir.path())), Ok(()), "names in it are their owners'");
        chmod(dir.path(), 0o777).unwrap();
        assert!(text(safe_parent(&of(dir.path()))).is_err());
    }

    #[test]
    fn what_is_anothers_is_told() {
        // /proc/1 is root's; a file of another user takes root to be made.
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let root = rustix::process::geteuid().is_root();
        let another =
            if root { std::os::unix::fs::chown(&file, Some(65534), None) } else { Ok(()) };
        another.unwrap();
        let path = if root { file.as_path() } else { Path::new("/proc/1/stat") };
        let told = own_file(&of(path)).unwrap_err().to_string();
        assert!(told.contains("belongs to user ") && told.contains(", expected user "), "{told}");
        assert_eq!(trusted_file(&of(path)).is_ok(), !root, "root is trusted");
    }
}
