// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a file is on the device, in reports.

use famfs::format::map::{Extent, FileMap};
use serde::Serialize;

/// A file's map as the JSON reports show it.
#[derive(Serialize)]
pub struct MapItem {
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Bytes per chunk of an interleaved file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_size: Option<u64>,
    /// Extents, strips or pieces.
    pub extents: Vec<ExtentItem>,
}

/// A range of the device.
#[derive(Serialize)]
pub struct ExtentItem {
    /// Where a piece is in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// Offset of the first byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl MapItem {
    /// The map of a file with holes between its pieces.
    pub fn pieces(extents: Vec<ExtentItem>) -> Self {
        Self { kind: "pieces", chunk_size: None, extents }
    }
}

impl From<&FileMap> for MapItem {
    fn from(map: &FileMap) -> Self {
        let (kind, chunk_size) = match map {
            FileMap::Simple(_) => ("simple", None),
            FileMap::Interleaved { chunk_size, .. } => ("interleaved", Some(*chunk_size)),
        };
        let item =
            |extent: &Extent| ExtentItem { at: None, offset: extent.offset, len: extent.len };
        Self { kind, chunk_size, extents: map.extents().iter().map(item).collect() }
    }
}
