// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How large a device a file system needs, and its record of the device's size.
//!
//! Only [`data_end`] decides where data ends. It counts the memory that the allocator counts as
//! taken: files, and deleted files that are not compacted, whose entries are still in the log and
//! would be damage on a shorter device.

use std::collections::HashSet;
use std::mem::offset_of;

use zerocopy::transmute;

use crate::format::map::{DataArea, Extent, FileMap};
use crate::format::{self, ALLOC_UNIT, EntryKind, FileBody};
use crate::media::Media;
use crate::replay::dead::Dead;
use crate::replay::{Contents, Node, NodeKind};
use crate::store::superblock::{Superblock, SuperblockError};
use crate::store::takeover::takeover;

/// Device offset of the superblock's word with the size of the device.
const DEV_SIZE_OFFSET: u64 = offset_of!(format::Superblock, dev_size) as u64;

/// Where the data of a file system ends: device offsets, in whole units. A shorter device could not
/// be one with this file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataEnd {
    /// After the last unit that anything holds, deleted files included.
    pub now: u64,
    /// Where it will be once deleted files are compacted.
    pub compacted: u64,
}

/// Where the data of a file system ends; `None` if that is unknown, because entries are damaged,
/// left out or of unknown types.
pub fn data_end(contents: &Contents<'_>, device_len: u64) -> Option<DataEnd> {
    let Contents { superblock, log, plan } = contents;
    if plan.stopped.is_some() || !plan.refused.is_empty() || plan.unknown > 0 {
        return None;
    }
    let area = superblock.data_area(device_len);
    // A superblock without a unit for data is refused.
    let mut least = area.start + ALLOC_UNIT;
    // No reader sees these entries yet, but the next append publishes them.
    for entry in log.unpublished() {
        let (_, entry) = entry.ok()?;
        least = least.max(unpublished_end(&entry, area, plan.has_extensions())?);
    }
    let dead: HashSet<u64> = Dead::of(log, plan).ok()?.made.into_iter().collect();
    let live = plan.nodes().iter().filter(|node| !dead.contains(&node.slot));
    let live = live.map(node_end).max().unwrap_or(0);
    Some(DataEnd { now: plan.space.end().max(least), compacted: live.max(least) })
}

/// End of the last unit of an entry that is not in the plan; `None` if it is not understood.
fn unpublished_end(entry: &format::Entry, area: DataArea, extensions: bool) -> Option<u64> {
    match EntryKind::of(entry)? {
        EntryKind::File => {
            let body: FileBody = transmute!(entry.body);
            Some(map_end(&FileMap::parse(&body, area).ok()?))
        }
        EntryKind::Mkdir | EntryKind::Delete | EntryKind::Void => Some(0),
        EntryKind::Name
        | EntryKind::Link
        | EntryKind::Attr
        | EntryKind::Move
        | EntryKind::Remove
        | EntryKind::Group
        | EntryKind::List => extensions.then_some(0),
        EntryKind::Daxdev => None,
    }
}

fn node_end(node: &Node) -> u64 {
    match &node.kind {
        NodeKind::File { map, .. } => map_end(map),
        NodeKind::Dir => 0,
    }
}

fn map_end(map: &FileMap) -> u64 {
    let end = |extent: &Extent| (extent.offset + extent.len).next_multiple_of(ALLOC_UNIT);
    map.extents().iter().map(end).max().unwrap_or(0)
}

/// Records that the device has `len` bytes, by one atomic store. `media` may be longer.
pub fn record(media: &dyn Media, len: u64) -> Result<(), SuperblockError> {
    // The copy of an interrupted takeover may differ from the superblock only in the master.
    if let Some((copy, true)) = Superblock::left_by_takeover(media)? {
        takeover(media, copy.system_uuid)?;
    }
    media.write_at(DEV_SIZE_OFFSET, &len.to_le_bytes())?;
    Ok(media.persist(DEV_SIZE_OFFSET, 8)?)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::media::in_memory::InMemory;
    use crate::store::mkfs::{self, mkfs};

    #[test]
    fn a_size_is_recorded_also_after_half_a_takeover() {
        let media = InMemory::new(64 << 20);
        let options = mkfs::Options {
            log_len: None,
            extensions: true,
            force: false,
            fs_uuid: Uuid::from_u128(1),
            dev_uuid: Uuid::from_u128(2),
            system_uuid: Uuid::from_u128(3),
            dev_name: "x".into(),
        };
        let made = mkfs(&media, &options).unwrap();
        record(&media, 32 << 20).unwrap();
        let expected = Superblock { dev_size: 32 << 20, ..made };
        assert_eq!(Superblock::read(&media).unwrap(), expected);
        // The copy exists, and the superblock has half of the new master.
        let master = Uuid::from_u128(u128::MAX);
        let wanted = Superblock { system_uuid: master, ..expected };
        media.write_at(format::SUPERBLOCK_COPY_OFFSET, &wanted.encode()).unwrap();
        media.write_at(format::Superblock::OF_MASTER.start as u64, &[0xff; 8]).unwrap();
        record(&media, 48 << 20).unwrap();
        assert_eq!(Superblock::left_by_takeover(&media).unwrap(), None);
        let expected = Superblock { dev_size: 48 << 20, ..wanted };
        assert_eq!(Superblock::read(&media).unwrap(), expected);
    }
}
