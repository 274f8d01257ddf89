// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Allocates a pool's memory, optionally on one NUMA node.

use std::fs::File;
use std::io;

use famfs::text::units::{About, Bytes};
use rustix::fs::FallocateFlags;
use vm_memory::{FileOffset, MmapRegion};

use super::hugepages::{HugePages, TooFew};
use super::kind::Kind;
use crate::host::memory::Available;
use crate::host::numa::Nodes;
use crate::host::sys;

/// Bytes to allocate between two progress reports; this limits the reaction time to Ctrl-C.
const STEP: u64 = 64 << 20;

/// Called with the bytes done and the total.
pub type Progress<'p> = &'p mut dyn FnMut(u64, u64);

/// Why the memory cannot be allocated.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host has too few huge pages.
    #[error(transparent)]
    HugePages(#[from] TooFew),
    /// The host has too little memory.
    #[error(
        "needs {needed}, but {} has only {} of memory available", .available.bound, About(.available.bytes)
    )]
    Little {
        /// Bytes to allocate.
        needed: Bytes,
        /// The available memory.
        available: Available,
    },
    /// A NUMA node was given for a pool that is not memory.
    #[error(
        "--numa: a pool of kind {} cannot be bound to a node; use a directory in tmpfs or hugetlbfs",
        .0.name()
    )]
    Placement(Kind),
    /// The node does not exist or has no memory.
    #[error("--numa {node}: this node has no memory; nodes with memory: {found}")]
    Node {
        /// The requested node.
        node: u32,
        /// The nodes with memory.
        found: Nodes,
    },
    /// A system call failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

fn cannot(action: &'static str) -> impl Fn(io::Error) -> MemoryError {
    move |source| MemoryError::Io { action, source }
}

/// Refuses a NUMA node without memory, and kinds of pools that cannot be bound to a node.
pub(super) fn check_node(kind: Kind, node: u32) -> Result<(), MemoryError> {
    if !matches!(kind, Kind::Tmpfs | Kind::Hugetlbfs) {
        return Err(MemoryError::Placement(kind));
    }
    let found = Nodes::with_memory().map_err(cannot("determine the NUMA nodes with memory"))?;
    match found.has(node) {
        true => Ok(()),
        false => Err(MemoryError::Node { node, found }),
    }
}

/// Binds all memory of the file to one NUMA node.
pub(super) fn bind(file: &File, size: u64, node: u32) -> Result<(), MemoryError> {
    let action = cannot("bind its memory to the NUMA node");
    let file = file.try_clone().map_err(&action)?;
    let size = usize::try_from(size).map_err(|err| action(io::Error::other(err)))?;
    let mapping = MmapRegion::from_file(FileOffset::new(file, 0), size)
        .map_err(|err| action(io::Error::other(err)))?;
    sys::bind_to_node(&mapping, node).map_err(action)
}

/// Refuses to allocate more memory than is available.
pub(super) fn check_free(
    kind: Kind,
    page_size: u64,
    bytes: u64,
    node: Option<u32>,
) -> Result<(), MemoryError> {
    if kind == Kind::Hugetlbfs {
        let pages = HugePages::read(page_size, node)
            .map_err(cannot("determine the number of free huge pages"))?;
        return Ok(pages.check(bytes)?);
    }
    let available = Available::look().map_err(cannot("determine the available memory"))?;
    if bytes <= available.bytes {
        return Ok(());
    }
    Err(MemoryError::Little { needed: Bytes(bytes), available })
}

/// Free bytes of the file's file system; `None` if it has no limit of its own, as a tmpfs or
/// hugetlbfs can be made.
pub(super) fn free_space(file: &File) -> rustix::io::Result<Option<u64>> {
    let stat = rustix::fs::fstatvfs(file)?;
    Ok((stat.f_blocks != 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize)))
}

/// Allocates the memory or storage of the bytes from `from` to `size`.
pub(super) fn take(
    file: &File,
    page_size: u64,
    from: u64,
    size: u64,
    progress: Progress<'_>,
) -> rustix::io::Result<()> {
    let step = STEP.next_multiple_of(page_size);
    let mut done = from;
    while done < size {
        let len = step.min(size - done);
        rustix::fs::fallocate(file, FallocateFlags::empty(), done, len)?;
        done += len;
        progress(done - from, size - from);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_has_a_place() {
        for kind in [Kind::File, Kind::Memfd, Kind::Devdax] {
            assert!(matches!(check_node(kind, 0), Err(MemoryError::Placement(_))));
        }
        assert!(matches!(check_node(Kind::Tmpfs, 1023), Err(MemoryError::Node { .. })));
        check_node(Kind::Tmpfs, 0).unwrap();
    }
}
