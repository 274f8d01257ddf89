// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `ls`, `stat`, `tree` and `du` show, whether conventional entries or extensions made it.

use std::convert::Infallible;

use anyhow::{Result, bail};
use famfs::format::extension::NO_ENTRY;
use famfs::format::map::Extent;
use famfs::replay::tree::Tree;
use famfs::replay::tree::list::Listed;
use famfs::replay::tree::object::{FileBytes, ObjectKind, Time};
use famfs::replay::{Node, NodeKind, Owner, Plan};
use famfs::text::terminal::escape_name;

use super::map_item::{ExtentItem, MapItem};
use super::nodes_at;
use crate::place::Place;

/// A file, directory or symbolic link at one of its paths.
pub struct Row {
    /// The path below the root.
    pub path: Vec<u8>,
    /// Slot of the entry that made the name.
    pub slot: u64,
    /// Whose it is.
    pub owner: Owner,
    /// When its contents changed last, if the log tells.
    pub mtime: Option<Time>,
    /// Number of its names, and the slot that made what it is; conventional entries have one.
    pub links: Option<(u64, u64)>,
    /// What it is.
    pub kind: RowKind,
}

/// What a row is.
pub enum RowKind {
    /// A directory.
    Dir,
    /// A file.
    File {
        /// Size in bytes.
        size: u64,
        /// Bytes that it takes, without its holes.
        allocated: u64,
        /// Where its bytes are.
        map: MapItem,
    },
    /// A symbolic link, with its target.
    Symlink(Vec<u8>),
}

impl Row {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, RowKind::Dir)
    }

    /// The path for people.
    pub fn shown(&self) -> String {
        escape_name(&self.path)
    }
}

/// Everything at and below the place's path, directories before what is in them.
pub fn rows_at(place: &Place, plan: &Plan) -> Result<Vec<Row>> {
    let tree = plan.tree();
    if tree.is_conventional() {
        return Ok(nodes_at(place, plan)?.into_iter().map(of_node).collect());
    }
    let mut rows = Vec::new();
    let top = place.path.as_ref().map(|path| path.as_bytes());
    let Ok(()) = tree.walk(NO_ENTRY, |path, listed| {
        let within = |top: &[u8]| match path.strip_prefix(top) {
            Some(rest) => rest.is_empty() || rest[0] == b'/',
            None => false,
        };
        if top.is_none_or(within) {
            rows.push(of_name(tree, path, listed));
        }
        Ok::<(), Infallible>(())
    });
    match &place.path {
        Some(path) if rows.is_empty() => bail!("\"{path}\" is not in the log"),
        _ => Ok(rows),
    }
}

fn of_node(node: &Node) -> Row {
    let kind = match &node.kind {
        NodeKind::Dir => RowKind::Dir,
        NodeKind::File { size, map } => RowKind::File {
            size: *size,
            allocated: map.extents().iter().map(|extent| extent.len).sum(),
            map: map.into(),
        },
    };
    let path = node.path.as_bytes().to_vec();
    Row { path, slot: node.slot, owner: node.owner, mtime: None, links: None, kind }
}

fn of_name(tree: &Tree, path: &[u8], listed: Listed<'_>) -> Row {
    let Listed { slot, name, object } = listed;
    let kind = match &object.kind {
        ObjectKind::Dir { .. } => RowKind::Dir,
        ObjectKind::Symlink { target, .. } => RowKind::Symlink(target.to_vec()),
        ObjectKind::File { size, bytes } => {
            let map = match bytes {
                FileBytes::Own(map) => map.into(),
                FileBytes::Pieces { .. } => {
                    let extents = tree.extents(bytes, *size);
                    let item = |(at, Extent { offset, len }): (u64, Extent)| ExtentItem {
                        at: Some(at),
                        offset,
                        len,
                    };
                    MapItem::pieces(extents.into_iter().map(item).collect())
                }
            };
            RowKind::File { size: *size, allocated: tree.allocated(bytes), map }
        }
    };
    Row {
        path: path.to_vec(),
        slot,
        owner: object.owner,
        mtime: object.mtime,
        links: Some((object.links, name.object)),
        kind,
    }
}
