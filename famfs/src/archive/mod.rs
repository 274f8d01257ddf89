// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads tar archives from sources that nobody vouches for.
//!
//! A member becomes a checked value before anything is done with it: its name stays below the place
//! where it is unpacked, and it is a file, a directory, or something that famfs cannot hold.
//! An archive may be compressed.

pub mod compression;
pub mod export;
pub mod extract;
pub mod import;
pub mod pack;
pub mod tar_reader;
pub mod tar_writer;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use tar::EntryType;

use crate::archive::compression::{Compression, Decoded};
use crate::archive::tar_reader::{RawMember, TarReader};
use crate::format::path::{PathError, normal};
use crate::replay::{NO_ID, Owner};
use crate::write::dropped::Attribute;
use crate::write::unsupported::{LeftOut, Why};

pub use crate::archive::tar_reader::ArchiveError;

/// Type of a directory with a list of its contents, as `tar --listed-incremental` writes it.
const DIRECTORY_LIST: u8 = b'D';

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Path relative to the place where the archive is unpacked, normalized; empty for that place
    /// itself. It may be longer than famfs allows.
    pub name: Vec<u8>,
    /// Its owner.
    pub owner: Owner,
    /// What it is.
    pub content: Content,
    /// What it has and famfs does not keep.
    pub attributes: Vec<Attribute>,
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
    /// Something else.
    Unfit(Why),
}

/// Reads all members of an archive that comes as a stream, compressed or not. `handle` gets each
/// with its bytes, and need not read all of them.
pub fn read_stream<E: From<ArchiveError>>(
    input: impl Read,
    handle: impl FnMut(Result<Member, LeftOut>, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = TarReader::stream(Decoded::new(input).map_err(ArchiveError::Read)?);
    walk(&mut reader, handle)?;
    Ok(reader.into_inner().finish().map_err(ArchiveError::Read)?)
}

/// Reads the headers of all members of an archive in a file; of a plain archive none of their
/// bytes.
pub fn read_headers<E: From<ArchiveError>>(
    mut input: impl Read + Seek,
    mut handle: impl FnMut(Result<Member, LeftOut>) -> Result<(), E>,
) -> Result<(), E> {
    match compression(&mut input)? {
        Compression::None => walk(&mut TarReader::file(input), |member, _| handle(member)),
        _ => read_stream(input, |member, _| handle(member)),
    }
}

/// How the archive in a file is compressed.
///
/// # Errors
/// The file cannot be read.
pub fn compression(input: &mut (impl Read + Seek)) -> Result<Compression, ArchiveError> {
    let look = |input: &mut _| {
        Seek::rewind(input)?;
        let compression = Decoded::new(&mut *input)?.compression;
        Seek::rewind(input)?;
        Ok(compression)
    };
    look(input).map_err(ArchiveError::Read)
}

/// A buffered reader of an archive's file, from its start.
///
/// # Errors
/// The file cannot be read.
pub fn from_start(mut file: &File) -> Result<BufReader<&File>, ArchiveError> {
    file.rewind().map_err(ArchiveError::Read)?;
    Ok(BufReader::new(file))
}

fn walk<R: Read, E: From<ArchiveError>>(
    reader: &mut TarReader<R>,
    mut handle: impl FnMut(Result<Member, LeftOut>, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    while let Some(raw) = reader.next_member()? {
        handle(parse(&raw)?, &mut reader.bytes())?;
    }
    Ok(())
}

/// Checks a member.
fn parse(raw: &RawMember) -> Result<Result<Member, LeftOut>, ArchiveError> {
    let content = match raw.header.entry_type() {
        // As programs wrote a directory before there were types.
        EntryType::Regular if raw.name.ends_with(b"/") => Content::Dir,
        EntryType::Regular | EntryType::Continuous => {
            Content::File { size: raw.size, position: raw.position }
        }
        EntryType::Directory => Content::Dir,
        other if other.as_byte() == DIRECTORY_LIST => Content::Dir,
        EntryType::Symlink => Content::Unfit(Why::SymbolicLink),
        EntryType::Link => Content::Unfit(Why::HardLink),
        EntryType::Char | EntryType::Block => Content::Unfit(Why::Device),
        EntryType::Fifo => Content::Unfit(Why::Pipe),
        EntryType::GNUSparse => Content::Unfit(Why::Sparse),
        other => Content::Unfit(Why::Type(other.as_byte())),
    };
    // Sparse files of the pax format look like regular ones with a map before their bytes.
    let sparse = raw.records.iter().any(|(key, _)| key.starts_with(b"GNU.sparse."));
    let content = if sparse { Content::Unfit(Why::Sparse) } else { content };
    let name = match normal(&raw.name) {
        Ok(name) => name,
        Err(PathError::Empty(_)) => Vec::new(),
        Err(err) => return Ok(Err(LeftOut::new(&raw.name, Why::of_path(&err), err))),
    };
    let id = |key, field: io::Result<u64>| match raw.record(key) {
        Some(record) => Ok(String::from_utf8_lossy(record).into_owned()),
        None => field.map(|id| id.to_string()).map_err(|_| damaged(raw)),
    };
    let (uid, gid) = (id(b"uid", raw.header.uid())?, id(b"gid", raw.header.gid())?);
    let mode = raw.header.mode().map_err(|_| damaged(raw))? & 0o7777;
    let number = |id: &str| id.parse().ok().filter(|id| *id != NO_ID);
    let (Some(uid), Some(gid)) = (number(&uid), number(&gid)) else {
        let text = format!("owner {uid}:{gid}, expected numbers below {NO_ID}");
        return Ok(Err(LeftOut::new(&raw.name, Why::Owner, text)));
    };
    let found = raw.records.iter().filter_map(|(key, _)| Attribute::of_record(key));
    let mut attributes: Vec<_> = found.collect();
    attributes.sort_unstable();
    attributes.dedup();
    Ok(Ok(Member { name, owner: Owner { uid, gid, mode }, content, attributes }))
}

fn damaged(raw: &RawMember) -> ArchiveError {
    ArchiveError::Damaged { what: "damaged number in the header", at: raw.position }
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
        match members(bytes).unwrap().remove(0) {
            Ok(Member { content: Content::Unfit(why), .. }) => why.text(),
            other => other.unwrap_err().reason,
        }
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
            (EntryType::Char, "device"),
            (EntryType::Fifo, "named pipe"),
            (EntryType::new(b'Z'), "member of unknown type 0x5a"),
        ] {
            assert_eq!(reason(&archive(b"a", |header| header.set_entry_type(kind))), expected);
        }
        let nobody = archive(b"a", |header| header.set_uid(u64::from(u32::MAX)));
        assert!(reason(&nobody).starts_with("owner 4294967295:2, expected"));
        let negative = with_records(&[("uid", b"-1")]);
        assert_eq!(reason(&negative), "owner -1:2, expected numbers below 4294967295");
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
        assert!(error.to_string().contains("more than 256.00 KiB"), "{error}");
    }

    /// A pax header with these records before a member called `a`.
    fn with_records(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        builder.append_pax_extensions(records.iter().copied()).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(bytes.len() - 1024);
        bytes.extend(archive(b"a", |_| {}));
        bytes
    }

    #[test]
    fn a_value_with_a_line_break_is_one_value() {
        let value = b"\x02\n20 path=../../evil\n";
        let bytes = with_records(&[("SCHILY.xattr.security.capability", value)]);
        let member = members(&bytes).unwrap().remove(0).unwrap();
        assert_eq!(
            (&member.name[..], member.attributes),
            (&b"a"[..], vec![Attribute::Capabilities])
        );
        let bytes = with_records(&[("path", b"two\nlines"), ("uid", b"7"), ("size", b"2")]);
        let member = members(&bytes).unwrap().remove(0).unwrap();
        assert_eq!((&member.name[..], member.owner.uid), (&b"two\nlines"[..], 7));
        assert!(matches!(member.content, Content::File { size: 2, .. }));
        let error = members(&with_records(&[("size", b"many")])).unwrap_err();
        assert!(error.to_string().contains("damaged number at byte"), "{error}");
    }

    #[test]
    fn a_global_header_counts_for_all_that_follow() {
        let global = |records: &[(&str, &[u8])]| {
            let mut bytes = with_records(records);
            bytes.truncate(bytes.len() - archive(b"a", |_| {}).len());
            let mut header = Header::new_ustar();
            header.as_mut_bytes().copy_from_slice(&bytes[..512]);
            header.set_entry_type(EntryType::XGlobalHeader);
            header.set_cksum();
            bytes[..512].copy_from_slice(header.as_bytes());
            bytes
        };
        let one = |bytes: Vec<u8>| bytes[..1024].to_vec();
        let bytes = [
            one(archive(b"before", |_| {})),
            global(&[("uid", b"70"), ("gid", b"80"), ("comment", b"of git archive")]),
            one(archive(b"a", |_| {})),
            one(with_records(&[("uid", b"7")])),
            one(archive(b"a", |_| {})),
            global(&[("uid", b"71")]),
            archive(b"c", |_| {}),
        ];
        let owners = members(&bytes.concat()).unwrap().into_iter().map(|member| {
            let Owner { uid, gid, .. } = member.unwrap().owner;
            (uid, gid)
        });
        assert_eq!(owners.collect::<Vec<_>>(), [(1, 2), (70, 80), (7, 80), (71, 80)]);
        // Only a header, for members that never come.
        let bytes = [global(&[("uid", b"70")]), vec![0; 1024]].concat();
        assert_eq!(members(&bytes).unwrap(), []);
    }

    #[test]
    fn labels_and_directories_of_other_forms_are_known() {
        let label = archive(b"label", |header| {
            header.set_entry_type(EntryType::new(b'V'));
            // GNU tar leaves the field empty.
            header.as_old_mut().size = [0; 12];
        });
        let old = |header: &mut Header| {
            header.set_entry_type(EntryType::Regular);
            header.as_old_mut().linkflag = [0];
            header.set_size(0);
        };
        let list = |header: &mut Header| header.set_entry_type(EntryType::new(b'D'));
        let bytes = [
            label[..512].to_vec(),
            archive(b"old/", old)[..512].to_vec(),
            archive(b"listed", list)[..1024].to_vec(),
            archive(b"a", |_| {}),
        ];
        let members = members(&bytes.concat()).unwrap().into_iter().map(Result::unwrap);
        let found: Vec<_> = members.map(|member| (member.name, member.content)).collect();
        let file = Content::File { size: 3, position: 2560 };
        assert_eq!(
            found,
            [
                (b"old".to_vec(), Content::Dir),
                (b"listed".to_vec(), Content::Dir),
                (b"a".to_vec(), file)
            ]
        );
    }

    #[test]
    fn what_is_no_archive_is_told_without_its_bytes() {
        let error = members(b"password: secret\n").unwrap_err().to_string();
        assert_eq!(
            error,
            "it is text, expected a tar archive, plain or compressed with gzip, xz or zstd"
        );
        assert!(members(&vec![b'x'; 1024]).unwrap_err().to_string().contains("it is text"));
        assert!(members(b"").unwrap_err().to_string().contains("it is empty"));
    }
}
