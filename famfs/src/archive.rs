// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reading tar archives that nobody vouches for.
//!
//! A member becomes a checked value before anything is done with it: its name stays below the
//! place it is unpacked at, and it is a file or a directory. What else an archive can hold is told
//! with its name and the reason.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

use tar::{Archive, Entries, Entry, EntryType};

use crate::path::{PathError, normal};
use crate::replay::{NO_ID, Owner};
use crate::terminal::escape_name as escape;

/// Most bytes of headers of one member: its own 512 and those with a long name or pax records,
/// which are kept in memory. PATH_MAX (4096) twice and some records fit many times.
const MAX_HEADERS: u64 = 256 << 10;

/// Why an archive cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bytes are no archive, or cannot be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The end mark is missing.
    #[error("the archive was cut short: it ends without an end mark")]
    CutShort,
}

/// A file or directory of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Path relative to where the archive is unpacked, in normal form; empty for that place
    /// itself. It may be longer than famfs has room for.
    pub name: Vec<u8>,
    /// Whose it is.
    pub owner: Owner,
    /// What it is.
    pub content: Content,
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A directory.
    Dir,
    /// A file.
    File {
        /// Its size in bytes.
        size: u64,
        /// Where its bytes are in the archive.
        position: u64,
    },
}

/// A member that cannot be unpacked into a famfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name, fit for a terminal.
    pub name: String,
    /// Its name as it is in the archive.
    pub bytes: Vec<u8>,
    /// Why.
    pub reason: String,
}

impl LeftOut {
    /// A member with a reason.
    pub fn new(name: &[u8], reason: impl ToString) -> Self {
        Self { name: escape(name), bytes: name.to_vec(), reason: reason.to_string() }
    }
}

/// Reads all members of an archive that comes as a stream. `handle` gets each with its bytes, of
/// which it may leave some.
pub fn read_stream<E: From<ArchiveError>>(
    input: impl Read,
    handle: impl FnMut(Result<Member, LeftOut>, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let (guarded, guard) = Guarded::new(input);
    let mut archive = Archive::new(guarded);
    let entries = archive.entries().map_err(ArchiveError::Read)?;
    walk(entries, &guard, true, handle)
}

/// Reads the headers of all members of an archive in a file, and none of their bytes.
pub fn read_headers<E: From<ArchiveError>>(
    input: impl Read + Seek,
    mut handle: impl FnMut(Result<Member, LeftOut>) -> Result<(), E>,
) -> Result<(), E> {
    let (guarded, guard) = Guarded::new(input);
    let mut archive = Archive::new(guarded);
    let entries = archive.entries_with_seek().map_err(ArchiveError::Read)?;
    walk(entries, &guard, false, |member, _| handle(member))
}

fn walk<R: Read, E: From<ArchiveError>>(
    mut entries: Entries<'_, Guarded<R>>,
    guard: &Guard,
    drain: bool,
    mut handle: impl FnMut(Result<Member, LeftOut>, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    loop {
        guard.budget.set(MAX_HEADERS);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(ArchiveError::Read)?;
        guard.budget.set(u64::MAX);
        if let Some(member) = parse(&mut entry).map_err(ArchiveError::Read)? {
            handle(member, &mut entry)?;
        }
        if drain {
            io::copy(&mut entry, &mut io::sink()).map_err(ArchiveError::Read)?;
        }
    }
    if guard.ended.get() { Err(ArchiveError::CutShort.into()) } else { Ok(()) }
}

/// Checks a member; `None` for what is about the archive itself.
fn parse<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Option<Result<Member, LeftOut>>> {
    let raw = entry.path_bytes().into_owned();
    let refuse = |reason: &str| Ok(Some(Err(LeftOut::new(&raw, reason))));
    let size = entry.size();
    let content = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => {
            Content::File { size, position: entry.raw_file_position() }
        }
        EntryType::Directory => Content::Dir,
        EntryType::XGlobalHeader => return Ok(None),
        EntryType::Symlink => return refuse("symbolic link"),
        EntryType::Link => return refuse("hard link to another member"),
        EntryType::Char | EntryType::Block | EntryType::Fifo => return refuse("special file"),
        EntryType::GNUSparse => return refuse("sparse file: archive it without --sparse"),
        other => return refuse(&format!("member of unknown type {:#04x}", other.as_byte())),
    };
    // Sparse files of the pax format look like regular ones with a map in front of their bytes.
    if let Some(records) = entry.pax_extensions()? {
        for record in records {
            if record?.key_bytes().starts_with(b"GNU.sparse.") {
                return refuse("sparse file: archive it without --sparse");
            }
        }
    }
    let name = match normal(&raw) {
        Ok(name) => name,
        Err(PathError::Empty(_)) => Vec::new(),
        Err(err) => return refuse(&err.to_string()),
    };
    let header = entry.header();
    let (uid, gid, mode) = (header.uid()?, header.gid()?, header.mode()?);
    let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != NO_ID);
    let (Some(uid), Some(gid)) = (id(uid), id(gid)) else {
        return refuse(&format!("owner {uid}:{gid}, expected numbers below {NO_ID}"));
    };
    let owner = Owner { uid, gid, mode: mode & 0o7777 };
    Ok(Some(Ok(Member { name, owner, content })))
}

/// What is known of the bytes that an archive takes.
#[derive(Debug)]
struct Guard {
    /// Bytes that may still be read.
    budget: Cell<u64>,
    /// Whether the input came to its end.
    ended: Cell<bool>,
}

/// An input that gives no more than it is allowed to, so that a header that claims to be huge
/// cannot fill the memory.
struct Guarded<R> {
    input: R,
    guard: Rc<Guard>,
}

impl<R> Guarded<R> {
    fn new(input: R) -> (Self, Rc<Guard>) {
        let guard = Rc::new(Guard { budget: Cell::new(MAX_HEADERS), ended: Cell::new(false) });
        (Self { input, guard: guard.clone() }, guard)
    }
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let budget = self.guard.budget.get();
        if budget == 0 {
            let text = format!("the headers of a member have more than {MAX_HEADERS} bytes");
            return Err(io::Error::other(text));
        }
        let len = buf.len().min(usize::try_from(budget).unwrap_or(usize::MAX));
        let read = self.input.read(&mut buf[..len])?;
        self.guard.budget.set(budget - read as u64);
        if read == 0 && len > 0 {
            self.guard.ended.set(true);
        }
        Ok(read)
    }
}

impl<R: Seek> Seek for Guarded<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        // A size that leads behind all that a file can be is one more that leads behind its end.
        self.input.seek(to).or_else(|_| self.input.seek(SeekFrom::End(0)))
    }
}

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::*;

    /// An archive with one member, which `change` makes odd.
    fn archive(name: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o100_644);
        header.set_uid(1);
        header.set_gid(2);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        change(&mut header);
        header.set_cksum();
        let mut builder = Builder::new(Vec::new());
        builder.append(&header, &b"abc"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    fn members(bytes: &[u8]) -> Result<Vec<Result<Member, LeftOut>>, ArchiveError> {
        let mut members = Vec::new();
        read_headers(io::Cursor::new(bytes), |member| {
            members.push(member);
            Ok::<_, ArchiveError>(())
        })?;
        let mut streamed = Vec::new();
        read_stream(bytes, |member, _| {
            streamed.push(member);
            Ok::<_, ArchiveError>(())
        })?;
        assert_eq!(members, streamed);
        Ok(members)
    }

    fn reason(bytes: &[u8]) -> String {
        members(bytes).unwrap().remove(0).unwrap_err().reason
    }

    #[test]
    fn names_are_brought_into_normal_form() {
        let file = members(&archive(b"./a//b/../c", |_| {})).unwrap().remove(0).unwrap();
        assert_eq!(file.name, b"a/c");
        assert_eq!(file.owner, Owner { uid: 1, gid: 2, mode: 0o644 });
        assert_eq!(file.content, Content::File { size: 3, position: 512 });
        let root = archive(b"./", |header| header.set_entry_type(EntryType::Directory));
        assert_eq!(members(&root).unwrap().remove(0).unwrap().name, b"");
    }

    #[test]
    fn what_leaves_the_place_or_is_no_file_is_named() {
        assert!(reason(&archive(b"../a", |_| {})).contains("leaves the file system through"));
        assert!(reason(&archive(b"/etc/passwd", |_| {})).contains("is absolute"));
        for (kind, expected) in [
            (EntryType::Symlink, "symbolic link"),
            (EntryType::Link, "hard link to another member"),
            (EntryType::Char, "special file"),
            (EntryType::Fifo, "special file"),
            (EntryType::new(b'Z'), "member of unknown type 0x5a"),
        ] {
            assert_eq!(reason(&archive(b"a", |header| header.set_entry_type(kind))), expected);
        }
        let nobody = archive(b"a", |header| header.set_uid(u64::from(u32::MAX)));
        assert!(reason(&nobody).starts_with("owner 4294967295:2, expected"));
    }

    #[test]
    fn sparse_files_of_the_pax_format_are_recognised() {
        let mut builder = Builder::new(Vec::new());
        builder.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(1024);
        bytes.extend(archive(b"GNUSparseFile.0/a", |_| {}));
        assert!(reason(&bytes).starts_with("sparse file"));
    }

    #[test]
    fn archives_that_are_cut_short_are_errors() {
        let whole = archive(b"a", |_| {});
        for len in 0..whole.len() {
            // The end mark is two blocks; readers stop at the first.
            let cut = members(&whole[..len]);
            assert_eq!(cut.is_err(), len < 1536, "{len} of {} bytes", whole.len());
        }
    }

    #[test]
    fn a_header_that_claims_to_be_huge_takes_no_memory() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        let head = header.as_bytes().to_vec();
        let input = io::Cursor::new(head).chain(io::repeat(b'x').take(1 << 40));
        let error = read_stream(input, |_, _| Ok::<_, ArchiveError>(())).unwrap_err();
        assert!(format!("{error:?}").contains("more than 262144 bytes"), "{error:?}");
    }
}
