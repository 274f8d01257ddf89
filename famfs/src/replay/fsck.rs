// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks a whole file system, for `fsck`, and changes nothing.

use serde::Serialize;

use crate::format::{self, ALLOC_UNIT};
use crate::media::Media;
use crate::replay::Contents;
use crate::replay::dead::Dead;
use crate::replay::tree::list::Counts;
use crate::replay::tree::store::StoreUse;
use crate::store::log::LogError;
use crate::store::superblock::Superblock;
use crate::text::error_report::one_line;

/// The result of a check. `problems` empty means clean.
#[derive(Debug, Serialize)]
pub struct FsckReport {
    /// Version of this structure.
    pub version: u32,
    /// Identity of the file system.
    pub fs_uuid: String,
    /// Identity of the device.
    pub dev_uuid: String,
    /// Identity of the master.
    pub system_uuid: String,
    /// Size of the device in bytes.
    pub device_bytes: u64,
    /// Size in bytes that the superblock records.
    pub recorded_bytes: u64,
    /// The log.
    pub log: LogReport,
    /// Number of files that can be used.
    pub files: u64,
    /// Number of directories that can be used.
    pub directories: u64,
    /// Number of symbolic links.
    pub symlinks: u64,
    /// Sum of the files' sizes in bytes.
    pub file_bytes: u64,
    /// The data area.
    pub space: SpaceReport,
    /// What the tree adds up to, if extensions are in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Counts>,
    /// The files that hold the bytes of others, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreUse>,
    /// Entries that share memory with an earlier file.
    pub collisions: u64,
    /// Entries of types that this version does not know.
    pub unknown_entries: u64,
    /// What is wrong, one line each.
    pub problems: Vec<String>,
    /// What is unusual, but correct.
    pub notes: Vec<String>,
}

/// The log's share of a [`FsckReport`].
#[derive(Debug, Serialize)]
pub struct LogReport {
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes, header included.
    pub bytes: u64,
    /// Number of slots.
    pub slots: u64,
    /// Number of published entries.
    pub entries: u64,
}

/// The data area's share of a [`FsckReport`]; all in bytes.
#[derive(Debug, Serialize)]
pub struct SpaceReport {
    /// Size of an allocation unit.
    pub alloc_unit: u64,
    /// Offset of the data area.
    pub start: u64,
    /// Size of the data area.
    pub capacity: u64,
    /// Taken by files, in whole units.
    pub used: u64,
    /// Not taken.
    pub free: u64,
    /// Longest free run.
    pub largest_free: u64,
    /// Part of `used` that `famfs compact` gives back, in whole units: deleted files keep it, and
    /// files of the store that hold nothing.
    pub deleted: u64,
}

/// Checks everything after a valid superblock and a valid log header.
pub fn check(media: &dyn Media, contents: &Contents<'_>) -> FsckReport {
    let Contents { superblock, log, plan } = contents;
    let counts = plan.tree().counts();
    let mut problems = Vec::new();
    problems.extend(superblock.size_problem(media.len()).as_ref().map(|e| one_line(e)));
    problems.extend(log.counter_problem().as_ref().map(|e| one_line(e)));
    problems.extend(plan.refused.iter().map(|e| one_line(e)));
    problems.extend(plan.stopped.as_ref().map(|e| one_line(e)));
    let mut notes = Vec::new();
    if plan.unmarked > 0 {
        notes.push(format!(
            "{} log entries of extensions do not count, and what they made is not shown",
            plan.unmarked
        ));
    }
    if log.is_moving() {
        notes.push(
            "`famfs reclaim` or `famfs compact` moves log entries, or was interrupted; the next \
             command that writes with --pool goes on with it"
                .to_owned(),
        );
    }
    if let Some(count) = log.interrupted() {
        notes.push(format!(
            "an append was interrupted: {count} complete entries from slot {} on are not \
             published; the master's next write publishes them",
            log.next_index()
        ));
    }
    let dead = Dead::of(log, plan).unwrap_or_else(|err| {
        match err {
            LogError::Moved { .. } => notes.push(
                "log entries moved meanwhile, so what deleted files hold was not counted"
                    .to_owned(),
            ),
            damage => problems.push(one_line(&damage)),
        }
        Dead::default()
    });
    let freed = dead.units + dead.pages;
    if dead.objects > 0 {
        notes.push(format!(
            "{} files and directories are deleted; `famfs reclaim` gives back their {freed} bytes",
            dead.objects
        ));
    } else if freed > 0 {
        notes.push(format!(
            "no file has {freed} bytes of the store; `famfs reclaim` gives them back"
        ));
    }
    let idle = plan.idle().len();
    if idle > 0 {
        notes.push(format!(
            "{idle} log entries have no effect, as when a `famfs reclaim` was interrupted: run it"
        ));
    }
    if !plan.voids().is_empty() {
        notes.push(format!(
            "{} log slots are void; `famfs compact` gives them back",
            plan.voids().len()
        ));
    }
    match Superblock::left_by_takeover(media) {
        Ok(None) => {}
        Ok(Some((copy, true))) => problems.push(format!(
            "a takeover by system {} was interrupted: the superblock is not valid, so its copy at \
             offset {:#x} is used; run `famfs takeover --yes` again, for the reference's tools",
            copy.system_uuid,
            format::SUPERBLOCK_COPY_OFFSET + media.origin()
        )),
        Ok(Some((copy, false))) => notes.push(format!(
            "a takeover by system {} was interrupted, the master is system {}; run `famfs \
             takeover --yes` again",
            copy.system_uuid, superblock.system_uuid
        )),
        Err(err) => problems.push(one_line(&err)),
    }
    if superblock.dev_size > 0 && superblock.dev_size < media.len() {
        notes.push(format!(
            "the device has {} bytes, but the file system uses only {}",
            media.len(),
            superblock.dev_size
        ));
    }
    let area = superblock.data_area(media.len());
    FsckReport {
        version: 1,
        fs_uuid: superblock.fs_uuid.to_string(),
        dev_uuid: superblock.dev_uuid.to_string(),
        system_uuid: superblock.system_uuid.to_string(),
        device_bytes: media.len(),
        recorded_bytes: superblock.dev_size,
        log: LogReport {
            offset: format::LOG_OFFSET,
            bytes: superblock.log_len,
            slots: log.slots(),
            entries: log.published(),
        },
        files: counts.files,
        directories: counts.directories,
        symlinks: counts.symlinks,
        file_bytes: counts.file_bytes,
        extensions: (!plan.tree().is_conventional()).then_some(counts),
        store: Some(plan.tree().store_use()).filter(|store| store.files > 0),
        space: SpaceReport {
            alloc_unit: ALLOC_UNIT,
            start: area.start,
            capacity: area.end - area.start,
            used: plan.space.used(),
            free: plan.space.free(),
            largest_free: plan.space.largest_free(),
            deleted: dead.units,
        },
        collisions: plan.collisions,
        unknown_entries: plan.unknown,
        problems,
        notes,
    }
}
