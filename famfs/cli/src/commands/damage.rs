// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which errors are about damaged media: they know offsets, and not in which pool.

use famfs::replay::ContentsError;
use famfs::replay::compact::CompactError;
use famfs::replay::upgrade::UpgradeError;
use famfs::store::log::LogError;
use famfs::store::superblock::SuperblockError;
use famfs::write::writer::WriteError;

/// Whether superblock or log are damaged.
pub fn is_cause(error: &anyhow::Error) -> bool {
    error.chain().any(|error| {
        let superblock = error
            .downcast_ref::<SuperblockError>()
            .or(match (error.downcast_ref(), error.downcast_ref(), error.downcast_ref()) {
                (Some(ContentsError::Superblock(error)), ..)
                | (_, Some(WriteError::Superblock(error)), _)
                | (.., Some(CompactError::Superblock(error))) => Some(error),
                _ => None,
            })
            .or(match error.downcast_ref() {
                Some(
                    UpgradeError::Superblock(error)
                    | UpgradeError::Contents(ContentsError::Superblock(error)),
                ) => Some(error),
                _ => None,
            });
        let log = error
            .downcast_ref::<LogError>()
            .or(match (error.downcast_ref(), error.downcast_ref(), error.downcast_ref()) {
                (Some(ContentsError::Log(error)), ..)
                | (_, Some(WriteError::Log(error)), _)
                | (.., Some(CompactError::Log(error))) => Some(error),
                _ => None,
            })
            .or(match error.downcast_ref() {
                Some(UpgradeError::Contents(ContentsError::Log(error))) => Some(error),
                _ => None,
            });
        superblock.is_some_and(is_damaged) || log.is_some_and(is_broken)
    })
}

fn is_damaged(error: &SuperblockError) -> bool {
    !matches!(error, SuperblockError::Media(_) | SuperblockError::Magic { .. })
}

fn is_broken(error: &LogError) -> bool {
    !matches!(error, LogError::Media(_) | LogError::Full { .. })
}
