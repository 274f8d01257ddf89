// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a pool is, for people and for programs.

use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use famfs::view::{INFO_BLOCK_LEN, INFO_BLOCK_OFFSET, InfoBlock, View};
use rustix::fs::OFlags;
use serde::{Serialize, Serializer};

use super::{Facts, Kind, PoolError, open};
use crate::units::Bytes;

/// A pool as `vhost-famfs pool inspect --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Where it is; bytes that are not UTF-8 are replaced in JSON, which cannot carry them.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// What it is made of.
    pub kind: Kind,
    /// Size in bytes.
    pub size: u64,
    /// Bytes of memory or storage that it takes now.
    pub allocated: u64,
    /// `devdax`, `raw`, or `damaged` for an info block that does not add up.
    pub view: &'static str,
    /// Why the view is damaged.
    pub damage: Option<String>,
    /// Identity of the devdax info block.
    pub uuid: Option<String>,
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// Looks at the pool `path`; changes nothing, and takes no lock that could be in another
/// program's way. Permission to read is enough.
pub fn inspect(path: &Path) -> Result<Report, PoolError> {
    // Without NONBLOCK, opening a pipe would wait for a writer.
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    let file = open(path, OpenOptions::new().read(true).custom_flags(nonblock), "read")?;
    let Facts { identity, size, kind } = Facts::of(&file, path)?;
    let io = |action| move |source| PoolError::Io { pool: path.to_owned(), action, source };
    let allocated = file.metadata().map_err(io("read its size"))?.blocks() * 512;
    let mut block = [0; INFO_BLOCK_LEN];
    file.read_exact_at(&mut block, INFO_BLOCK_OFFSET).map_err(io("read its info block"))?;
    let (view, uuid, damage) = match InfoBlock::parse(&block, size) {
        Ok(Some(block)) => (View::Devdax.name(), Some(block.uuid().to_string()), None),
        Ok(None) => (View::Raw.name(), None, None),
        Err(error) => ("damaged", None, Some(error.to_string())),
    };
    Ok(Report {
        path: path.to_owned(),
        kind,
        size,
        allocated,
        view,
        damage,
        uuid,
        dev: identity.dev,
        ino: identity.ino,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pool:       {}", self.path.display())?;
        writeln!(f, "kind:       {}", self.kind.name())?;
        writeln!(f, "size:       {}", Bytes(self.size))?;
        writeln!(f, "allocated:  {}", Bytes(self.allocated))?;
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
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
