// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compares files and directory trees with the contents of a file system, and writes nothing.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::format::map::Memory;
use crate::format::path::RelPath;
use crate::replay::tree::Tree;
use crate::replay::tree::list::Listed;
use crate::replay::tree::object::ObjectKind;
use crate::replay::{Attributes, Plan};
use crate::sys::dax::Access;
use crate::text::terminal::escape_name;
use crate::write::copy_error::CopyError;
use crate::write::existing::differing;
use crate::write::session::open;
use crate::write::sources::{self, Item, Scan, What};
use crate::write::volume::{Volume, steps_of};

/// Bytes that are compared at a time: two buffers stay in the processor's cache.
const PIECE: usize = 256 << 10;

/// Why sources cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A source cannot be read.
    #[error(transparent)]
    Source(#[from] CopyError),
    /// A file of the file system cannot be read.
    #[error("cannot read \"{path}\"")]
    Target {
        /// The file in the file system.
        path: RelPath,
        /// The error of the system.
        source: io::Error,
    },
    /// The user asked to stop.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

impl From<CompareError> for CopyError {
    fn from(error: CompareError) -> Self {
        match error {
            CompareError::Source(error) => error,
            CompareError::Target { path, source } => Self::Existing { path, source },
            // Sources are compared before anything is written.
            CompareError::Interrupted => Self::Interrupted { atomic: true },
        }
    }
}

/// A source whose counterpart differs, or does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The source.
    pub source: PathBuf,
    /// Its counterpart in the file system.
    pub path: RelPath,
    /// What is different.
    pub reason: String,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Compared {
    /// Files that are the same.
    pub files: u64,
    /// Directories that are the same.
    pub directories: u64,
    /// Symbolic links that are the same.
    pub symlinks: u64,
    /// Further names of files that are the same.
    pub hard_links: u64,
    /// Bytes of the files that are the same.
    pub bytes: u64,
    /// What is not the same, in the order of the sources.
    pub differences: Vec<Difference>,
}

/// Compares the sources with the tree of a plan: what they are, their bytes, targets and links, and
/// owners, modes and times as far as the file system holds them. `progress` gets the bytes of each
/// step, and returns whether to go on.
pub fn compare(
    scan: &Scan,
    plan: &Plan,
    volume: &dyn Volume,
    progress: impl Fn(u64) -> bool,
) -> Result<Compared, CompareError> {
    let mut compared = Compared::default();
    let mut buffers = [vec![0; PIECE], vec![0; PIECE]];
    let (tree, mut seen) = (plan.tree(), HashSet::new());
    for item in &scan.items {
        let reason = match tree.get(&item.path) {
            None => Some("does not exist".to_owned()),
            Some(there) => match difference(item, &there, tree, &mut seen) {
                None => match (&there.object.kind, &item.what) {
                    (ObjectKind::File { size, bytes }, What::File(layout)) => {
                        let memory = tree.memory(bytes, *size);
                        let ranges = layout.and_memory(&memory);
                        let pair = Pair { item, size: *size, memory, ranges };
                        let found = first_difference(&pair, volume, &mut buffers, &progress)?;
                        found.map(|offset| format!("differs at offset {offset}"))
                    }
                    _ => None,
                },
                reason => reason,
            },
        };
        match (reason, &item.what) {
            (Some(reason), _) => {
                let (source, path) = (item.source.clone(), item.path.clone());
                compared.differences.push(Difference { source, path, reason });
            }
            (None, What::Dir) => compared.directories += 1,
            (None, What::Symlink(_)) => compared.symlinks += 1,
            (None, What::Link(_)) => compared.hard_links += 1,
            (None, What::File(layout)) => {
                compared.files += 1;
                compared.bytes += layout.size();
            }
        }
    }
    Ok(compared)
}

/// A source file and its counterpart of the same size.
struct Pair<'a> {
    item: &'a Item,
    size: u64,
    memory: Memory,
    /// What may differ.
    ranges: Vec<Range<u64>>,
}

/// Whether the bytes of a file differ from those of its counterpart of the same size.
pub(super) fn differs(
    item: &Item,
    memory: &Memory,
    volume: &dyn Volume,
    progress: &dyn Fn(u64) -> bool,
) -> Result<bool, CompareError> {
    let What::File(layout) = &item.what else { return Ok(false) };
    let (memory, ranges) = (memory.clone(), layout.and_memory(memory));
    let pair = Pair { item, size: layout.size(), memory, ranges };
    let mut buffers = [vec![0; PIECE], vec![0; PIECE]];
    Ok(first_difference(&pair, volume, &mut buffers, progress)?.is_some())
}

/// How a counterpart differs, whatever its bytes.
fn difference(
    item: &Item,
    there: &Listed<'_>,
    tree: &Tree,
    seen: &mut HashSet<u64>,
) -> Option<String> {
    let object = there.object;
    match (&object.kind, &item.what) {
        (ObjectKind::Dir { .. }, What::Dir) => {}
        (ObjectKind::File { .. }, What::Link(first)) => {
            let first_object = tree.get(first).map(|listed| listed.name.object);
            if first_object != Some(there.name.object) {
                return Some(format!("is not another name of \"{first}\""));
            }
        }
        (ObjectKind::File { size, .. }, What::File(layout)) => {
            if *size != layout.size() {
                return Some(format!("has {size} bytes, the source {}", layout.size()));
            }
            if !seen.insert(there.name.object) {
                return Some("is another name of a file, the source a file of its own".to_owned());
            }
        }
        (ObjectKind::Symlink { target }, What::Symlink(wanted)) => {
            if target != wanted {
                let [target, wanted] = [target, wanted].map(|target| escape_name(target));
                return Some(format!("leads to \"{target}\", the source to \"{wanted}\""));
            }
        }
        (_, wanted) => {
            let wanted = match wanted {
                What::Dir => "directory",
                What::File(_) | What::Link(_) => "file",
                What::Symlink(_) => "symbolic link",
            };
            return Some(format!("is a {}, the source a {wanted}", object.kind_name()));
        }
    }
    match item.contents_only {
        true => None,
        false => other_attributes(
            &Attributes { owner: object.owner, mtime: object.mtime },
            &item.attributes,
        ),
    }
}

/// How attributes differ. A conventional entry holds no time.
fn other_attributes(there: &Attributes, wanted: &Attributes) -> Option<String> {
    let new = differing(there, wanted);
    let other_time = there.mtime.is_some() && new.mtime.is_some();
    let (there, wanted) = (there.owner, wanted.owner);
    if new.uid.is_some() || new.gid.is_some() {
        let [there, wanted] = [there, wanted].map(|owner| format!("{}:{}", owner.uid, owner.gid));
        return Some(format!("has owner {there}, the source {wanted}"));
    }
    if new.mode.is_some() {
        return Some(format!("has mode {:04o}, the source {:04o}", there.mode, wanted.mode));
    }
    other_time.then(|| "has another time".to_owned())
}

/// The offset of the first byte that differs.
fn first_difference(
    Pair { item, size, memory, ranges }: &Pair<'_>,
    volume: &dyn Volume,
    buffers: &mut [Vec<u8>; 2],
    progress: &dyn Fn(u64) -> bool,
) -> Result<Option<u64>, CompareError> {
    let failed = |source| CompareError::Target { path: item.path.clone(), source };
    let source = open(item, *size)?;
    let bytes = volume.open_file(&item.path, *size, memory, Access::Read).map_err(failed)?;
    for (offset, len) in ranges.iter().flat_map(steps_of) {
        bytes.refresh(offset, len).map_err(failed)?;
        let end = offset + len as u64;
        for at in (offset..end).step_by(PIECE) {
            let len = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
            let [wanted, found] = &mut *buffers;
            let (wanted, found) = (&mut wanted[..len], &mut found[..len]);
            read_source(item, *size, &source, at, wanted)?;
            bytes.read(at, found).map_err(failed)?;
            if let Some(byte) = wanted.iter().zip(&*found).position(|(a, b)| a != b) {
                return Ok(Some(at + byte as u64));
            }
        }
        if !progress(len as u64) {
            return Err(CompareError::Interrupted);
        }
    }
    Ok(None)
}

fn read_source(
    item: &Item,
    size: u64,
    source: &File,
    at: u64,
    buf: &mut [u8],
) -> Result<(), CopyError> {
    source.read_exact_at(buf, at).map_err(|err| match err.kind() {
        io::ErrorKind::UnexpectedEof => CopyError::Changed { path: item.source.clone(), size },
        _ => sources::read_error("read", &item.source, err).into(),
    })
}
