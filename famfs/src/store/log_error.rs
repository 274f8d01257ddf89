// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a log cannot be read or written.

use crate::format::LOG_MAGIC;
use crate::media::MediaError;
use crate::store::superblock::RESTORE;

/// Why a log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The bytes cannot be accessed.
    #[error("cannot access the log")]
    Media(#[from] MediaError),
    /// The header has another magic number.
    #[error("log header at {offset:#x}: magic {found:#x}, expected {LOG_MAGIC:#x}; {RESTORE}")]
    Magic {
        /// Offset in the device or pool.
        offset: u64,
        /// What is there.
        found: u64,
    },
    /// A header field does not fit the rest.
    #[error("log header at {offset:#x}: {field} {found:#x}, expected {expected:#x}; {RESTORE}")]
    Header {
        /// Offset in the device or pool.
        offset: u64,
        /// Name of the field.
        field: &'static str,
        /// Value on the media.
        found: u64,
        /// Value that would be right.
        expected: u64,
    },
    /// A published entry is damaged; it and all later ones are lost.
    #[error(
        "log slot {slot} at {offset:#x}: {field} {found:#x}, expected {expected:#x}; `famfs export` \
         saves what is before it, or {RESTORE}"
    )]
    Slot {
        /// Index of the slot.
        slot: u64,
        /// Offset in the device or pool.
        offset: u64,
        /// "checksum" or "sequence number".
        field: &'static str,
        /// Value on the media.
        found: u64,
        /// Value that would be right.
        expected: u64,
    },
    /// What tells how far entries have moved into other slots is damaged.
    #[error(
        "the log's entries were moving into slots without gaps, and the record of that at \
         {offset:#x} is damaged: {what}; {RESTORE}"
    )]
    Renumbering {
        /// Offset in the device or pool.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Somebody moves the entries into other slots right now, or was killed.
    #[error(
        "the log's entries are moving into other slots (record at {offset:#x}): try again when \
         `famfs reclaim` or `famfs compact` has ended; if it was killed, run `famfs reclaim --pool \
         FILE` on the host, which goes on"
    )]
    Moving {
        /// Offset in the device or pool.
        offset: u64,
    },
    /// Entries have moved since the log was opened.
    #[error(
        "the log's entries moved into other slots while they were read (slot {slot}, numbering \
         {found}, expected {expected}): try again"
    )]
    Moved {
        /// The slot that was being read.
        slot: u64,
        /// Numbering on the media.
        found: u64,
        /// Numbering of the log that was opened.
        expected: u64,
    },
    /// An entry names a slot that is void.
    #[error("log slot {slot} at {offset:#x} names slot {void}, which is void")]
    Reference {
        /// Index of the slot.
        slot: u64,
        /// Offset in the device or pool.
        offset: u64,
        /// The slot that it names.
        void: u64,
    },
    /// Not all entries of a group are published, so none of them counts.
    #[error(
        "log slot {slot} at {offset:#x}: {count} entries belong together, but only {published} of \
         them are published"
    )]
    Group {
        /// Slot of the group's head.
        slot: u64,
        /// Offset of it in the device or pool.
        offset: u64,
        /// Entries of the group.
        count: u64,
        /// Those that are published.
        published: u64,
    },
    /// The header claims more entries than there are slots.
    #[error("log header at {offset:#x}: next index {found}, but the log has {slots} slots")]
    PastEnd {
        /// Offset in the device or pool.
        offset: u64,
        /// Value on the media.
        found: u64,
        /// Number of slots.
        slots: u64,
    },
    /// The two counters differ in a way that no interrupted append leaves.
    #[error(
        "log header at {offset:#x}: next sequence number {next_seqnum}, next index {next_index}, \
         expected them to be equal"
    )]
    Counters {
        /// Offset in the device or pool.
        offset: u64,
        /// Value on the media.
        next_seqnum: u64,
        /// Value on the media.
        next_index: u64,
    },
    /// There is no room for more entries.
    #[error(
        "the log is {}: {needed} more entries needed, {free} of {slots} slots free; `famfs reclaim \
         --slots --pool FILE` on the host gives back the slots of deleted files; for a longer log, \
         make a new file system: `famfs export` all files, `famfs mkfs --force --entries {}`, which \
         erases them, and `famfs import`",
        if *.free == 0 { "full" } else { "too short for this" }, twice(*.slots, *.needed)
    )]
    Full {
        /// Entries to append.
        needed: u64,
        /// Slots left.
        free: u64,
        /// Slots of the log.
        slots: u64,
    },
}

/// Entries to ask for next time: twice as many as there are, and as are needed.
fn twice(slots: u64, needed: u64) -> u64 {
    slots.saturating_add(needed).max(slots.saturating_mul(2))
}
