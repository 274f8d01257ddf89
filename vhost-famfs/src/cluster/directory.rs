// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The directory of a cluster: `vhost-famfs/NAME` in the runtime directory, for its owner only.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::process;
use super::state::{State, VERSION};

/// Name of the file with the state.
const STATE: &str = "state.json";

/// Largest state that is read: 64 VMs take a few KiB.
const MAX_STATE: u64 = 1 << 20;

/// How long the end of another command on the same cluster is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
const LOCK_TICK: Duration = Duration::from_millis(10);

/// Why the directory of a cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A cluster of this name is there already.
    #[error(
        "cluster {0} is up, or was not taken down; see `vhost-famfs ps {0}`, end it with `vhost-famfs down {0}`, or start this one with another --name"
    )]
    Exists(String),
    /// Another command works on it.
    #[error(
        "cluster {0} is being started or ended by another command; wait for it, or end it with Ctrl-C there"
    )]
    Busy(String),
    /// It belongs to another user.
    #[error("{} belongs to user {owner}, expected {expected}; remove it, or set XDG_RUNTIME_DIR to a directory of your own", path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        expected: u32,
    },
    /// The state is no state.
    #[error("{}: {what}; `vhost-famfs down` of the version that started it ends the cluster", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A system call failed.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// The directory of a cluster, which may not exist.
#[derive(Debug, Clone)]
pub struct Directory {
    base: PathBuf,
    name: String,
    path: PathBuf,
}

/// Keeps other commands from starting or ending the cluster.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The names of the clusters that have a directory.
///
/// # Errors
/// The runtime directory cannot be read.
pub fn names(base: &Path) -> Result<Vec<String>, DirectoryError> {
    let failed = |source| DirectoryError::Io { path: base.into(), action: "list it", source };
    let entries = match fs::read_dir(base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}

impl Directory {
    /// The directory of all clusters.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The directory of a cluster below that of all clusters.
    #[must_use]
    pub fn new(base: &Path, name: &str) -> Self {
        Self { base: base.to_owned(), name: name.to_owned(), path: base.join(name) }
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn io(&self, action: &'static str) -> impl Fn(io::Error) -> DirectoryError + use<> {
        let path = self.path.clone();
        move |source| DirectoryError::Io { path: path.clone(), action, source }
    }

    /// Makes it, with the lock held.
    ///
    /// # Errors
    /// It exists: a cluster of this name is up.
    pub fn create(&self) -> Result<Lock, DirectoryError> {
        let base = |source| DirectoryError::Io {
            path: self.base.clone(),
            action: "make this directory",
            source,
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.base).map_err(base)?;
        // Others could put sockets of their own under our names into a directory of theirs.
        let owner = fs::metadata(&self.base).map_err(base)?.uid();
        let expected = rustix::process::geteuid().as_raw();
        if owner != expected {
            return Err(DirectoryError::Owner { path: self.base.clone(), owner, expected });
        }
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(DirectoryError::Exists(self.name.clone()));
            }
            made => made.map_err(self.io("make this directory"))?,
        }
        self.lock()?.ok_or_else(|| DirectoryError::Busy(self.name.clone()))
    }

    /// Takes the lock; `None` if the directory is gone.
    ///
    /// # Errors
    /// Another command has it.
    pub fn lock(&self) -> Result<Option<Lock>, DirectoryError> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(self.io("open it"))?,
        };
        let end = Instant::now() + LOCK_LIMIT;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if Instant::now() < end => std::thread::sleep(LOCK_TICK),
                Err(Errno::WOULDBLOCK) => return Err(DirectoryError::Busy(self.name.clone())),
                Err(errno) => return Err(self.io("lock it")(errno.into())),
            }
        }
        // Whoever had the lock before may have removed the directory.
        let ours = file.metadata().map_err(self.io("look at it"))?;
        let same = fs::metadata(&self.path)
            .is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino()));
        Ok(same.then_some(Lock { _file: file }))
    }

    /// Reads the state; `None` if there is none yet.
    ///
    /// # Errors
    /// It cannot be read, or is of another version.
    pub fn read(&self) -> Result<Option<State>, DirectoryError> {
        let path = self.path.join(STATE);
        let wrong = |what: String| DirectoryError::State { path: path.clone(), what };
        let failed = |source| DirectoryError::Io { path: path.clone(), action: "read it", source };
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => {
                let len = metadata.map_err(failed)?.len();
                if len > MAX_STATE {
                    return Err(wrong(format!("{len} bytes, expected at most {MAX_STATE}")));
                }
            }
        }
        let text = fs::read_to_string(&path).map_err(failed)?;
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if value["version"] != VERSION {
            return Err(wrong(format!("version {}, expected {VERSION}", value["version"])));
        }
        let mut state: State =
            serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        // After a restart of the host the ids in it name other processes.
        if process::boot_id().is_ok_and(|now| now != state.boot_id) {
            for vm in &mut state.vms {
                (vm.qemu, vm.backend, vm.keeper) = (None, None, None);
            }
        }
        Ok(Some(state))
    }

    /// Replaces the state as a whole.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, state: &State) -> Result<(), DirectoryError> {
        let new = self.path.join("state.json.new");
        let text = serde_json::to_string_pretty(state)
            .map_err(|error| self.io("describe its state")(error.into()))?;
        fs::write(&new, text + "\n")
            .and_then(|()| fs::rename(&new, self.path.join(STATE)))
            .map_err(self.io("write its state"))
    }

    /// Removes it with all that is in it, and the directory of all clusters if this was the last.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(&self) -> Result<(), DirectoryError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.io("remove it")(error));
            }
            _ => {}
        }
        // Fails if there are others.
        let _ = fs::remove_dir(&self.base);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_cluster_has_one_directory_and_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        assert_eq!(names(&base).unwrap(), Vec::<String>::new());
        let cluster = Directory::new(&base, "a");
        let lock = cluster.create().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&base), mode(cluster.path())), (0o700, 0o700));
        assert!(matches!(cluster.create(), Err(DirectoryError::Exists(_))));
        assert!(matches!(cluster.lock(), Err(DirectoryError::Busy(_))));
        drop(lock);
        assert!(cluster.lock().unwrap().is_some());
        assert_eq!((names(&base).unwrap(), cluster.read().unwrap()), (vec!["a".into()], None));
        cluster.remove().unwrap();
        assert!(cluster.lock().unwrap().is_none() && !base.exists());
    }

    #[test]
    fn a_state_of_another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Directory::new(dir.path(), "a");
        let _lock = cluster.create().unwrap();
        for (text, expected) in [
            ("{}", "version null, expected 1"),
            ("{\"version\": 2, \"new\": 1}", "version 2, expected 1"),
            ("{\"version\": 1}", "missing field"),
            ("", "EOF"),
        ] {
            fs::write(cluster.path().join(STATE), text).unwrap();
            let error = cluster.read().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
