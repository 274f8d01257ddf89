// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Applies a plan: makes the files and directories of a log appear in a mounted famfs.

use std::io;

use rustix::fs::{Mode, OFlags};

use crate::format::map::FileMap;
use crate::format::path::RelPath;
use crate::kernel::mount::MountedVolume;
use crate::replay::{Deletion, Node, NodeKind, Owner, Plan};
use crate::sys::ioctl;

/// Why a file or directory of the log does not appear.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The system refused.
    #[error("cannot make \"{path}\" of log slot {slot}")]
    Make {
        /// The file or directory.
        path: RelPath,
        /// Slot of its entry.
        slot: u64,
        /// The error of the system.
        source: io::Error,
    },
    /// The system refused to remove what was deleted.
    #[error("cannot remove \"{path}\", which log slot {slot} deletes")]
    Remove {
        /// The file or directory.
        path: RelPath,
        /// Slot of the deleting entry.
        slot: u64,
        /// The error of the system.
        source: io::Error,
    },
    /// The file exists, but its memory is not that of the log.
    #[error(
        "\"{path}\" of log slot {slot} is mounted with other memory than the log says: the file \
         system was formatted again or compacted meanwhile; unmount it and mount it again"
    )]
    OtherMemory {
        /// The file.
        path: RelPath,
        /// Slot of its entry.
        slot: u64,
    },
    /// Something else is in its place.
    #[error("\"{path}\" of log slot {slot} is in the way: found {found}, expected {expected}")]
    InTheWay {
        /// The file or directory.
        path: RelPath,
        /// Slot of its entry.
        slot: u64,
        /// What is there.
        found: String,
        /// What the log says.
        expected: String,
    },
}

impl ApplyError {
    /// The file or directory.
    pub fn path(&self) -> &RelPath {
        match self {
            Self::Make { path, .. }
            | Self::Remove { path, .. }
            | Self::OtherMemory { path, .. }
            | Self::InTheWay { path, .. } => path,
        }
    }
}

/// The result of applying a plan.
#[derive(Debug, Default)]
pub struct Applied {
    /// Files made.
    pub files: u64,
    /// Directories made.
    pub directories: u64,
    /// Deleted files and directories that were removed.
    pub removed: u64,
    /// Files and directories that existed already.
    pub existed: u64,
    /// What could not be made.
    pub errors: Vec<ApplyError>,
}

/// Where the files and directories of a plan appear.
pub trait Tree {
    /// Type (whether a directory) and size of what is at a path; `None` if nothing is.
    fn existing(&self, path: &RelPath) -> io::Result<Option<(bool, u64)>>;

    /// Where a file's bytes are; `None` if that is unknown.
    fn memory(&self, path: &RelPath) -> io::Result<Option<FileMap>>;

    /// Removes a file or an empty directory.
    fn unlink(&self, path: &RelPath, is_dir: bool) -> io::Result<()>;

    /// Makes a directory with exactly this owner and mode.
    fn make_dir(&self, path: &RelPath, owner: Owner) -> io::Result<()>;

    /// Makes a file with exactly this owner, mode and memory.
    fn make_file(&self, path: &RelPath, owner: Owner, size: u64, map: &FileMap) -> io::Result<()>;
}

impl Tree for MountedVolume {
    fn existing(&self, path: &RelPath) -> io::Result<Option<(bool, u64)>> {
        self.root().existing(path)
    }

    fn memory(&self, path: &RelPath) -> io::Result<Option<FileMap>> {
        let file = self.root().open(path.as_path(), OFlags::RDONLY, Mode::empty())?;
        // Some kernels report only the shorter maps.
        Ok(ioctl::map_get(file).ok().map(|(_, map)| map))
    }

    fn unlink(&self, path: &RelPath, is_dir: bool) -> io::Result<()> {
        self.root().remove(path, is_dir)
    }

    fn make_dir(&self, path: &RelPath, owner: Owner) -> io::Result<()> {
        self.root().make_dir(path, owner)
    }

    fn make_file(&self, path: &RelPath, owner: Owner, size: u64, map: &FileMap) -> io::Result<()> {
        self.make_mapped(path, owner, size, map).map(drop)
    }
}

/// Removes what a plan's log deleted, and makes what is missing of the plan. `each` gets every path
/// that is made, or with `dry_run` would be made.
pub fn apply(tree: &dyn Tree, plan: &Plan, dry_run: bool, each: impl FnMut(&RelPath)) -> Applied {
    let (removed, mut errors) = apply_deletions(tree, plan, plan.deletions_since(0), dry_run);
    let mut applied = apply_nodes(tree, plan.nodes(), dry_run, each);
    applied.removed = removed;
    errors.append(&mut applied.errors);
    Applied { errors, ..applied }
}

/// Removes deleted nodes that are still there; returns how many, and what could not be removed.
pub fn apply_deletions<'p>(
    tree: &dyn Tree,
    plan: &Plan,
    deletions: impl IntoIterator<Item = &'p Deletion>,
    dry_run: bool,
) -> (u64, Vec<ApplyError>) {
    let (mut removed, mut errors) = (0, Vec::new());
    for Deletion { slot, node } in deletions {
        match remove_deleted(tree, plan, node, dry_run) {
            Ok(true) => removed += 1,
            Ok(false) => {}
            Err(source) => {
                errors.push(ApplyError::Remove { path: node.path.clone(), slot: *slot, source });
            }
        }
    }
    (removed, errors)
}

/// Removes a deleted node; false if it is not there. Its memory tells it from what another entry
/// made at the same path.
fn remove_deleted(tree: &dyn Tree, plan: &Plan, node: &Node, dry_run: bool) -> io::Result<bool> {
    let path = &node.path;
    let again = plan.get(path).map(|node| &node.kind);
    let is_dir = match (tree.existing(path)?, &node.kind) {
        (Some((true, _)), NodeKind::Dir) if again != Some(&NodeKind::Dir) => true,
        (Some((false, found)), NodeKind::File { size, map }) if found == *size => {
            match tree.memory(path)? {
                Some(found) if found != *map => return Ok(false),
                None if again.is_some() => return Ok(false),
                _ => false,
            }
        }
        _ => return Ok(false),
    };
    if !dry_run {
        tree.unlink(path, is_dir)?;
    }
    Ok(true)
}

/// The same for some nodes of a plan.
pub fn apply_nodes<'p>(
    tree: &dyn Tree,
    nodes: impl IntoIterator<Item = &'p Node>,
    dry_run: bool,
    mut each: impl FnMut(&RelPath),
) -> Applied {
    let mut applied = Applied::default();
    for node in nodes {
        match apply_node(tree, node, dry_run) {
            Ok(false) => applied.existed += 1,
            Ok(true) => {
                each(&node.path);
                match node.kind {
                    NodeKind::Dir => applied.directories += 1,
                    NodeKind::File { .. } => applied.files += 1,
                }
            }
            Err(err) => applied.errors.push(err),
        }
    }
    applied
}

/// Makes one file or directory; false if it existed already.
fn apply_node(tree: &dyn Tree, node: &Node, dry_run: bool) -> Result<bool, ApplyError> {
    let Node { path, slot, .. } = node;
    let error = |source| ApplyError::Make { path: path.clone(), slot: *slot, source };
    if let Some((is_dir, size)) = tree.existing(path).map_err(error)? {
        let found = describe(is_dir, size);
        let expected = match &node.kind {
            NodeKind::Dir => describe(true, 0),
            NodeKind::File { size, .. } => describe(false, *size),
        };
        if found == expected {
            if let NodeKind::File { map, .. } = &node.kind
                && tree.memory(path).map_err(error)?.is_some_and(|found| found != *map)
            {
                return Err(ApplyError::OtherMemory { path: path.clone(), slot: *slot });
            }
            return Ok(false);
        }
        return Err(ApplyError::InTheWay { path: path.clone(), slot: *slot, found, expected });
    }
    if dry_run {
        return Ok(true);
    }
    match &node.kind {
        NodeKind::Dir => tree.make_dir(path, node.owner),
        NodeKind::File { size, map } => tree.make_file(path, node.owner, *size, map),
    }
    .map_err(error)?;
    Ok(true)
}

fn describe(is_dir: bool, size: u64) -> String {
    if is_dir { "a directory".to_owned() } else { format!("a file of {size} bytes") }
}
