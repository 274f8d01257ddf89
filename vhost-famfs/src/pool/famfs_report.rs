// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `pool inspect` reports about a pool's file system; `famfs fsck` reports everything.

use famfs::media::Media;
use famfs::replay::dead::Dead;
use famfs::replay::size;
use famfs::replay::{Contents, ContentsError};
use famfs::store::superblock::SuperblockError;
use famfs::text::error_report::one_line;
use serde::Serialize;

/// The famfs in a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FamfsReport {
    /// Identity of the file system.
    pub uuid: String,
    /// Entries in the log.
    pub log_entries: u64,
    /// Number of entries for which the log has room.
    pub log_slots: u64,
    /// Number of files.
    pub files: u64,
    /// Number of directories.
    pub directories: u64,
    /// Bytes in use by files.
    pub used: u64,
    /// How many of these belong to deleted files, until `famfs compact`.
    pub deleted: u64,
    /// Bytes that files can use in total.
    pub capacity: u64,
    /// The first byte of the pool after the file system.
    pub end: u64,
    /// The first byte of the pool after all of this, including deleted files: the pool cannot be
    /// smaller. `None` if that is not known.
    pub data_end: Option<u64>,
    /// Why it, or a part of it, cannot be read; `None` if it can.
    pub problem: Option<String>,
}

/// Reads the file system on a device; `None` if there is none.
pub(super) fn read(media: &dyn Media) -> Option<FamfsReport> {
    let contents = match Contents::read(media) {
        Ok(contents) => contents,
        Err(ContentsError::Superblock(SuperblockError::Magic { .. })) => return None,
        Err(err) => {
            return Some(FamfsReport { problem: Some(one_line(&err)), ..FamfsReport::default() });
        }
    };
    let counts = contents.plan.tree().counts();
    let dead = Dead::of(&contents.log, &contents.plan).ok();
    let space = &contents.plan.space;
    let stopped = contents.plan.stopped.as_ref().map(|err| one_line(err));
    let refused = contents.plan.refused.first().map(|err| one_line(err));
    Some(FamfsReport {
        uuid: contents.superblock.fs_uuid.to_string(),
        log_entries: contents.log.published(),
        log_slots: contents.log.slots(),
        files: counts.files,
        directories: counts.directories,
        used: space.used(),
        deleted: dead.map_or(0, |dead| dead.units),
        capacity: space.used() + space.free(),
        end: media.origin() + contents.superblock.capacity(media.len()),
        data_end: size::data_end(&contents, media.len()).map(|end| end.now + media.origin()),
        problem: stopped.or(refused),
    })
}
