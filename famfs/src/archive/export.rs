// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Packs a part of a file system into a tar archive.

use std::io::{self, BufReader, Read, Write};

use tar::Builder;

use crate::archive::extract::SET_ID_BITS;
use crate::archive::pack::{SUFFIX, append, is_pack};
use crate::archive::{ArchiveError, Content, read_stream};
use crate::format::map::Memory;
use crate::format::path::RelPath;
use crate::replay::{Node, NodeKind, Owner};
use crate::sys::dax::Access;
use crate::write::stream::FileReader;
use crate::write::unsupported::LeftOut;
use crate::write::volume::{COPY_STEP, Volume};

/// Why a file system, or a part of it, cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file cannot be opened.
    #[error("cannot open \"{path}\"")]
    Open {
        /// The file.
        path: RelPath,
        /// The error of the system.
        source: io::Error,
    },
    /// A file cannot be read, or the archive cannot be written.
    #[error("cannot copy \"{path}\" into the archive")]
    Copy {
        /// The file or directory.
        path: RelPath,
        /// The error of the system.
        source: io::Error,
    },
    /// A pack's own archive is damaged.
    #[error(
        "\"{path}\" is marked as a pack, but cannot be unpacked; use --keep-packs to export it as it is"
    )]
    Pack {
        /// The pack.
        path: RelPath,
        /// What is wrong with it.
        source: ArchiveError,
    },
    /// A pack holds what no pack may hold.
    #[error("\"{path}\" is marked as a pack, but {}: {}; use --keep-packs to export it as it is", member.name, member.reason)]
    Member {
        /// The pack.
        path: RelPath,
        /// The member.
        member: LeftOut,
    },
    /// The user asked to stop.
    #[error("interrupted; the archive is not complete")]
    Interrupted,
    /// The end of the archive cannot be written.
    #[error("cannot write the archive")]
    End(#[source] io::Error),
}

/// What was packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Files, those of packs counted one by one.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Packs that were unpacked.
    pub packs: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Files, directories and packs that lost set-user-ID or set-group-ID bits.
    pub without_set_id: Vec<RelPath>,
}

/// How to pack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Do not unpack packs.
    pub keep_packs: bool,
    /// Keep set-user-ID and set-group-ID bits, which any guest can set.
    pub keep_set_id: bool,
}

impl Options {
    /// The owner that a member gets, and whether it lost something.
    fn owner(self, owner: Owner) -> (Owner, bool) {
        let lost = !self.keep_set_id && owner.mode & SET_ID_BITS != 0;
        let mode = if lost { owner.mode & !SET_ID_BITS } else { owner.mode };
        (Owner { mode, ..owner }, lost)
    }
}

/// Writes the archive of some nodes. Names lose what `below` names: the directory that is exported.
/// `progress` gets the bytes of each step, and returns whether to go on.
pub fn export(
    volume: &dyn Volume,
    nodes: &[&Node],
    below: Option<&RelPath>,
    options: Options,
    out: impl Write,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Done, ExportError> {
    let mut builder = Builder::new(out);
    let mut done = Done::default();
    for node in nodes {
        let Some(name) = name_below(&node.path, below) else { continue };
        let copy = |source| ExportError::Copy { path: node.path.clone(), source };
        let (owner, lost) = options.owner(node.owner);
        if lost {
            done.without_set_id.push(node.path.clone());
        }
        let NodeKind::File { size, map } = &node.kind else {
            append(&mut builder, name, owner, None, io::empty()).map_err(copy)?;
            done.directories += 1;
            continue;
        };
        let bytes = volume
            .open_file(&node.path, *size, &Memory::Map(map.clone()), Access::Read)
            .map_err(|source| ExportError::Open { path: node.path.clone(), source })?;
        let reader = || BufReader::with_capacity(COPY_STEP, FileReader::new(&*bytes, *size));
        if !options.keep_packs
            && let Some(dir) = name.strip_suffix(SUFFIX)
            && is_pack(FileReader::new(&*bytes, *size))
        {
            unpack(&mut builder, (node, dir), options, reader(), &mut done)?;
            done.packs += 1;
            if !progress(*size) {
                return Err(ExportError::Interrupted);
            }
            continue;
        }
        let mut stopped = false;
        let input = Watched { input: reader(), progress: &mut *progress, stopped: &mut stopped };
        let result = append(&mut builder, name, owner, Some(*size), input);
        if stopped {
            return Err(ExportError::Interrupted);
        }
        result.map_err(copy)?;
        done.files += 1;
        done.bytes += size;
    }
    builder.into_inner().and_then(|mut out| out.flush()).map_err(ExportError::End)?;
    Ok(done)
}

/// The name in the archive; `None` for the exported directory itself.
fn name_below<'p>(path: &'p RelPath, below: Option<&RelPath>) -> Option<&'p [u8]> {
    match below {
        None => Some(path.as_bytes()),
        Some(dir) => path.as_bytes().strip_prefix(dir.as_bytes())?.strip_prefix(b"/"),
    }
}

/// Copies the members of a pack, as the directory that it was made from.
fn unpack<W: Write>(
    builder: &mut Builder<W>,
    (node, dir): (&Node, &[u8]),
    options: Options,
    input: impl Read,
    done: &mut Done,
) -> Result<(), ExportError> {
    // Reading can fail in two ways: with an error of the archive, or with one that ends it here.
    enum End {
        Archive(ArchiveError),
        Export(ExportError),
    }
    impl From<ArchiveError> for End {
        fn from(error: ArchiveError) -> Self {
            Self::Archive(error)
        }
    }
    let path = || node.path.clone();
    let result = read_stream(input, |member, bytes| {
        let member =
            member.map_err(|member| End::Export(ExportError::Member { path: path(), member }))?;
        let mut name = dir.to_vec();
        if !member.name.is_empty() {
            name.push(b'/');
            name.extend(&member.name);
        }
        let size = match member.content {
            Content::Dir => None,
            Content::File { size, .. } => Some(size),
            Content::Unfit(why) => {
                let member = LeftOut::plain(&member.name, why);
                return Err(End::Export(ExportError::Member { path: path(), member }));
            }
        };
        let (owner, lost) = options.owner(member.owner);
        // Once for the pack, for any number of its members.
        if lost && done.without_set_id.last() != Some(&node.path) {
            done.without_set_id.push(node.path.clone());
        }
        append(builder, &name, owner, size, bytes)
            .map_err(|source| End::Export(ExportError::Copy { path: path(), source }))?;
        match size {
            None => done.directories += 1,
            Some(size) => {
                done.files += 1;
                done.bytes += size;
            }
        }
        Ok(())
    });
    result.map_err(|end| match end {
        End::Archive(source) => ExportError::Pack { path: path(), source },
        End::Export(error) => error,
    })
}

/// A file that is read, with its progress reported.
struct Watched<'p, R> {
    input: R,
    progress: &'p mut dyn FnMut(u64) -> bool,
    stopped: &'p mut bool,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buf)?;
        if !(self.progress)(read as u64) {
            *self.stopped = true;
            return Err(io::Error::other("stopped"));
        }
        Ok(read)
    }
}
