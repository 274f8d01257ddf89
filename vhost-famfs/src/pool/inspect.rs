// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Describes a pool, for users and for programs.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use famfs::format::view::{INFO_BLOCK_LEN, INFO_BLOCK_OFFSET, InfoBlock, View, ViewError};
use famfs::text::json_name::Name;
use famfs::text::units::{About, Bytes, count};
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::bytes::{PoolBytes, PoolMedia};
use super::famfs_report::{self, FamfsReport};
use super::holders::{self, Holder};
use super::kind::{Facts, Identity};
use super::open::{Owners, Purpose, open};
use super::{Kind, PoolError};

/// Permission bits of a file's mode (inode(7)).
const PERMISSIONS: u32 = 0o7777;

/// A pool as `vhost-famfs pool inspect --json` prints it, with a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolReport {
    /// Its path; if that is not UTF-8, JSON has its bytes in addition.
    #[serde(flatten, serialize_with = "as_name")]
    pub path: PathBuf,
    /// What it is made of.
    pub kind: Kind,
    /// Size in bytes.
    pub size: u64,
    /// The page size of its memory, given by its kind; [`Holder::huge`] tells what is actually
    /// used.
    pub page_size: u64,
    /// Bytes of memory or storage that it occupies now.
    pub allocated: u64,
    /// `devdax`, `raw`, or `damaged` if its info block is inconsistent.
    pub view: &'static str,
    /// Why the view is damaged.
    pub damage: Option<String>,
    /// Identity of the devdax info block.
    pub uuid: Option<String>,
    /// The file system in it.
    pub famfs: Option<FamfsReport>,
    /// Processes that use it.
    pub holders: Vec<Holder>,
    /// This user's clusters that have it, even if all of their VMs are stopped.
    pub clusters: Vec<String>,
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// User that the file belongs to.
    pub uid: u32,
    /// Group that the file belongs to.
    pub gid: u32,
    /// Permissions of the file, four octal digits.
    pub mode: String,
}

fn as_name<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    Name::of_path("path", path).serialize(serializer)
}

/// Inspects the pool `path`. Changes nothing, and takes no lock that could block another program.
/// Needs only permission to read.
pub fn inspect(path: &Path) -> Result<PoolReport, PoolError> {
    let (file, facts) = open_to_read(path, Owners::Any)?;
    let mut report = without_holders(&file, facts, path)?;
    report.holders = holders::find(path, facts.identity);
    Ok(report)
}

/// Opens a pool to inspect it.
pub(super) fn open_to_read(path: &Path, owners: Owners) -> Result<(File, Facts), PoolError> {
    let file = open(path, Purpose::Read, owners)?;
    let facts = Facts::of(&file, path)?;
    Ok((file, facts))
}

/// What a cluster must know about a pool before using it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// What it is made of.
    pub kind: Kind,
    /// Size in bytes.
    pub size: u64,
    /// Which device guests see, or why its info block is inconsistent.
    pub view: Result<View, String>,
    /// The identity of its info block, if it has one.
    pub uuid: Option<Uuid>,
    /// The identity of the file.
    pub identity: Identity,
}

/// Inspects the pool `path` without its log and its users, because the time of [`inspect`] grows
/// with their number.
pub fn form(path: &Path, owners: Owners) -> Result<Form, PoolError> {
    let (file, facts) = open_to_read(path, owners)?;
    let (view, uuid) = match info_block(&file, facts, path)? {
        Ok(Some(block)) => (Ok(View::Devdax), Some(block.uuid())),
        Ok(None) => (Ok(View::Raw), None),
        Err(error) => (Err(error.to_string()), None),
    };
    let Facts { kind, size, identity, .. } = facts;
    Ok(Form { kind, size, view, uuid, identity })
}

/// The info block of a pool; `None` if it has none.
pub(super) fn info_block(
    file: &File,
    facts: Facts,
    path: &Path,
) -> Result<Result<Option<InfoBlock>, ViewError>, PoolError> {
    let mut block = [0; INFO_BLOCK_LEN];
    PoolBytes { file, facts }.read(INFO_BLOCK_OFFSET, &mut block).map_err(|source| {
        PoolError::Io { pool: path.to_owned(), action: "read its info block", source }
    })?;
    Ok(InfoBlock::parse(&block, facts.size))
}

/// What can be read from the pool's own bytes.
pub(super) fn without_holders(
    file: &File,
    facts: Facts,
    path: &Path,
) -> Result<PoolReport, PoolError> {
    let Facts { identity, size, kind, page_size } = facts;
    let io = |action| move |source| PoolError::Io { pool: path.to_owned(), action, source };
    let metadata = file.metadata().map_err(io("read its size and owner"))?;
    let allocated = match kind {
        Kind::Devdax => size,
        _ => metadata.blocks() * 512,
    };
    let read = |view| famfs_report::read(&PoolMedia::new(file, facts, path, view));
    let (view, uuid, damage, famfs) = match info_block(file, facts, path)? {
        Ok(Some(block)) => {
            (View::Devdax.name(), Some(block.uuid().to_string()), None, read(View::Devdax))
        }
        Ok(None) => (View::Raw.name(), None, None, read(View::Raw)),
        Err(error) => ("damaged", None, Some(error.to_string()), None),
    };
    Ok(PoolReport {
        path: path.to_owned(),
        kind,
        size,
        page_size,
        allocated,
        view,
        damage,
        uuid,
        famfs,
        holders: Vec::new(),
        clusters: Vec::new(),
        dev: identity.dev,
        ino: identity.ino,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: format!("{:04o}", metadata.mode() & PERMISSIONS),
    })
}

impl fmt::Display for PoolReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pool:       {}", self.path.display())?;
        write!(f, "kind:       {}", self.kind.name())?;
        if self.kind == Kind::Hugetlbfs {
            write!(f, " (pages of {})", Bytes(self.page_size))?;
        }
        write!(f, "\nsize:       {}", Bytes(self.size))?;
        let intact = self.famfs.as_ref().filter(|famfs| famfs.problem.is_none());
        if let Some(famfs) = intact.filter(|famfs| famfs.end < self.size) {
            write!(f, " ({} of it behind the file system)", Bytes(self.size - famfs.end))?;
        }
        writeln!(f)?;
        writeln!(f, "allocated:  {}", About(self.allocated))?;
        let Self { uid, gid, mode, .. } = self;
        writeln!(f, "owner:      user {uid}, group {gid}, mode {mode}")?;
        write!(f, "view:       {}", self.view)?;
        match (self.view, &self.damage) {
            ("devdax", _) => write!(f, " (guests see /dev/dax0.0)")?,
            ("raw", _) => write!(f, " (guests see /dev/pmem0)")?,
            (_, Some(damage)) => write!(f, " ({damage})")?,
            _ => {}
        }
        if let Some(uuid) = &self.uuid {
            write!(f, "\nuuid:       {uuid}")?;
        }
        match &self.famfs {
            Some(famfs) => write!(f, "\nfamfs:      {famfs}")?,
            None => write!(f, "\nfamfs:      none")?,
        }
        for holder in &self.holders {
            write!(f, "\nheld by:    {holder}")?;
        }
        Ok(())
    }
}

impl fmt::Display for FamfsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(problem) = &self.problem {
            return write!(f, "damaged ({problem})");
        }
        write!(
            f,
            "{}, {}, {}, {} of {} used",
            self.uuid,
            count(self.files, "file", "files"),
            count(self.directories, "directory", "directories"),
            Bytes(self.used),
            Bytes(self.capacity)
        )?;
        if self.deleted > 0 {
            write!(f, " ({} by deleted files: see `famfs reclaim`)", Bytes(self.deleted))?;
        }
        write!(f, ", log {} of {} entries", self.log_entries, self.log_slots)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.command, self.pid)?;
        if self.mapped == 0 {
            return write!(f, ", open");
        }
        write!(
            f,
            ", maps {}, {} in its page table, {} of these by huge pages",
            Bytes(self.mapped),
            About(self.resident),
            About(self.huge)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{FileExt, PermissionsExt};

    #[test]
    fn tells_who_may_use_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16 << 20).unwrap();
        file.as_file().set_permissions(Permissions::from_mode(0o640)).unwrap();
        let report = inspect(file.path()).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!((report.uid, report.mode.as_str()), (uid, "0640"));
        let line = format!("\nowner:      user {uid}, group {}, mode 0640\n", report.gid);
        assert!(report.to_string().contains(&line), "{report}");
    }

    #[test]
    fn tells_a_damaged_block_from_no_block() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16 << 20).unwrap();
        assert_eq!(inspect(file.path()).unwrap().view, "raw");
        file.as_file().write_all_at(b"NVDIMM_DAX_INFO\0", INFO_BLOCK_OFFSET).unwrap();
        let report = inspect(file.path()).unwrap();
        assert_eq!(report.view, "damaged");
        assert!(report.damage.unwrap().contains("checksum"));
    }
}
