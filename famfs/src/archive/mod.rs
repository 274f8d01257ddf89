// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads tar archives from sources that nobody vouches for.
//!
//! A member becomes a checked value before anything is done with it: its name stays below the place
//! where it is unpacked, and it is a file, a directory, a link, or something that famfs cannot
//! hold. An archive may be compressed.

pub mod compression;
pub mod export;
pub mod extract;
mod gzip;
pub mod import;
pub mod pack;
mod sparse;
pub mod tar_reader;
pub mod tar_writer;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use tar::EntryType;

use crate::archive::compression::{Compression, Decoded};
use crate::archive::tar_reader::{RawMember, TarReader};
use crate::format::path::{PathError, normal};
use crate::replay::{NO_ID, Owner, Time};
use crate::text::time::parse_seconds;
use crate::write::dropped::Attribute;
use crate::write::unsupported::{LeftOut, Why};

pub use crate::archive::sparse::Map;
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
    /// When it was changed last.
    pub mtime: Option<Time>,
    /// What it is.
    pub content: Content,
    /// What it has and famfs does not keep.
    pub attributes: Vec<Attribute>,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A directory.
    Dir,
    /// A file.
    File {
        /// Its size in bytes.
        size: u64,
        /// Where its bytes are in the archive.
        position: u64,
        /// The ranges of a sparse file that have data; the archive has only these bytes.
        map: Option<Map>,
    },
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// Another name of an earlier member, which has this name.
    HardLink(Vec<u8>),
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
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            Content::File { size: raw.size, position: raw.position, map: raw.map.clone() }
        }
        EntryType::Directory => Content::Dir,
        other if other.as_byte() == DIRECTORY_LIST => Content::Dir,
        EntryType::Symlink => Content::Symlink(raw.link.clone()),
        EntryType::Link => match normal(&raw.link) {
            Ok(name) => Content::HardLink(name.into_owned()),
            Err(err) => return Ok(Err(LeftOut::new(&raw.name, Why::HardLink, err))),
        },
        EntryType::Char | EntryType::Block => Content::Unfit(Why::Device),
        EntryType::Fifo => Content::Unfit(Why::Pipe),
        other => Content::Unfit(Why::Type(other.as_byte())),
    };
    let name = match normal(&raw.name) {
        Ok(name) => name.into_owned(),
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
    let owner = Owner { uid, gid, mode };
    Ok(Ok(Member { name, owner, mtime: mtime(raw), content, attributes }))
}

/// The time of a member; `None` if the archive does not say it in a way that is known.
pub fn mtime(raw: &RawMember) -> Option<Time> {
    let record = raw.record(b"mtime").and_then(|text| std::str::from_utf8(text).ok());
    match record.and_then(parse_seconds) {
        Some((sec, nsec)) => Some(Time { sec, nsec }),
        // Of a time before 1970 the header has the 64 bits of its negative number.
        None => Some(Time { sec: raw.header.mtime().ok()?.cast_signed(), nsec: 0 }),
    }
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
        assert_eq!(file.content, Content::File { size: 3, position: 512, map: None });
        let root = archive(b"./", |header| header.set_entry_type(EntryType::Directory));
        assert_eq!(members(&root).unwrap().remove(0).unwrap().name, b"");
    }

    #[test]
    fn what_leaves_the_place_or_is_no_file_is_named() {
        assert!(reason(&archive(b"../a", |_| {})).contains("leaves the file system through"));
        assert!(reason(&archive(b"/etc/passwd", |_| {})).contains("is absolute"));
        for (kind, expected) in [
            (EntryType::Char, "device"),
            (EntryType::Fifo, "named pipe"),
            (EntryType::new(b'Z'), "member of unknown type 0x5a"),
        ] {
            assert_eq!(reason(&archive(b"a", |header| header.set_entry_type(kind))), expected);
        }
        let up = archive(b"a", |header| {
            header.set_entry_type(EntryType::Link);
            header.set_link_name("../b").unwrap();
        });
        assert!(reason(&up).contains("leaves the file system through"));
        let nobody = archive(b"a", |header| header.set_uid(u64::from(u32::MAX)));
        assert!(reason(&nobody).starts_with("owner 4294967295:2, expected"));
        let negative = with_records(&[("uid", b"-1")]);
        assert_eq!(reason(&negative), "owner -1:2, expected numbers below 4294967295");
    }

    #[test]
    fn links_have_what_they_lead_to() {
        let link = |kind, target: &str| {
            let mut bytes = archive(b"a", |header| {
                header.set_entry_type(kind);
                header.set_size(0);
                header.set_link_name_literal(target).unwrap();
            });
            // A link has no data.
            bytes.drain(512..1024);
            members(&bytes).unwrap().remove(0).unwrap().content
        };
        assert_eq!(link(EntryType::Symlink, "../b//"), Content::Symlink(b"../b//".to_vec()));
        assert_eq!(link(EntryType::Link, "./d/../b"), Content::HardLink(b"b".to_vec()));
        let mut bytes = with_records(&[("linkpath", &[b'x'; 300])]);
        let header = bytes.len() - 2048;
        bytes[header + 156] = b'2';
        let mut sealed = Header::new_gnu();
        sealed.as_mut_bytes().copy_from_slice(&bytes[header..header + 512]);
        sealed.set_cksum();
        bytes[header..header + 512].copy_from_slice(sealed.as_bytes());
        let member = members(&bytes).unwrap().remove(0).unwrap();
        assert_eq!(member.content, Content::Symlink(vec![b'x'; 300]));
    }

    #[test]
    fn times_are_read_to_the_nanosecond() {
        let time = |bytes: &[u8]| members(bytes).unwrap().remove(0).unwrap().mtime;
        let at = |sec, nsec| Some(Time { sec, nsec });
        assert_eq!(time(&archive(b"a", |header| header.set_mtime(5))), at(5, 0));
        assert_eq!(time(&archive(b"a", |header| header.set_mtime(u64::MAX))), at(-1, 0));
        assert_eq!(time(&with_records(&[("mtime", b"-0.25")])), at(-1, 750_000_000));
        let odd = archive(b"a", |header| header.as_old_mut().mtime = *b"yesterday   ");
        assert_eq!(time(&odd), None);
    }

    #[test]
    fn sparse_files_have_their_holes() {
        let (major, minor) = (("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", &b"0"[..]));
        let name = ("GNU.sparse.name", &b"real"[..]);
        let member = |records: &[(&str, &[u8])]| {
            members(&with_records(records)).map(|mut members| members.remove(0).unwrap())
        };
        let map = |member: &Member| match &member.content {
            Content::File { size, map, .. } => (*size, map.clone().unwrap().to_vec()),
            other => panic!("{other:?}"),
        };
        // The member has 3 bytes.
        let old = member(&[name, ("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"0,1,7,2")]);
        assert_eq!(map(&old.unwrap()), (9, vec![0..1, 7..9]));
        for damaged in [
            &[name, ("GNU.sparse.size", b"8"), ("GNU.sparse.map", b"0,1,7,2")][..],
            &[name, ("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"0,1,7,1")],
            &[name, ("GNU.sparse.map", b"0,1,7,2")],
            &[major, minor, name, ("GNU.sparse.realsize", b"9")],
            &[("GNU.sparse.major", b"2"), minor],
        ] {
            let error = member(damaged).unwrap_err().to_string();
            assert!(error.contains("sparse file at byte"), "{error}");
        }
        let mut block = [0; 512];
        block[..10].copy_from_slice(b"2\n0\n1\n7\n2\n");
        let mut bytes = with_records(&[major, minor, name, ("GNU.sparse.realsize", b"9")]);
        bytes.truncate(1024);
        let whole = archive(b"GNUSparseFile.0/a", |header| header.set_size(512 + 3));
        bytes.extend(&whole[..512]);
        bytes.extend(block);
        bytes.extend(&whole[512..]);
        let found = members(&bytes).unwrap().remove(0).unwrap();
        assert_eq!((&found.name[..], map(&found)), (&b"real"[..], (9, vec![0..1, 7..9])));
        let content = Content::File { size: 9, position: 2048, map: Some([0..1, 7..9].into()) };
        assert_eq!(found.content, content);
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
        let file = Content::File { size: 3, position: 2560, map: None };
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
