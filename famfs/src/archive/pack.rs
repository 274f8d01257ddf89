// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Packs: a directory of small files as one file.
//!
//! A famfs file takes at least 2 MiB, so thousands of small files waste most of the memory. A pack
//! is an ordinary tar archive that begins with a mark, a pax global header with a comment; any
//! program that reads tar reads it. A pack can hold empty files and long names, which famfs cannot.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use tar::{Archive, Builder, EntryType, Header};

use crate::archive::{Content, Member};
use crate::format::ALLOC_UNIT;
use crate::replay::Owner;

/// The end of a pack's name, after the name of the directory.
pub const SUFFIX: &[u8] = b".tar";
/// The comment that marks a pack, and the record that holds it.
const MARK: &[u8] = b"famfs pack 1";
const MARK_RECORD: &[u8] = b"24 comment=famfs pack 1\n";

/// A directory to pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Path of the directory.
    pub dir: Vec<u8>,
    /// Owner and mode of the directory.
    pub owner: Owner,
    /// Its contents, with names relative to it.
    pub members: Vec<Member>,
}

/// How many files below a directory there are, and whether all are small.
#[derive(Default)]
struct Census {
    files: u64,
    large: bool,
}

/// Splits members into packs and the rest: the topmost directories that hold at least two files,
/// and only files smaller than an allocation unit. `owner` is for directories without a member of
/// their own.
pub fn split(members: Vec<Member>, owner: Owner) -> (Vec<Pack>, Vec<Member>) {
    let mut census: BTreeMap<Vec<u8>, Census> = BTreeMap::new();
    for member in &members {
        let Content::File { size, .. } = member.content else { continue };
        for dir in above(&member.name) {
            let census = census.entry(dir.to_vec()).or_default();
            census.files += 1;
            census.large |= size >= ALLOC_UNIT;
        }
    }
    let worth = |dir: &&[u8]| census.get(*dir).is_some_and(|c| c.files >= 2 && !c.large);
    let mut packs: BTreeMap<Vec<u8>, Pack> = BTreeMap::new();
    let mut rest = Vec::new();
    for member in members {
        let whole = std::iter::once(member.name.as_slice());
        let found = match member.content {
            Content::Unfit(_) => None,
            _ => above(&member.name).chain(whole).find(worth).map(<[u8]>::to_vec),
        };
        let Some(dir) = found else {
            rest.push(member);
            continue;
        };
        let pack = packs.entry(dir.clone()).or_insert_with(|| Pack {
            dir: dir.clone(),
            owner,
            members: Vec::new(),
        });
        match member.name.get(dir.len() + 1..) {
            Some(name) => {
                let name = name.to_vec();
                pack.members.push(Member { name, ..member });
            }
            None => pack.owner = member.owner,
        }
    }
    (packs.into_values().collect(), rest)
}

/// The directories above a name, the topmost first.
fn above(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = name.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| &name[..at])
}

impl Pack {
    /// Path of the file.
    pub fn path(&self) -> Vec<u8> {
        [&self.dir, SUFFIX].concat()
    }

    /// Owner and mode of the file: users who may list the directory may read it.
    pub fn file_owner(&self) -> Owner {
        Owner { mode: self.owner.mode & 0o666, ..self.owner }
    }

    /// Bytes of the file.
    pub fn size(&self) -> io::Result<u64> {
        let mut count = Count(0);
        self.write(&mut count, |_| Ok(io::repeat(0)))?;
        Ok(count.0)
    }

    /// Writes the file; `open` returns the bytes of a member's file.
    pub fn write<R: Read>(
        &self,
        out: impl Write,
        mut open: impl FnMut(&Member) -> io::Result<R>,
    ) -> io::Result<()> {
        let mut builder = Builder::new(out);
        let mut mark = Header::new_ustar();
        mark.set_path("pax_global_header")?;
        mark.set_entry_type(EntryType::XGlobalHeader);
        mark.set_mode(0o644);
        mark.set_uid(0);
        mark.set_gid(0);
        mark.set_mtime(0);
        mark.set_size(MARK_RECORD.len() as u64);
        mark.set_cksum();
        builder.append(&mark, MARK_RECORD)?;
        append(&mut builder, b".", self.owner, None, io::empty())?;
        for member in &self.members {
            match member.content {
                Content::Dir => append(&mut builder, &member.name, member.owner, None, io::empty()),
                Content::File { size, .. } => {
                    let bytes = open(member)?;
                    append(&mut builder, &member.name, member.owner, Some(size), bytes)
                }
                Content::Unfit(_) => Ok(()),
            }?;
        }
        builder.into_inner()?.flush()
    }
}

/// Appends a file, or a directory if there is no size, to an archive. The media holds no times.
pub fn append<W: Write>(
    builder: &mut Builder<W>,
    name: &[u8],
    owner: Owner,
    size: Option<u64>,
    bytes: impl Read,
) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let mut header = Header::new_gnu();
    header.set_mode(owner.mode);
    header.set_uid(owner.uid.into());
    header.set_gid(owner.gid.into());
    header.set_mtime(0);
    header.set_size(size.unwrap_or(0));
    let mut name = name.to_vec();
    if size.is_none() {
        header.set_entry_type(EntryType::Directory);
        name.push(b'/');
    }
    let name = std::ffi::OsStr::from_bytes(&name);
    builder.append_data(&mut header, name, bytes.take(size.unwrap_or(0)))
}

/// Whether a stream begins as a pack does.
pub fn is_pack(input: impl Read) -> bool {
    let mut archive = Archive::new(input.take(1024));
    let Ok(mut entries) = archive.entries() else { return false };
    let Some(Ok(mut entry)) = entries.next() else { return false };
    let records = match entry.header().entry_type() {
        EntryType::XGlobalHeader => entry.pax_extensions(),
        _ => return false,
    };
    let Ok(Some(mut records)) = records else { return false };
    records
        .any(|record| record.is_ok_and(|r| r.key_bytes() == b"comment" && r.value_bytes() == MARK))
}

/// Counts what is written to it.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0 += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{ArchiveError, read_headers};

    const OWNER: Owner = Owner { uid: 1, gid: 2, mode: 0o755 };

    fn file(name: &str, size: u64) -> Member {
        let content = Content::File { size, position: 0 };
        Member { name: name.as_bytes().to_vec(), owner: OWNER, content, attributes: Vec::new() }
    }

    fn dir(name: &str) -> Member {
        let content = Content::Dir;
        Member { name: name.as_bytes().to_vec(), owner: OWNER, content, attributes: Vec::new() }
    }

    #[test]
    fn the_topmost_directories_of_small_files_are_packed() {
        let members = vec![
            file("loose", 1),
            file("small/a", 0),
            dir("small"),
            file("small/deep/b", ALLOC_UNIT - 1),
            file("mixed/large", ALLOC_UNIT),
            file("mixed/few/one", 1),
            file("mixed/many/1", 1),
            file("mixed/many/2", 1),
        ];
        let (packs, rest) = split(members, OWNER);
        let names: Vec<_> = packs.iter().map(|p| String::from_utf8(p.path()).unwrap()).collect();
        assert_eq!(names, ["mixed/many.tar", "small.tar"]);
        assert_eq!(
            packs[1].members.iter().map(|m| &m.name[..]).collect::<Vec<_>>(),
            [&b"a"[..], b"deep/b"]
        );
        let rest: Vec<_> = rest.iter().map(|m| String::from_utf8_lossy(&m.name)).collect();
        assert_eq!(rest, ["loose", "mixed/large", "mixed/few/one"]);
    }

    #[test]
    fn a_pack_is_a_marked_archive_of_the_size_that_was_told() {
        let long = "n".repeat(200);
        let members = vec![file("a", 5), file(&long, 700), dir("d")];
        let pack = Pack { dir: b"x".to_vec(), owner: OWNER, members };
        let mut bytes = Vec::new();
        pack.write(&mut bytes, |_| Ok(io::repeat(7))).unwrap();
        assert_eq!(bytes.len() as u64, pack.size().unwrap());
        assert!(is_pack(&bytes[..]));
        assert!(!is_pack(&bytes[1024..]) && !is_pack(&b"no archive"[..]));
        let mut names = Vec::new();
        read_headers(io::Cursor::new(&bytes), |member| {
            names.push(String::from_utf8(member.unwrap().name).unwrap());
            Ok::<_, ArchiveError>(())
        })
        .unwrap();
        assert_eq!(names, ["", "a", &long, "d"]);
    }
}
