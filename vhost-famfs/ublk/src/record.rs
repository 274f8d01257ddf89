// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the kernel does not know about a device: one file per device in /run, which is all that
//! `list`, `del` and `recover` need. libublk keeps its own file, in a directory that every user may
//! write to; that file is never read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use famfs::system::ownership::{self, Fault};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::source::Source;

/// The version of the record's format.
const VERSION: u32 = 1;

/// libublk's directory (`UblkCtrl::run_dir`).
const LIBRARY_DIR: &str = "/run/ublksrvd";

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A system call failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Other users could have written it.
    #[error(
        "{}: belongs to user {owner} with mode {mode:03o}, expected user {expected} and no access \
         for others; remove it", .path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
        /// The owner that it should have.
        expected: u32,
    },
    /// Other users could have written this one.
    #[error("{} {fault}, so it is not used; remove it", .path.display())]
    File {
        /// The record.
        path: PathBuf,
        /// Why other users could have changed it.
        fault: Fault,
    },
    /// It was not written by this program.
    #[error("{}: is not a record of this version", .path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// It was written by another version of the program.
    #[error("{}: record of version {found}, expected {VERSION}", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// A device as requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// What it shows.
    pub source: Source,
    /// The identity of its overlay, if the overlay outlives the device.
    #[serde(default)]
    pub overlay: Option<Uuid>,
    /// Whom it is for, in the words of whoever requested it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

impl Record {
    /// The record of a new device.
    pub fn new(source: Source, overlay: Option<Uuid>, owner: Option<String>) -> Self {
        Self { version: VERSION, source, overlay, owner }
    }
}

/// The directory of the records: one for root, and one for each user.
#[derive(Clone, Debug)]
pub struct Records(PathBuf);

fn io<'p>(action: &'static str, path: &'p Path) -> impl Fn(io::Error) -> RecordError + 'p {
    move |source| RecordError::Io { action, path: path.to_owned(), source }
}

impl Records {
    /// Finds the directory, and creates it if it does not exist.
    pub fn open() -> Result<Self, RecordError> {
        let user = rustix::process::geteuid();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
        let base = match runtime {
            Some(dir) if !user.is_root() => PathBuf::from(dir),
            _ => PathBuf::from("/run"),
        };
        if user.is_root() {
            make_library_dir()?;
        }
        Self::at(&base.join("vhost-famfs-ublk"), user.as_raw())
    }

    /// Uses a directory that must belong to `user` alone.
    fn at(path: &Path, user: u32) -> Result<Self, RecordError> {
        let parent = path.parent().unwrap_or(path);
        for (dir, mode) in [(parent, 0o755), (path, 0o700)] {
            match DirBuilder::new().mode(mode).create(dir) {
                Err(err) if err.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io("create the directory", dir)(err));
                }
                _ => {}
            }
        }
        let meta = fs::symlink_metadata(path).map_err(io("look at", path))?;
        let mode = meta.mode() & 0o777;
        if !meta.is_dir() || meta.uid() != user || mode & 0o077 != 0 {
            let (path, owner) = (path.to_owned(), meta.uid());
            return Err(RecordError::Foreign { path, owner, mode, expected: user });
        }
        Ok(Self(path.to_owned()))
    }

    fn path(&self, id: u32) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }

    /// The record of a device; `None` if another program or user created it.
    pub fn get(&self, id: u32) -> Result<Option<Record>, RecordError> {
        let path = self.path(id);
        let no_link = OFlags::NOFOLLOW.bits().cast_signed();
        let file = match File::options().read(true).custom_flags(no_link).open(&path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(io("open", &path)(err)),
        };
        let metadata = file.metadata().map_err(io("look at", &path))?;
        ownership::own_file(&metadata)
            .map_err(|fault| RecordError::File { path: path.clone(), fault })?;
        let record: Record = serde_json::from_reader(io::BufReader::new(file))
            .map_err(|source| RecordError::Form { path: path.clone(), source })?;
        if record.version != VERSION {
            return Err(RecordError::Version { path, found: record.version });
        }
        Ok(Some(record))
    }

    /// Writes the record of a device, completely or not at all.
    pub fn put(&self, id: u32, record: &Record) -> Result<(), RecordError> {
        let path = self.path(id);
        let part = path.with_extension("part");
        // Left over from an interrupted command.
        let _ = fs::remove_file(&part);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&part).map_err(io("make", &part))?;
        serde_json::to_writer(&mut file, record)
            .map_err(io::Error::from)
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| fs::rename(&part, &path))
            .map_err(io("write", &path))
    }

    /// Removes the record of a device, if there is one.
    pub fn remove(&self, id: u32) -> Result<(), RecordError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(io("remove", &path)(err)),
            _ => Ok(()),
        }
    }
}

/// Creates libublk's directory before libublk does. Like /tmp, it keeps users from replacing each
/// other's files. With the directory that libublk creates, any user could make root write through a
/// link.
fn make_library_dir() -> Result<(), RecordError> {
    let path = Path::new(LIBRARY_DIR);
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o1777))
            .map_err(io("set the mode of", path)),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(err) => Err(io("create the directory", path)(err)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Changes;

    fn user() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn record() -> Record {
        let changes = Changes::Overlay("/overlay".into());
        let source = Source::Image { image: "/image".into(), changes };
        Record::new(source, Some(Uuid::from_u128(5)), Some("vm1".into()))
    }

    #[test]
    fn records_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::at(&dir.path().join("a/ublk"), user()).unwrap();
        assert_eq!(records.get(3).unwrap(), None);
        records.put(3, &record()).unwrap();
        assert_eq!(records.get(3).unwrap(), Some(record()));
        records.remove(3).unwrap();
        records.remove(3).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("a/ublk")).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ublk");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o770)).unwrap();
        let refused = Records::at(&path, user());
        assert!(matches!(refused, Err(RecordError::Foreign { mode: 0o770, .. })), "{refused:?}");
    }

    #[test]
    fn a_record_that_others_could_have_written_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::at(&dir.path().join("ublk"), user()).unwrap();
        records.put(3, &record()).unwrap();
        fs::set_permissions(records.path(3), PermissionsExt::from_mode(0o666)).unwrap();
        assert!(matches!(records.get(3), Err(RecordError::File { .. })));
        fs::rename(records.path(3), dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("real"), records.path(3)).unwrap();
        assert!(records.get(3).is_err(), "a link");
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::at(&dir.path().join("ublk"), user()).unwrap();
        for text in ["", "{}", r#"{"version":1,"source":{"kind":"image"}}"#] {
            fs::write(records.path(0), text).unwrap();
            assert!(matches!(records.get(0), Err(RecordError::Form { .. })), "{text}");
        }
        let text = serde_json::to_string(&Record { version: 2, ..record() }).unwrap();
        fs::write(records.path(0), text).unwrap();
        assert!(matches!(records.get(0), Err(RecordError::Version { found: 2, .. })));
    }
}
