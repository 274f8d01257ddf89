// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who may write a file system's log: the system whose UUID is in its superblock.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::store::superblock::Superblock;

/// The reference's place for a system's UUID: text, of which the first 36 characters count.
const UUID_FILE: &str = "opt/famfs/system_uuid";
/// The machine's UUID from its firmware: for a VM, the one that was given to its VMM.
const DMI_FILE: &str = "sys/class/dmi/id/product_uuid";

/// What a system may do with a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May append to the log.
    Master,
    /// May read, and map files for writing where their mode allows it.
    Client,
}

impl Role {
    /// The role of a system with this UUID.
    pub fn of(superblock: &Superblock, system: Uuid) -> Self {
        if superblock.system_uuid == system { Self::Master } else { Self::Client }
    }

    /// The role's name as the tools print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Client => "client",
        }
    }
}

/// Why this system has no UUID.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// The file holds something else.
    #[error("{}: found \"{found}\", expected a UUID as text", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Its first characters.
        found: String,
    },
    /// The file can be neither read nor made.
    #[error("no system UUID: cannot {action} {}", path.display())]
    File {
        /// "read" or "create".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// This system's UUID: from /opt/famfs/system_uuid if that exists, else the machine's DMI product
/// UUID, else a random one that is written to /opt/famfs/system_uuid.
pub fn system_uuid() -> Result<Uuid, RoleError> {
    system_uuid_below(Path::new("/"))
}

/// This system's UUID if it has one; makes nothing.
pub fn known_system_uuid() -> Result<Option<Uuid>, RoleError> {
    known_below(Path::new("/"))
}

fn system_uuid_below(root: &Path) -> Result<Uuid, RoleError> {
    if let Some(uuid) = known_below(root)? {
        return Ok(uuid);
    }
    let path = root.join(UUID_FILE);
    create(&path).map_err(|source| RoleError::File { action: "create", path, source })
}

fn known_below(root: &Path) -> Result<Option<Uuid>, RoleError> {
    let path = root.join(UUID_FILE);
    match fs::read(&path) {
        Ok(bytes) => return parse(&path, &bytes).map(Some),
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(RoleError::File { action: "read", path, source }),
    }
    Ok(machine_below(root))
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Uuid, RoleError> {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(36)]);
    Uuid::try_parse(&text).map_err(|_| RoleError::Content {
        path: path.to_owned(),
        found: text.escape_default().to_string(),
    })
}

/// The machine's UUID from its firmware, if there is one and it may be read.
pub fn machine_uuid() -> Option<Uuid> {
    machine_below(Path::new("/"))
}

fn machine_below(root: &Path) -> Option<Uuid> {
    let path = root.join(DMI_FILE);
    let uuid = fs::read(&path).ok().and_then(|bytes| parse(&path, &bytes).ok())?;
    (!uuid.is_nil() && !uuid.is_max()).then_some(uuid)
}

/// Makes the file as the reference does: 36 characters and a NUL, mode 0444. It appears complete;
/// if two programs make it at once, both use the one that came first.
fn create(path: &Path) -> io::Result<Uuid> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    let uuid = Uuid::new_v4();
    let draft = path.with_extension(uuid.simple().to_string());
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(&draft)?;
    let made = file
        .write_all(format!("{uuid}\0").as_bytes())
        .and_then(|()| file.sync_all())
        // A link: a rename would replace a file that another program made meanwhile.
        .and_then(|()| fs::hard_link(&draft, path));
    // The draft has done its work; a leftover does no harm.
    let _ = fs::remove_file(&draft);
    match made {
        Ok(()) => Ok(uuid),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => parse(path, &fs::read(path)?)
            .map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err)),
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "12345678-9abc-4def-8123-456789abcdef";
    const DMI: &str = "4f04cd51-11d6-4da2-8cd8-e9c1ff2eae0d";

    fn system(
        file: Option<&str>,
        dmi: Option<&str>,
    ) -> (tempfile::TempDir, Result<Uuid, RoleError>) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in [(UUID_FILE, file), (DMI_FILE, dmi)] {
            if let Some(text) = text {
                let path = root.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        }
        let uuid = system_uuid_below(root.path());
        (root, uuid)
    }

    #[test]
    fn the_file_wins_over_the_machine() {
        let text = format!("{FILE}\0rubbish");
        assert_eq!(system(Some(&text), Some(DMI)).1.unwrap().to_string(), FILE);
        assert_eq!(system(None, Some(&format!("{DMI}\n"))).1.unwrap().to_string(), DMI);
    }

    #[test]
    fn a_missing_uuid_is_made_and_kept() {
        let (root, made) = system(None, Some("ffffffff-ffff-ffff-ffff-ffffffffffff\n"));
        let made = made.unwrap();
        assert_eq!(system_uuid_below(root.path()).unwrap(), made);
        let bytes = fs::read(root.path().join(UUID_FILE)).unwrap();
        assert_eq!(bytes, format!("{made}\0").as_bytes());
    }

    #[test]
    fn all_that_make_it_at_once_agree() {
        let root = tempfile::tempdir().unwrap();
        let make = || system_uuid_below(root.path()).unwrap();
        let made: Vec<Uuid> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(made.iter().all(|uuid| *uuid == made[0]), "{made:?}");
        let dir = root.path().join(UUID_FILE);
        let left = fs::read_dir(dir.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "drafts are removed");
    }

    #[test]
    fn a_file_with_something_else_is_an_error() {
        let error = system(Some("hello\n"), Some(DMI)).1.unwrap_err().to_string();
        assert!(error.ends_with("found \"hello\\n\", expected a UUID as text"), "{error}");
    }
}
