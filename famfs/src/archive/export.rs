// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Packs a part of a file system into a tar archive.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};

use crate::archive::extract::SET_ID_BITS;
use crate::archive::pack::{SUFFIX, is_pack};
use crate::archive::tar_writer::{Head, TarWriter};
use crate::archive::{ArchiveError, Content, read_stream};
use crate::format::path::RelPath;
use crate::replay::Owner;
use crate::replay::tree::Tree;
use crate::replay::tree::list::{Entry, Listed};
use crate::replay::tree::object::{Name, ObjectKind};
use crate::write::reading::Reading;
use crate::write::unsupported::{LeftOut, Why};
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
    /// Symbolic links.
    pub symlinks: u64,
    /// Names of files that were packed under another name before.
    pub hard_links: u64,
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

/// An export under way.
struct Export<'e, W: Write> {
    volume: &'e dyn Volume,
    tree: &'e Tree,
    options: Options,
    out: TarWriter<W>,
    /// The name in the archive of each file that has several: by the slot that made it.
    first_names: HashMap<u64, Vec<u8>>,
    done: Done,
    progress: &'e mut dyn FnMut(u64) -> bool,
}

/// Writes the archive of a part of a tree. Names lose what `below` names: the directory that is
/// exported. `progress` gets the bytes of each step, and returns whether to go on.
pub fn export(
    volume: &dyn Volume,
    (tree, entries): (&Tree, &[Entry<'_>]),
    below: Option<&RelPath>,
    options: Options,
    out: impl Write,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Done, ExportError> {
    let (out, first_names, done) = (TarWriter::new(out), HashMap::new(), Done::default());
    let mut export = Export { volume, tree, options, out, first_names, done, progress };
    for entry in entries {
        if let Some(name) = name_below(&entry.path, below) {
            export.member(entry, name)?;
        }
    }
    let Export { out, done, .. } = export;
    out.finish().map_err(ExportError::End)?;
    Ok(done)
}

/// The name in the archive; `None` for the exported directory itself.
fn name_below<'p>(path: &'p RelPath, below: Option<&RelPath>) -> Option<&'p [u8]> {
    match below {
        None => Some(path.as_bytes()),
        Some(dir) => path.as_bytes().strip_prefix(dir.as_bytes())?.strip_prefix(b"/"),
    }
}

impl<W: Write> Export<'_, W> {
    fn member(&mut self, entry: &Entry<'_>, name: &[u8]) -> Result<(), ExportError> {
        let Entry { path, listed: Listed { name: Name { object: slot, .. }, object, .. } } = entry;
        let copy = |source| ExportError::Copy { path: path.clone(), source };
        let (owner, lost) = self.options.owner(object.owner);
        let head = Head { name, owner, mtime: object.mtime };
        match &object.kind {
            ObjectKind::Symlink { target, .. } => {
                self.out.symlink(&head, target).map_err(copy)?;
                self.done.symlinks += 1;
                return Ok(());
            }
            ObjectKind::Dir { .. } => {
                self.out.directory(&head).map_err(copy)?;
                self.done.directories += 1;
            }
            ObjectKind::File { size, bytes } => match self.first_names.get(slot) {
                Some(first) => {
                    self.out.hard_link(&head, first).map_err(copy)?;
                    self.done.hard_links += 1;
                    return Ok(());
                }
                None => {
                    let memory = self.tree.memory(bytes, *size);
                    let file = Reading::open(self.volume, path, *size, &memory)
                        .map_err(|source| ExportError::Open { path: path.clone(), source })?;
                    self.file(path, &head, &file)?;
                    if object.links > 1 {
                        self.first_names.insert(*slot, name.to_vec());
                    }
                }
            },
        }
        if lost {
            self.done.without_set_id.push(path.clone());
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &RelPath,
        head: &Head<'_>,
        file: &Reading<'_>,
    ) -> Result<(), ExportError> {
        let input = BufReader::with_capacity(COPY_STEP, file.data_stream());
        if !self.options.keep_packs
            && let Some(dir) = head.name.strip_suffix(SUFFIX)
            && is_pack(file.stream())
        {
            self.unpack(path, dir, BufReader::with_capacity(COPY_STEP, file.stream()))?;
            self.done.packs += 1;
            return match (self.progress)(file.size()) {
                true => Ok(()),
                false => Err(ExportError::Interrupted),
            };
        }
        let mut stopped = false;
        let input = Watched { input, progress: &mut *self.progress, stopped: &mut stopped };
        let result = match file.is_sparse() {
            true => self.out.sparse(head, file.size(), file.data(), input),
            false => self.out.file(head, file.size(), input),
        };
        if stopped {
            return Err(ExportError::Interrupted);
        }
        result.map_err(|source| ExportError::Copy { path: path.clone(), source })?;
        self.done.files += 1;
        self.done.bytes = self.done.bytes.saturating_add(file.size());
        Ok(())
    }

    /// Copies the members of a pack, as the directory that it was made from.
    fn unpack(&mut self, pack: &RelPath, dir: &[u8], input: impl Read) -> Result<(), ExportError> {
        // Reading can fail in two ways: with an error of the archive, or with one that ends it
        // here.
        enum End {
            Archive(ArchiveError),
            Export(ExportError),
        }
        impl From<ArchiveError> for End {
            fn from(error: ArchiveError) -> Self {
                Self::Archive(error)
            }
        }
        let path = || pack.clone();
        let result = read_stream(input, |member, bytes| {
            let member = member
                .map_err(|member| End::Export(ExportError::Member { path: path(), member }))?;
            let mut name = dir.to_vec();
            if !member.name.is_empty() {
                name.push(b'/');
                name.extend(&member.name);
            }
            let odd = |why| {
                let member = LeftOut::plain(&member.name, why);
                End::Export(ExportError::Member { path: path(), member })
            };
            let (owner, lost) = self.options.owner(member.owner);
            let head = Head { name: &name, owner, mtime: None };
            let written = match member.content {
                Content::Dir => {
                    self.done.directories += 1;
                    self.out.directory(&head)
                }
                Content::File { map: Some(_), .. } => return Err(odd(Why::Sparse)),
                Content::File { size, .. } => {
                    self.done.files += 1;
                    self.done.bytes = self.done.bytes.saturating_add(size);
                    self.out.file(&head, size, bytes)
                }
                // A pack has nothing else.
                Content::Symlink(_) => return Err(odd(Why::SymbolicLink)),
                Content::HardLink(_) => return Err(odd(Why::HardLink)),
                Content::Unfit(why) => return Err(odd(why)),
            };
            written.map_err(|source| End::Export(ExportError::Copy { path: path(), source }))?;
            // Once for the pack, for any number of its members.
            if lost && self.done.without_set_id.last() != Some(pack) {
                self.done.without_set_id.push(path());
            }
            Ok(())
        });
        result.map_err(|end| match end {
            End::Archive(source) => ExportError::Pack { path: path(), source },
            End::Export(error) => error,
        })
    }
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
