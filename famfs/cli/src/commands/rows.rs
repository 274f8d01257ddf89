// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a path is and has, for the commands that show it.

use famfs::format::map::{Extent, Memory};
use famfs::replay::Time;
use famfs::replay::tree::Tree;
use famfs::replay::tree::list::Entry;
use famfs::replay::tree::object::{FileBytes, ObjectKind};
use famfs::text::time::utc;

use super::map_item::{ExtentItem, MapItem};

/// Whether it is a directory.
pub fn is_dir(entry: &Entry<'_>) -> bool {
    matches!(entry.listed.object.kind, ObjectKind::Dir { .. })
}

/// Where the bytes of a file are.
pub fn map_item(tree: &Tree, bytes: &FileBytes, size: u64) -> MapItem {
    match tree.memory(bytes, size) {
        Memory::Map(map) => (&map).into(),
        Memory::Pieces(pieces) => {
            let item = |(at, Extent { offset, len })| ExtentItem { at: Some(at), offset, len };
            MapItem::pieces(pieces.into_iter().map(item).collect())
        }
    }
}

/// A time for people; conventional entries tell none.
pub fn shown(time: Option<Time>) -> String {
    time.map_or("-".to_owned(), |Time { sec, nsec }| utc(sec, nsec))
}
