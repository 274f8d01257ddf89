// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Determines which part of a pool belongs to its file system.

use std::fs::File;
use std::path::Path;

use famfs::format::view::View;
use famfs::media::Media;
use famfs::store::superblock::{Superblock, SuperblockError};

use super::PoolError;
use super::bytes::PoolMedia;
use super::inspect::info_block;
use super::kind::Facts;

/// The first byte of a pool after its file system; `None` if it has no file system.
pub(super) fn famfs_end(file: &File, facts: Facts, path: &Path) -> Result<Option<u64>, PoolError> {
    // A pool without a valid info block has no file system that anybody mounts.
    let view = match info_block(file, facts, path)? {
        Ok(Some(_)) => View::Devdax,
        _ => View::Raw,
    };
    let media = PoolMedia::new(file, facts, path, view);
    match Superblock::read(&media) {
        Ok(superblock) => Ok(Some(media.origin() + superblock.capacity(media.len()))),
        Err(SuperblockError::Magic { .. }) => Ok(None),
        Err(source) => Err(PoolError::Files { pool: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use famfs::media::PoolFile;
    use famfs::store::mkfs;
    use famfs::sys::dax::Access;
    use uuid::Uuid;

    use super::*;
    use crate::pool::{CreateOptions, Owners, Pool, create};

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_part_lies_behind_the_file_system() {
        let dir = tempfile::tempdir().unwrap();
        for view in [View::Devdax, View::Raw] {
            let path = dir.path().join(view.name());
            create(&CreateOptions::new(path.clone(), 64 * MIB, view), &mut |_, _| ()).unwrap();
            let allowed = |offset: u64, len: u64| {
                let pool = Pool::open(&path, Owners::Trusted).unwrap();
                pool.check_part(offset * MIB, len * MIB)
            };
            allowed(16, 16).unwrap();
            let options = mkfs::Options {
                log_len: None,
                extensions: true,
                force: true,
                fs_uuid: Uuid::from_u128(1),
                dev_uuid: Uuid::from_u128(2),
                system_uuid: Uuid::from_u128(3),
                dev_name: "x".into(),
            };
            let media = PoolFile::open(&path, Access::Write).unwrap();
            mkfs::mkfs_within(&media, &options, 32 * MIB - media.origin()).unwrap();
            drop(media);
            for (offset, len) in [(0, 64), (32, 32), (34, 2), (0, 32), (0, 40)] {
                allowed(offset, len).unwrap();
            }
            for (offset, len) in [(0, 30), (2, 62), (30, 2), (30, 34)] {
                let err = allowed(offset, len).unwrap_err();
                assert!(matches!(err, PoolError::OverFiles { .. }), "{offset} {len}: {err}");
            }
            let media = PoolFile::open(&path, Access::Write).unwrap();
            mkfs::mkfs(&media, &options).unwrap();
            drop(media);
            assert!(allowed(32, 32).is_err(), "the file system has the whole pool");
        }
    }
}
