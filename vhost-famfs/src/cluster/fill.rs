// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The pool of a cluster before its VMs start: made, formatted, filled, held.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use famfs::copy::{Copy, CopyError};
use famfs::import::{self, Import};
use famfs::media::{Media, MediaError, PoolFile};
use famfs::mkfs::{self, MkfsError};
use famfs::path::RelPath;
use famfs::replay::{NodeKind, Owner};
use famfs::sources::{self, Destination, SourceError, scan};
use famfs::sys::dax::Access;
use famfs::transfer::How;
use famfs::volume::OfflineVolume;
use famfs::writer::{WriteError, Writer};
use serde::Serialize;
use uuid::Uuid;

use crate::launch::plan::{MkfsPlan, PoolPlan};
use crate::launch::spec::ImportSpec;
use crate::pool::{self, CreateError, Identity, PoolError};

/// Why the pool of a cluster is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// It cannot be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// It cannot be used.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Its bytes cannot be used.
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Filled {
    /// Files that were made or replaced.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were there with the same bytes.
    pub unchanged: u64,
    /// What famfs cannot hold.
    pub left_out: u64,
}

/// The pool of a cluster, open: all that follows goes to this file, whatever becomes of its name.
#[derive(Debug)]
pub struct OpenPool {
    file: File,
    path: PathBuf,
}

impl OpenPool {
    /// Makes the pool as planned if it is not there, and opens it, to write with `write`. `made` is told of the
    /// file as soon as it is there; `progress` is told of the bytes of memory taken, and of all.
    ///
    /// # Errors
    /// It cannot be made or opened; of its file nothing is left unless `made` was told of it.
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
        let open = Self { file, path: plan.path.clone() };
        if let Some(mkfs) = &plan.mkfs {
            open.format(mkfs)?;
        }
        Ok(open)
    }

    fn io(&self, action: &'static str) -> impl Fn(io::Error) -> PoolError + use<> {
        let pool = self.path.clone();
        move |source| PoolError::Io { pool: pool.clone(), action, source }
    }

    /// Opens the same file once more, so that it can be locked by itself.
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

    /// Copies everything into the pool. `progress` is told the bytes of each step, and answers whether
    /// to go on.
    ///
    /// # Errors
    /// The first that cannot be copied.
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

    /// Takes the lock that keeps programs from resizing or formatting the pool. Whoever inherits the file
    /// holds the lock too.
    ///
    /// # Errors
    /// Another program changes the pool.
    pub fn hold(&self) -> Result<(), PoolError> {
        pool::lock_shared(&self.file, &self.path)
    }

    /// The file with the lock.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn held(&self) -> Result<File, PoolError> {
        self.file.try_clone().map_err(self.io("keep it locked"))
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
    if let Some(to) = &import.to {
        make_directories(&mut writer, to)?;
    }
    if import.from.is_dir() {
        copy_directory(import, volume, &mut writer, filled, progress)
    } else {
        unpack(import, &mut writer, filled, progress)
    }
}

/// Makes a directory with those above it, where they are not there.
fn make_directories(writer: &mut Writer<'_>, path: &RelPath) -> Result<(), WriteError> {
    if matches!(writer.plan().get(path).map(|node| &node.kind), Some(NodeKind::Dir)) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(writer, &parent)?;
    }
    writer.mkdir(path, owner())?;
    writer.commit()
}

/// The owner of directories that no source has: this user, and all may look.
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
    let options =
        sources::Options { recursive: true, skip_unsupported: true, ..sources::Options::default() };
    // `DIR/.` is what is in the directory.
    let found = scan(&[import.from.join(".")], &Destination::Into(import.to.clone()), &options);
    let found = found.map_err(|error: SourceError| error)?;
    filled.left_out += found.unsupported.len() as u64;
    let copy = Copy::prepare(found, writer)?;
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
        skip_unsupported: true,
        pack: false,
        dry_run: false,
        owner: owner(),
    };
    let done = Import::new(writer, options).file(&archive, |_| (), &mut |bytes| progress(bytes))?;
    filled.files += done.files;
    filled.bytes += done.bytes;
    filled.left_out += done.left_out.len() as u64;
    Ok(())
}
