// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sources become a stream.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use famfs::archive::tar_writer::{Head, TarWriter};
use famfs::replay::{Owner, Time};
use famfs::text::terminal::shown;
use rustix::fs::OFlags;

use crate::MODE_BITS;

/// Bytes of a file in one member.
const PIECE: usize = 1 << 20;

/// Mode of a file that was a stream.
const STREAM_MODE: u32 = 0o644;

/// What to copy.
pub enum Source {
    /// What is at a path. A symbolic link is followed, but not those in a directory.
    Path(PathBuf),
    /// A file that consists of what can be read.
    Stream(Box<dyn Read + Send>),
}

/// Why a stream has no end mark.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A part of a file was sent, and the rest cannot be read.
    #[error("cannot read {}", shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The stream was closed.
    #[error("cannot send")]
    Send(#[source] io::Error),
}

/// Whoever wants to know how a copy proceeds.
pub trait Watcher {
    /// So many bytes of files more are copied.
    fn copied(&mut self, bytes: u64);
    /// Something was not copied; the text says what, and why.
    fn left_out(&mut self, what: String);
}

/// Writes sources to a stream. What cannot be read is left out.
///
/// # Errors
/// The stream is closed, or a file cannot be read to its end.
pub fn pack(
    sources: Vec<Source>,
    recursive: bool,
    out: impl Write,
    watcher: &mut dyn Watcher,
) -> Result<(), PackError> {
    let tar = TarWriter::new(out);
    let mut packer = Packer { tar, recursive, piece: vec![0; PIECE], watcher };
    for (number, source) in sources.into_iter().enumerate() {
        let name = number.to_string().into_bytes();
        match source {
            Source::Path(path) => packer.named(&path, &name)?,
            Source::Stream(input) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let sec = now.map_or(0, |now| now.as_secs().cast_signed());
                let mtime = Some(Time { sec, nsec: 0 });
                let owner = Owner { uid: 0, gid: 0, mode: STREAM_MODE };
                let head = Head { name: &name, owner, mtime };
                packer.file(Path::new("standard input"), &head, input)?;
            }
        }
    }
    packer.tar.finish().map_err(PackError::Send)
}

/// The number of bytes of all files, as far as it is known before they are read.
#[must_use]
pub fn size(paths: &[PathBuf]) -> u64 {
    let mut total = 0;
    let mut waiting: Vec<(PathBuf, bool)> = paths.iter().map(|path| (path.clone(), true)).collect();
    while let Some((path, follow)) = waiting.pop() {
        match metadata(&path, follow) {
            Ok(meta) if meta.is_dir() => {
                let entries = fs::read_dir(&path).into_iter().flatten().flatten();
                waiting.extend(entries.map(|entry| (entry.path(), false)));
            }
            Ok(meta) if meta.is_file() => total += meta.len(),
            _ => {}
        }
    }
    total
}

fn metadata(path: &Path, follow: bool) -> io::Result<Metadata> {
    if follow { fs::metadata(path) } else { fs::symlink_metadata(path) }
}

struct Packer<'w, W: Write> {
    tar: TarWriter<W>,
    recursive: bool,
    piece: Vec<u8>,
    watcher: &'w mut dyn Watcher,
}

impl<W: Write> Packer<'_, W> {
    /// A source that the user named: of a pipe or a device, the bytes that can be read.
    fn named(&mut self, path: &Path, name: &[u8]) -> Result<(), PackError> {
        let meta = match metadata(path, true) {
            Ok(meta) => meta,
            Err(error) => return self.left_out(path, error),
        };
        if meta.is_dir() && !self.recursive {
            return self.left_out(path, "is a directory; use -r to copy it");
        }
        if meta.is_dir() || meta.file_type().is_socket() {
            return self.inner(path, name, &meta);
        }
        match File::open(path) {
            Ok(file) => self.file(path, &head(name, &meta), file),
            Err(error) => self.left_out(path, error),
        }
    }

    /// Something in a directory, or a directory.
    fn inner(&mut self, path: &Path, name: &[u8], meta: &Metadata) -> Result<(), PackError> {
        let kind = meta.file_type();
        if kind.is_dir() {
            return self.directory(path, name, meta);
        }
        if kind.is_symlink() {
            return match fs::read_link(path) {
                Ok(target) => {
                    let target = target.into_os_string().into_vec();
                    self.tar.symlink(&head(name, meta), &target).map_err(PackError::Send)
                }
                Err(error) => self.left_out(path, error),
            };
        }
        if !kind.is_file() {
            let what = match kind {
                kind if kind.is_socket() => "a socket",
                kind if kind.is_fifo() => "a pipe",
                _ => "a device",
            };
            return self.left_out(path, format_args!("is {what}"));
        }
        // What took its place in the meantime is not waited for, nor followed.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::options()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .and_then(|file| Ok((file.metadata()?, file)));
        match file {
            Ok((meta, file)) if meta.is_file() => self.file(path, &head(name, &meta), file),
            Ok(_) => self.left_out(path, "has been replaced"),
            Err(error) => self.left_out(path, error),
        }
    }

    fn directory(&mut self, path: &Path, name: &[u8], meta: &Metadata) -> Result<(), PackError> {
        let entries =
            fs::read_dir(path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let mut names: Vec<_> = match entries {
            Ok(entries) => entries.into_iter().map(|entry| entry.file_name()).collect(),
            Err(error) => return self.left_out(path, error),
        };
        names.sort_unstable();
        self.tar.directory(&head(name, meta)).map_err(PackError::Send)?;
        for entry in names {
            let path = path.join(&entry);
            let name = [name, b"/", entry.as_bytes()].concat();
            match metadata(&path, false) {
                Ok(meta) => self.inner(&path, &name, &meta)?,
                Err(error) => self.left_out(&path, error)?,
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &Path,
        head: &Head<'_>,
        mut input: impl Read,
    ) -> Result<(), PackError> {
        let mut is_first = true;
        loop {
            let len = match fill(&mut input, &mut self.piece) {
                Ok(len) => len,
                // Such as a directory's file that is none of this system's.
                Err(error) if is_first => return self.left_out(path, error),
                Err(source) => return Err(PackError::Read { path: path.into(), source }),
            };
            let bytes = &self.piece[..len];
            let sent = match is_first {
                true => self.tar.file(head, len as u64, bytes),
                false => self.tar.more(head, len as u64, bytes),
            };
            sent.map_err(PackError::Send)?;
            self.watcher.copied(len as u64);
            is_first = false;
            if len < PIECE {
                return Ok(());
            }
        }
    }

    fn left_out(&mut self, path: &Path, why: impl std::fmt::Display) -> Result<(), PackError> {
        self.watcher.left_out(format!("not copied: {}: {why}", shown(path)));
        Ok(())
    }
}

/// What all members have. Whoever unpacks owns what is made.
fn head<'n>(name: &'n [u8], meta: &Metadata) -> Head<'n> {
    let nsec = u32::try_from(meta.mtime_nsec()).unwrap_or_default();
    let mtime = Some(Time { sec: meta.mtime(), nsec });
    Head { name, owner: Owner { uid: 0, gid: 0, mode: meta.mode() & MODE_BITS }, mtime }
}

/// Reads until the buffer is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match input.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
