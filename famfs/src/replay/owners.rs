// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whose each extent of the device is.

use std::collections::BTreeMap;

use crate::format::map::FileMap;
use crate::replay::node::{Node, NodeKind};

/// The nodes' extents by offset: end of the extent, and index of the node.
#[derive(Debug, Default)]
pub struct Owners(BTreeMap<u64, (u64, usize)>);

impl Owners {
    /// The owners of the extents of all nodes.
    pub fn of(nodes: &[Node]) -> Self {
        let mut owners = Self::default();
        for (index, node) in nodes.iter().enumerate() {
            owners.add(index, node);
        }
        owners
    }

    /// Adds the extents of a node with an index.
    pub fn add(&mut self, index: usize, node: &Node) {
        if let NodeKind::File { map, .. } = &node.kind {
            for extent in map.extents() {
                self.0.insert(extent.offset, (extent.offset + extent.len, index));
            }
        }
    }

    /// Index of a node that shares memory with a map.
    pub fn find(&self, map: &FileMap) -> Option<usize> {
        // The nodes' extents are disjoint, so only the last one before an end can reach back.
        map.extents().iter().find_map(|extent| {
            let before = self.0.range(..extent.offset + extent.len).next_back();
            before.filter(|(_, (end, _))| *end > extent.offset).map(|(_, (_, index))| *index)
        })
    }
}
