// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Compares files and directory trees with the contents of a file system, and writes nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::format::map::{FileMap, Memory};
use crate::format::path::RelPath;
use crate::replay::{NodeKind, Plan};
use crate::sys::dax::Access;
use crate::write::copy::{self, CopyError};
use crate::write::sources::{self, Item, Scan};
use crate::write::volume::{Volume, steps};

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
    /// Directories that exist.
    pub directories: u64,
    /// Bytes of the files that are the same.
    pub bytes: u64,
    /// What is not the same, in the order of the sources.
    pub differences: Vec<Difference>,
}

/// Compares sizes and contents of the sources with the files of a plan. `progress` gets the bytes
/// of each step, and returns whether to go on.
pub fn compare(
    scan: &Scan,
    plan: &Plan,
    volume: &dyn Volume,
    progress: impl Fn(u64) -> bool,
) -> Result<Compared, CompareError> {
    let mut compared = Compared::default();
    let mut buffers = [vec![0; PIECE], vec![0; PIECE]];
    for item in &scan.items {
        let reason = match (plan.get(&item.path).map(|node| &node.kind), item.size) {
            (Some(NodeKind::Dir), None) => {
                compared.directories += 1;
                continue;
            }
            (Some(NodeKind::File { size, map }), Some(wanted)) if *size == wanted => {
                let pair = Pair { item, size: wanted, map };
                match first_difference(&pair, volume, &mut buffers, &progress)? {
                    Some(offset) => format!("differs at offset {offset}"),
                    None => {
                        compared.files += 1;
                        compared.bytes += wanted;
                        continue;
                    }
                }
            }
            (there, wanted) => reason(there, wanted),
        };
        let (source, path) = (item.source.clone(), item.path.clone());
        compared.differences.push(Difference { source, path, reason });
    }
    Ok(compared)
}

/// A source file and its counterpart of the same size.
struct Pair<'a> {
    item: &'a Item,
    size: u64,
    map: &'a FileMap,
}

/// Why a counterpart cannot be the same, whatever its contents.
fn reason(there: Option<&NodeKind>, wanted: Option<u64>) -> String {
    match (there, wanted) {
        (None, _) => "does not exist".to_owned(),
        (Some(NodeKind::File { size, .. }), Some(wanted)) => {
            format!("has {size} bytes, the source {wanted}")
        }
        (Some(NodeKind::File { .. }), None) => "is a file, the source a directory".to_owned(),
        (Some(NodeKind::Dir), _) => "is a directory, the source a file".to_owned(),
    }
}

/// The offset of the first byte that differs.
fn first_difference(
    Pair { item, size, map }: &Pair<'_>,
    volume: &dyn Volume,
    buffers: &mut [Vec<u8>; 2],
    progress: &dyn Fn(u64) -> bool,
) -> Result<Option<u64>, CompareError> {
    let failed = |source| CompareError::Target { path: item.path.clone(), source };
    let source = copy::open(item, *size)?;
    let bytes = volume
        .open_file(&item.path, *size, &Memory::Map((*map).clone()), Access::Read)
        .map_err(failed)?;
    for (offset, len) in steps(*size) {
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
