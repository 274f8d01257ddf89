// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A whole file system, read at once.

use crate::format::map::DataArea;
use crate::media::Media;
use crate::replay::{Plan, reclaim};
use crate::store::log::{Log, LogError};
use crate::store::superblock::{Superblock, SuperblockError};

/// How often a log is read again because its entries moved.
const MOST_READS: u32 = 20;

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
        let extensions = superblock.has_extensions(media)?;
        let (log, plan, _) = read_undisturbed(media, &superblock, extensions)?;
        Ok(Self { superblock, log, plan })
    }
}

/// Opens and reads a log whose entries others may move or make void, on a file system that others
/// may make larger; also returns the part of the device that files may use.
///
/// # Errors
/// The log cannot be read, or its entries go on moving. Damage of an entry is in the plan.
pub fn read_undisturbed<'m>(
    media: &'m dyn Media,
    superblock: &Superblock,
    extensions: bool,
) -> Result<(Log<'m>, Plan, DataArea), LogError> {
    let mut again = 0;
    loop {
        let log = Log::open(media, superblock.log_len)?;
        let area = superblock.area_now(media)?;
        let plan = reclaim::read_steadily(media, || Plan::read(&log, area, extensions))?;
        match plan.stopped {
            Some(moved @ LogError::Moved { .. }) if again == MOST_READS => return Err(moved),
            Some(LogError::Moved { .. }) => again += 1,
            _ => return Ok((log, plan, area)),
        }
    }
}
