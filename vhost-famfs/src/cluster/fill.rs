// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Prepares the pool of a cluster before its VMs start: creates, formats, fills and locks it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use famfs::archive::import::{self, Import};
use famfs::format::path::RelPath;
use famfs::media::{Media, MediaError, PoolFile};
use famfs::replay::Owner;
use famfs::replay::tree::object::ObjectKind;
use famfs::store::mkfs::{self, MkfsError};
use famfs::sys::dax::Access;
use famfs::system::neighbours::PoolId;
use famfs::write::copy::{Copy, CopyError};
use famfs::write::dropped::{Counts, Dropped};
use famfs::write::transfer::How;
use famfs::write::unsupported::LeftOut;
use famfs::write::volume::OfflineVolume;
use famfs::write::writer::{WriteError, Writer};
use serde::Serialize;
use uuid::Uuid;

use super::plan::{MkfsPlan, PoolPlan};
use super::sizing;
use super::spec::ImportSpec;
use crate::pool::{self, CreateError, Identity, Owners, PoolError};
use crate::vm::KeptPool;

/// Why the pool of a cluster cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// It cannot be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// It cannot be used.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Its contents cannot be accessed.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// It cannot be formatted.
    #[error("pool {}: cannot make a famfs", path.display())]
    Mkfs {
        /// The pool.
        path: PathBuf,
        /// The cause.
        #[source]
        source: MkfsError,
    },
    /// Something cannot be copied into it.
    #[error("cannot import {}", from.display())]
    Import {
        /// The directory or archive.
        from: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What was copied into a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Filled {
    /// Files that were created or replaced.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that already had the same contents.
    pub unchanged: u64,
    /// How many items were not copied because famfs cannot store them, or not exactly.
    pub left_out: u64,
    /// What these are.
    pub skipped: Vec<LeftOut>,
    /// How many files have attributes that famfs does not store.
    pub dropped: Counts,
    /// The same, in words.
    #[serde(skip)]
    pub lost: Dropped,
}

impl Filled {
    fn leave_out(&mut self, items: impl IntoIterator<Item = LeftOut>) {
        self.skipped.extend(items);
        self.left_out = self.skipped.len() as u64;
    }

    fn lose(&mut self, dropped: Dropped) {
        self.lost.extend(dropped);
        self.dropped = self.lost.counts();
    }
}

/// The open pool of a cluster. All further work uses this file, even if another file takes its
/// name.
#[derive(Debug)]
pub struct OpenPool {
    file: File,
    path: PathBuf,
    owners: Owners,
}

impl OpenPool {
    /// Creates the pool as planned if it does not exist, and opens it, for writing if `write` is
    /// set. Calls `made` as soon as the file exists, and `progress` with the bytes of memory
    /// allocated so far and in total.
    ///
    /// # Errors
    /// It cannot be created or opened; a file that `made` was not told about is removed again.
    pub fn make(
        plan: &PoolPlan,
        write: bool,
        made: impl FnOnce(Identity),
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, FillError> {
        let mut identity = plan.identity;
        if let Some(options) = &plan.create {
            let report = pool::create(options, progress)?;
            let new = Identity { dev: report.dev, ino: report.ino };
            made(new);
            identity = Some(new);
        }
        let file = pool::open_for(&plan.path, write, plan.owners, identity)?;
        let open = Self { file, path: plan.path.clone(), owners: plan.owners };
        if let Some(mkfs) = &plan.mkfs {
            open.format(mkfs)?;
        }
        Ok(open)
    }

    /// Opens the pool of a cluster that runs, for writing if `write` is set. It must be the file
    /// with that identity.
    ///
    /// # Errors
    /// It cannot be opened, or another file has its name.
    pub fn of_cluster(
        path: &Path,
        write: bool,
        owners: Owners,
        identity: Identity,
    ) -> Result<Self, PoolError> {
        let file = pool::open_for(path, write, owners, Some(identity))?;
        Ok(Self { file, path: path.to_owned(), owners })
    }

    /// The identity of its file.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn identity(&self) -> Result<Identity, PoolError> {
        Identity::of(&self.file).map_err(self.io("look at it"))
    }

    /// The pool as the keeper of the VM with that machine UUID needs it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kept(&self, machine: Uuid) -> Result<KeptPool<'_>, PoolError> {
        let id = PoolId::of(&self.file.metadata().map_err(self.io("look at it"))?);
        Ok(KeptPool { path: &self.path, id, owners: self.owners, machine })
    }

    fn io(&self, action: &'static str) -> impl Fn(io::Error) -> PoolError + use<> {
        let pool = self.path.clone();
        move |source| PoolError::Io { pool: pool.clone(), action, source }
    }

    /// Opens the same file again, so that it has a lock of its own.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn again(&self, write: bool) -> Result<File, PoolError> {
        let link = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        File::options().read(true).write(write).open(link).map_err(self.io("open it again"))
    }

    fn to_write(&self) -> Result<PoolFile, FillError> {
        Ok(PoolFile::from_file(self.again(true)?, &self.path, Access::Write)?)
    }

    fn format(&self, plan: &MkfsPlan) -> Result<(), FillError> {
        let options = mkfs::Options {
            log_len: plan.log_len,
            extensions: true,
            force: false,
            fs_uuid: Uuid::new_v4(),
            dev_uuid: Uuid::new_v4(),
            system_uuid: plan.system,
            dev_name: self.path.display().to_string(),
        };
        let failed = |source| FillError::Mkfs { path: self.path.clone(), source };
        let media = self.to_write()?;
        let len = plan.size.unwrap_or_else(|| media.len());
        mkfs::mkfs_within(&media, &options, len).map(drop).map_err(failed)
    }

    /// Copies everything into the pool. Calls `progress` with the bytes of each step; its answer
    /// tells whether to continue.
    ///
    /// # Errors
    /// The first error.
    pub fn fill(
        &self,
        plan: &PoolPlan,
        progress: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<Filled, FillError> {
        let mut filled = Filled::default();
        if plan.imports.is_empty() {
            return Ok(filled);
        }
        let volume = OfflineVolume::new(self.to_write()?);
        for import in &plan.imports {
            copy(import, &volume, &mut filled, progress)
                .map_err(|source| FillError::Import { from: import.from.clone(), source })?;
        }
        Ok(filled)
    }

    /// Takes the lock that keeps programs from resizing or formatting the pool. Processes that
    /// inherit the file also hold the lock.
    ///
    /// # Errors
    /// Another program is changing the pool.
    pub fn hold(&self) -> Result<(), PoolError> {
        pool::lock_shared(&self.file, &self.path)
    }

    /// A locked file for a process that keeps it; read-only unless `write` is set.
    ///
    /// # Errors
    /// There are no more descriptors, or another program is changing the pool.
    pub fn held(&self, write: bool) -> Result<File, PoolError> {
        if write {
            return self.file.try_clone().map_err(self.io("keep it locked"));
        }
        let file = self.again(false)?;
        pool::lock_shared(&file, &self.path)?;
        Ok(file)
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn copy(
    import: &ImportSpec,
    volume: &OfflineVolume,
    filled: &mut Filled,
    progress: &(dyn Fn(u64) -> bool + Sync),
) -> Result<(), Cause> {
    let mut writer = Writer::open(volume, None)?;
    let is_dir = import.from.is_dir();
    // Whatever ends this half-way leaves the pool as it was.
    if writer.plan().has_extensions() {
        writer.atomic()?;
    }
    if let Some(to) = &import.to {
        make_directories(&mut writer, to)?;
    }
    if is_dir {
        copy_directory(import, volume, &mut writer, filled, progress)
    } else {
        unpack(import, &mut writer, filled, progress)
    }
}

/// Creates a directory and its missing parents.
fn make_directories(writer: &mut Writer<'_>, path: &RelPath) -> Result<(), WriteError> {
    let found = writer.plan().tree().get(path).map(|listed| &listed.object.kind);
    if matches!(found, Some(ObjectKind::Dir { .. })) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(writer, &parent)?;
    }
    writer.mkdir(path, owner())
}

/// The owner of directories that come from no source: this user, and readable by all.
fn owner() -> Owner {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    Owner { uid: uid.as_raw(), gid: gid.as_raw(), mode: 0o755 }
}

fn copy_directory<'v>(
    import: &ImportSpec,
    volume: &'v OfflineVolume,
    writer: &mut Writer<'v>,
    filled: &mut Filled,
    progress: &(dyn Fn(u64) -> bool + Sync),
) -> Result<(), Cause> {
    let found = sizing::look(import, import.skip_unsupported)?;
    filled.leave_out(found.unsupported.iter().map(LeftOut::from));
    let mut copy = Copy::prepare(found, writer)?;
    filled.leave_out(copy.kept.iter().map(LeftOut::from));
    filled.lose(std::mem::take(&mut copy.dropped));
    let done = copy.run(volume, writer, &How::default(), progress);
    let done = done.map_err(|error: CopyError| error)?;
    filled.files += done.files + done.overwritten;
    filled.unchanged += done.unchanged;
    filled.bytes += done.bytes;
    Ok(())
}

fn unpack(
    import: &ImportSpec,
    writer: &mut Writer<'_>,
    filled: &mut Filled,
    progress: &(dyn Fn(u64) -> bool + Sync),
) -> Result<(), Cause> {
    let archive = File::open(&import.from)?;
    let options = import::Options {
        into: import.to.clone(),
        skip_unsupported: import.skip_unsupported,
        layers: false,
        atomic: false,
        owner: owner(),
    };
    let done = Import::new(writer, options).file(&archive, |_| (), &mut |bytes| progress(bytes))?;
    writer.commit()?;
    filled.files += done.files;
    filled.bytes += done.bytes;
    filled.leave_out(done.left_out);
    filled.lose(done.dropped);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::FileType;

    use super::*;
    use crate::cluster::host::Host;
    use crate::cluster::plan::ClusterPlan;
    use crate::cluster::spec::Spec;

    /// Even if files change after planning, nothing is left out silently.
    #[test]
    fn a_pool_has_all_or_what_was_agreed_to() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("file"), "text").unwrap();
        let mut spec = Spec::of_shares("lab", 1, vec![data.clone()]);
        spec.pool.path = Some(dir.path().join("pool"));
        let mut plan = ClusterPlan::new(&spec, &Host::for_tests(dir.path(), "image")).unwrap();
        plan.pool.refuse_left_out().unwrap();
        let pipe = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, data.join("pipe"), FileType::Fifo, pipe, 0).unwrap();
        let pool = OpenPool::make(&plan.pool, true, |_| (), &mut |_, _| ()).unwrap();
        let error = pool.fill(&plan.pool, &|_| true).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("(1 named pipe), so nothing was written"), "{cause}");
        plan.pool.imports[0].skip_unsupported = true;
        let filled = pool.fill(&plan.pool, &|_| true).unwrap();
        assert_eq!((filled.files, filled.left_out), (1, 1));
        assert_eq!(filled.skipped[0].reason, "named pipe");
    }
}
