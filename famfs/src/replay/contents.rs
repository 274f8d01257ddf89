// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A whole file system, read at once.

use crate::media::Media;
use crate::replay::{Plan, reclaim};
use crate::store::log::{Log, LogError};
use crate::store::superblock::{Superblock, SuperblockError};

/// A file system as it was read: its superblock, its log, and what the log describes.
pub struct Contents<'m> {
    /// The superblock.
    pub superblock: Superblock,
    /// The log.
    pub log: Log<'m>,
    /// What the log describes.
    pub plan: Plan,
}

/// Why a file system cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// There is no usable superblock.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// There is no usable log.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl<'m> Contents<'m> {
    /// Reads a whole file system.
    pub fn read(media: &'m dyn Media) -> Result<Self, ContentsError> {
        let superblock = Superblock::read(media)?;
        let log = Log::open(media, superblock.log_len)?;
        let extensions = superblock.has_extensions(media)?;
        let area = superblock.data_area(media.len());
        let plan = reclaim::read_steadily(media, || Plan::read(&log, area, extensions))
            .map_err(LogError::from)?;
        Ok(Self { superblock, log, plan })
    }
}
