// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The directory of a cluster: `vhost-famfs/NAME` in the runtime directory, accessible only to its
//! owner.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use famfs::system::lock::{self, Mode as LockMode};
use famfs::system::neighbours;
use famfs::system::ownership::{self, Fault};
use famfs::system::process::boot_id;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use uuid::Uuid;

use super::roles;
use super::spec::check_name;
use super::state::{State, VERSION};
use crate::vm::VmPaths;

/// Name of the state file.
const STATE: &str = "state.json";

/// Name of the file that identifies the directory as a cluster's. It holds the mark of the
/// cluster's processes.
const INSTANCE: &str = "instance";

/// Largest state file that is read; 64 VMs take a few KiB.
const MAX_STATE: u64 = 1 << 20;

/// How long to wait for another command that works on the same cluster.
const LOCK_LIMIT: Duration = Duration::from_secs(2);

/// Why the directory of a cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A cluster with this name already exists.
    #[error(
        "cluster {0} is running, or was not taken down; see `vhost-famfs ps {0}`, stop it with \
         `vhost-famfs down {0}`, or start this one with another --name"
    )]
    Exists(String),
    /// Another command is working on it.
    #[error(
        "another command is starting or stopping cluster {0}; wait until it has finished, or press \
         Ctrl-C there"
    )]
    Busy(String),
    /// Other users could have written its contents.
    #[error(
        "{} {fault}: its contents could come from another user, so they are not used; set \
         XDG_RUNTIME_DIR to a directory of your own", path.display()
    )]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// Why other users could have changed it.
        fault: Fault,
    },
    /// The state file is not valid.
    #[error(
        "{}: {what}; to stop the cluster, use `vhost-famfs down` of the version that started it, \
         or stop what can be found of it with `vhost-famfs down --force {cluster}`", path.display()
    )]
    State {
        /// The cluster.
        cluster: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The directory is not a cluster's.
    #[error("{} is not the directory of a cluster, so it is not removed; check what is in it", .0.display())]
    NoCluster(PathBuf),
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

/// The directory of a cluster. It need not exist.
#[derive(Debug, Clone)]
pub struct Directory {
    base: PathBuf,
    name: String,
    path: PathBuf,
}

/// Keeps other commands from starting or stopping the cluster.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The names of the clusters that have a directory.
///
/// # Errors
/// The runtime directory cannot be read, or other users can change it.
pub fn names(base: &Path) -> Result<Vec<String>, DirectoryError> {
    let failed = |source| DirectoryError::Io { path: base.into(), action: "list it", source };
    if !is_own(base)? {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(base).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        // A directory that cannot be read is listed; using it tells the reason.
        let other = || matches!(content(&entry.path()), Ok(Content::Other));
        if is_directory && check_name(&name).is_ok() && !other() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Removes a runtime directory that has no clusters, also if a `down` that was killed left it.
pub fn clear(base: &Path) {
    if is_own(base).unwrap_or(false) {
        // A keeper that was killed leaves its socket.
        neighbours::sweep(base);
        // Fails if there are other clusters.
        let _ = fs::remove_dir(base);
    }
}

/// What a directory contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// A cluster's mark or state.
    Cluster,
    /// Nothing: a start was interrupted.
    Nothing,
    /// Something else.
    Other,
}

fn content(path: &Path) -> io::Result<Content> {
    if [INSTANCE, STATE].iter().any(|name| path.join(name).symlink_metadata().is_ok()) {
        return Ok(Content::Cluster);
    }
    let is_empty = fs::read_dir(path)?.next().is_none();
    Ok(if is_empty { Content::Nothing } else { Content::Other })
}

/// Whether the directory that holds all clusters exists. It must belong to this user alone.
fn is_own(base: &Path) -> Result<bool, DirectoryError> {
    let foreign = |path: &Path| {
        let path = path.to_owned();
        move |fault| DirectoryError::Foreign { path, fault }
    };
    let metadata = match base.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        metadata => metadata.map_err(|source| DirectoryError::Io {
            path: base.into(),
            action: "look at it",
            source,
        })?,
    };
    ownership::own_directory(&metadata).map_err(foreign(base))?;
    // Whoever can write to the parent directory could replace this one.
    if let Some(parent) = base.parent()
        && let Ok(metadata) = parent.metadata()
    {
        ownership::safe_parent(&metadata).map_err(foreign(parent))?;
    }
    Ok(true)
}

impl Directory {
    /// The directory of all clusters.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The directory of a cluster in the directory that holds all clusters.
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

    /// The sockets and logs of a VM, all of which are in this directory.
    #[must_use]
    pub fn vm(&self, name: &str) -> VmPaths {
        VmPaths::new(name, &self.path, &self.path)
    }

    fn io(&self, action: &'static str) -> impl Fn(io::Error) -> DirectoryError + use<> {
        let path = self.path.clone();
        move |source| DirectoryError::Io { path: path.clone(), action, source }
    }

    /// Creates the directory for the cluster with that mark, and locks it.
    ///
    /// # Errors
    /// The directory exists: a cluster with this name is running.
    pub fn create(&self, instance: Uuid) -> Result<Lock, DirectoryError> {
        let base = |source| DirectoryError::Io {
            path: self.base.clone(),
            action: "make this directory",
            source,
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.base).map_err(base)?;
        is_own(&self.base)?;
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(DirectoryError::Exists(self.name.clone()));
            }
            made => made.map_err(self.io("make this directory"))?,
        }
        let lock = self.lock()?.ok_or_else(|| DirectoryError::Busy(self.name.clone()))?;
        new_file(&self.path.join(INSTANCE))
            .and_then(|mut file| writeln!(file, "{instance}"))
            .map_err(self.io("mark it"))?;
        Ok(lock)
    }

    /// Opens the directory, if it exists; it must belong to this user alone.
    fn open(&self) -> Result<Option<File>, DirectoryError> {
        if !is_own(&self.base)? {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&self.path, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.io("open it")(errno.into())),
        };
        let metadata = file.metadata().map_err(self.io("look at it"))?;
        ownership::own_directory(&metadata)
            .map_err(|fault| DirectoryError::Foreign { path: self.path.clone(), fault })?;
        Ok(Some(file))
    }

    /// The text of a file in the directory; `None` if the file does not exist.
    fn text(&self, name: &str) -> Result<Option<String>, DirectoryError> {
        let Some(directory) = self.open()? else { return Ok(None) };
        let path = self.path.join(name);
        let failed = |source| DirectoryError::Io { path: path.clone(), action: "read it", source };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&directory, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            // A link or a socket.
            Err(Errno::LOOP | Errno::NXIO) => {
                return Err(self.wrong(name, "it is not a regular file".into()));
            }
            Err(errno) => return Err(failed(errno.into())),
        };
        let metadata = file.metadata().map_err(failed)?;
        // Only this user can have put it there, so it is damage, and may be removed.
        ownership::own_file(&metadata).map_err(|fault| self.wrong(name, format!("it {fault}")))?;
        let mut text = Vec::new();
        file.take(MAX_STATE + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_STATE {
            let what = format!("{} bytes, expected at most {MAX_STATE}", metadata.len());
            return Err(self.wrong(name, what));
        }
        String::from_utf8(text).map(Some).map_err(|_| self.wrong(name, "it is not text".into()))
    }

    fn wrong(&self, name: &str, what: String) -> DirectoryError {
        DirectoryError::State { cluster: self.name.clone(), path: self.path.join(name), what }
    }

    /// The record of how a VM's processes ended; empty if it cannot be read.
    #[must_use]
    pub fn ends(&self, vm: &str) -> String {
        let ends = self.vm(vm).ends;
        let name = ends.file_name().and_then(|name| name.to_str());
        name.and_then(|name| self.text(name).ok()?).unwrap_or_default()
    }

    /// The mark of the cluster's processes, if it is known without the state file.
    #[must_use]
    pub fn instance(&self) -> Option<Uuid> {
        self.text(INSTANCE).ok()??.trim().parse().ok()
    }

    /// Takes the lock; `None` if the directory no longer exists.
    ///
    /// # Errors
    /// Another command holds it.
    pub fn lock(&self) -> Result<Option<Lock>, DirectoryError> {
        let Some(file) = self.open()? else { return Ok(None) };
        if !lock::within(&file, LockMode::Exclusive, LOCK_LIMIT).map_err(self.io("lock it"))? {
            return Err(DirectoryError::Busy(self.name.clone()));
        }
        // The previous holder of the lock may have removed the directory.
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
        let wrong = |what: String| self.wrong(STATE, what);
        let Some(text) = self.text(STATE)? else { return Ok(None) };
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if value["version"] != VERSION {
            return Err(wrong(format!("version {}, expected {VERSION}", value["version"])));
        }
        let mut state: State =
            serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        state.check(&self.name, &self.base).map_err(wrong)?;
        // After a reboot, the process ids in it belong to other processes.
        if boot_id().is_ok_and(|now| now.to_string() != state.boot_id) {
            for vm in &mut state.vms {
                (vm.qemu, vm.backend, vm.keeper, vm.supervisor) = (None, None, None, None);
            }
        }
        if state.emitted {
            roles::find(&mut state, &self.path);
        }
        Ok(Some(state))
    }

    /// Replaces the whole state file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, state: &State) -> Result<(), DirectoryError> {
        let new = self.path.join("state.json.new");
        let text = serde_json::to_string_pretty(state)
            .map_err(|error| self.io("describe its state")(error.into()))?;
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.io("write its state")(error));
            }
            _ => {}
        }
        new_file(&new)
            .and_then(|mut file| file.write_all((text + "\n").as_bytes()))
            .and_then(|()| fs::rename(&new, self.path.join(STATE)))
            .map_err(self.io("write its state"))
    }

    /// Removes the directory and its contents, and the directory that holds all clusters if it is
    /// empty.
    ///
    /// # Errors
    /// Something cannot be removed, or the directory is not a cluster's.
    pub fn remove(&self) -> Result<(), DirectoryError> {
        if self.open()?.is_none() {
            return Ok(());
        }
        let removed = match content(&self.path) {
            Ok(Content::Cluster) => fs::remove_dir_all(&self.path),
            Ok(Content::Nothing) => fs::remove_dir(&self.path),
            Ok(Content::Other) => return Err(DirectoryError::NoCluster(self.path.clone())),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.io("remove it")(error));
            }
            _ => {}
        }
        clear(&self.base);
        Ok(())
    }
}

/// Creates a file for this user only, regardless of the umask.
fn new_file(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_cluster_has_one_directory_and_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        assert_eq!(names(&base).unwrap(), Vec::<String>::new());
        let cluster = Directory::new(&base, "a");
        let lock = cluster.create(Uuid::nil()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&base), mode(cluster.path())), (0o700, 0o700));
        assert!(matches!(cluster.create(Uuid::nil()), Err(DirectoryError::Exists(_))));
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
        let _lock = cluster.create(Uuid::nil()).unwrap();
        for (text, expected) in [
            ("{}", "version null, expected 1"),
            ("{\"version\": 2, \"new\": 1}", "version 2, expected 1"),
            ("{\"version\": 1}", "missing field"),
            ("", "EOF"),
        ] {
            fs::write(cluster.path().join(STATE), text).unwrap();
            let error = cluster.read().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("down --force a"), "{error}");
        }
        let found = cluster.instance();
        assert_eq!(found, Some(Uuid::nil()), "its processes can be found anyway");
    }

    #[test]
    fn only_a_runtime_directory_without_clusters_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        clear(&base);
        let cluster = Directory::new(&base, "a");
        drop(cluster.create(Uuid::nil()).unwrap());
        clear(&base);
        assert!(cluster.path().exists());
        fs::remove_dir_all(cluster.path()).unwrap();
        clear(&base);
        assert!(!base.exists());
    }

    #[test]
    fn what_others_could_have_written_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        let cluster = Directory::new(&base, "a");
        drop(cluster.create(Uuid::nil()).unwrap());
        let state = cluster.path().join(STATE);
        fs::write(&state, "{}").unwrap();
        let chmod = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let refused = |what: &str| {
            let results = [cluster.read().err(), cluster.lock().err(), cluster.remove().err()];
            let told = results.map(|error| error.map(|error| error.to_string()));
            assert!(told.iter().flatten().all(|told| told.contains(what)), "{told:?}");
            told.iter().flatten().count()
        };
        for path in [dir.path(), &base, cluster.path()] {
            chmod(path, 0o777);
            assert_eq!(refused("mode 0777, so that others can change it"), 3, "{path:?}");
            chmod(path, 0o700);
        }
        chmod(&state, 0o666);
        assert!(cluster.read().unwrap_err().to_string().contains("mode 0666"));
        chmod(&state, 0o600);
        chmod(&base, 0o777);
        assert!(names(&base).is_err());
        chmod(&base, 0o700);
        if rustix::process::geteuid().is_root() {
            let chown = |path: &Path, user| std::os::unix::fs::chown(path, Some(user), None);
            for path in [&*base, cluster.path()] {
                chown(path, 65534).unwrap();
                assert_eq!(refused("belongs to user 65534"), 3, "{path:?}");
                chown(path, 0).unwrap();
            }
        }
        // Links could lead to a place that somebody else chose.
        fs::rename(&state, base.join("real")).unwrap();
        symlink(base.join("real"), &state).unwrap();
        assert!(matches!(cluster.read(), Err(DirectoryError::State { .. })));
        let other = Directory::new(&base, "b");
        symlink(cluster.path(), other.path()).unwrap();
        assert!(other.lock().is_err() && other.read().is_err() && other.remove().is_err());
        assert!(cluster.path().exists());
    }

    #[test]
    fn only_a_clusters_directory_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        for name in ["ublk", "empty", "not.a.name"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        fs::write(base.join("ublk/0.json"), "precious").unwrap();
        assert_eq!(names(&base).unwrap(), ["empty"], "a start that was interrupted");
        let other = Directory::new(&base, "ublk");
        assert!(matches!(other.remove(), Err(DirectoryError::NoCluster(_))));
        assert!(base.join("ublk/0.json").exists());
        Directory::new(&base, "empty").remove().unwrap();
        assert!(!base.join("empty").exists());
    }
}
