// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes the members of a tar archive. What a ustar header has no room for is in pax records
//! before it; sparse files are in the form that GNU tar writes as "pax, version 1.0".

use std::io::{self, Read, Write};
use std::ops::Range;

use tar::{Builder, EntryType, Header};

use crate::replay::{Owner, Time};

/// Bytes of a block.
const BLOCK: usize = 512;
/// Bytes of a name, and of a link's target, in a header.
const NAME_LEN: usize = 100;
/// Largest user and group: 7 octal digits.
const MAX_ID: u64 = 0o7_777_777;
/// Largest size, and time: 11 octal digits.
const MAX_NUMBER: u64 = 0o77_777_777_777;

/// Type of a member that continues the file before it.
pub const CONTINUED: u8 = b'M';

/// What every member has.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Whose it is.
    pub owner: Owner,
    /// When it changed last; 1970 if that is not known, so that equal trees give equal archives.
    pub mtime: Option<Time>,
}

/// An archive that is being written.
pub struct TarWriter<W: Write> {
    builder: Builder<W>,
}

/// A header, and the records for what it cannot hold.
struct Member {
    header: Header,
    records: Vec<(&'static str, Vec<u8>)>,
}

impl<W: Write> TarWriter<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self { builder: Builder::new(out) }
    }

    /// Ends the archive.
    pub fn finish(self) -> io::Result<()> {
        self.builder.into_inner()?.flush()
    }

    /// Appends a directory.
    pub fn directory(&mut self, head: &Head<'_>) -> io::Result<()> {
        let name = [head.name, b"/"].concat();
        let member = Member::new(&Head { name: &name, ..*head }, EntryType::Directory, 0);
        self.append(member, io::empty())
    }

    /// Appends a file of `size` bytes.
    pub fn file(&mut self, head: &Head<'_>, size: u64, bytes: impl Read) -> io::Result<()> {
        let member = Member::new(head, EntryType::Regular, size);
        self.append(member, Exactly { bytes, left: size })
    }

    /// Appends more bytes to the file that was appended last, in the form of GNU tar's archives of
    /// several volumes ([`CONTINUED`]).
    pub fn more(&mut self, head: &Head<'_>, size: u64, bytes: impl Read) -> io::Result<()> {
        let member = Member::new(head, EntryType::new(CONTINUED), size);
        self.append(member, Exactly { bytes, left: size })
    }

    /// Appends a file of `size` bytes with holes. `bytes` has only what is in the ranges `data`.
    pub fn sparse(
        &mut self,
        head: &Head<'_>,
        size: u64,
        data: &[Range<u64>],
        bytes: impl Read,
    ) -> io::Result<()> {
        let map = sparse_map(size, data);
        let held: u64 = data.iter().map(|range| range.end - range.start).sum();
        let (dir, base) = match head.name.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => head.name.split_at(slash + 1),
            None => head.name.split_at(0),
        };
        // What programs make that do not know the form.
        let name = [dir, b"GNUSparseFile.0/", base].concat();
        let len = map.len() as u64 + held;
        let mut member = Member::new(&Head { name: &name, ..*head }, EntryType::Regular, len);
        member.records.extend([
            ("GNU.sparse.major", b"1".to_vec()),
            ("GNU.sparse.minor", b"0".to_vec()),
            ("GNU.sparse.name", head.name.to_vec()),
            ("GNU.sparse.realsize", size.to_string().into_bytes()),
        ]);
        self.append(member, map.as_slice().chain(Exactly { bytes, left: held }))
    }

    /// Appends a symbolic link.
    pub fn symlink(&mut self, head: &Head<'_>, target: &[u8]) -> io::Result<()> {
        self.append(Member::new(head, EntryType::Symlink, 0).with_link(target), io::empty())
    }

    /// Appends another name of the file that was appended as `first`.
    pub fn hard_link(&mut self, head: &Head<'_>, first: &[u8]) -> io::Result<()> {
        self.append(Member::new(head, EntryType::Link, 0).with_link(first), io::empty())
    }

    fn append(&mut self, member: Member, bytes: impl Read) -> io::Result<()> {
        let Member { mut header, records } = member;
        let records = records.iter().map(|(key, value)| (*key, &value[..]));
        self.builder.append_pax_extensions(records)?;
        header.set_cksum();
        self.builder.append(&header, bytes)
    }
}

impl Member {
    fn new(head: &Head<'_>, kind: EntryType, size: u64) -> Self {
        let Head { name, owner, mtime } = *head;
        let mut member = Self { header: Header::new_ustar(), records: Vec::new() };
        let header = &mut member.header;
        header.set_entry_type(kind);
        header.set_mode(owner.mode & 0o7777);
        // A field that is too small stays zero, and the record counts.
        let records = &mut member.records;
        let mut field = |key, number: u64, most: u64| {
            if number <= most {
                return number;
            }
            records.push((key, number.to_string().into_bytes()));
            0
        };
        header.set_uid(field("uid", owner.uid.into(), MAX_ID));
        header.set_gid(field("gid", owner.gid.into(), MAX_ID));
        header.set_size(field("size", size, MAX_NUMBER));
        header.set_mtime(0);
        if let Some(Time { sec, nsec }) = mtime {
            let whole = u64::try_from(sec).ok().filter(|sec| *sec <= MAX_NUMBER);
            header.set_mtime(whole.unwrap_or(0));
            if whole.is_none() || nsec > 0 {
                records.push(("mtime", decimal(sec, nsec).into_bytes()));
            }
        }
        let fits = set(&mut header.as_old_mut().name, name);
        if !fits {
            member.records.push(("path", name.to_vec()));
        }
        member
    }

    fn with_link(mut self, target: &[u8]) -> Self {
        if !set(&mut self.header.as_old_mut().linkname, target) {
            self.records.push(("linkpath", target.to_vec()));
        }
        self
    }
}

/// Puts text into a field, or as much of it as fits; whether it is all of it.
fn set(field: &mut [u8; NAME_LEN], text: &[u8]) -> bool {
    let len = text.len().min(NAME_LEN);
    field[..len].copy_from_slice(&text[..len]);
    len == text.len()
}

/// A time as pax records hold it: a decimal number of seconds since 1970.
fn decimal(sec: i64, nsec: u32) -> String {
    let nanoseconds = i128::from(sec) * 1_000_000_000 + i128::from(nsec);
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (sec, nsec) = (nanoseconds.abs() / 1_000_000_000, nanoseconds.abs() % 1_000_000_000);
    if nsec == 0 { format!("{sign}{sec}") } else { format!("{sign}{sec}.{nsec:09}") }
}

/// The map of a sparse file, in whole blocks: number of ranges, then offset and length of each.
fn sparse_map(size: u64, data: &[Range<u64>]) -> Vec<u8> {
    let mut ranges: Vec<(u64, u64)> = data.iter().map(|r| (r.start, r.end - r.start)).collect();
    // A last range without bytes tells where the file ends.
    if data.last().is_none_or(|range| range.end < size) {
        ranges.push((size, 0));
    }
    let mut text = format!("{}\n", ranges.len());
    for (start, len) in ranges {
        text.push_str(&format!("{start}\n{len}\n"));
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// Exactly so many bytes of an input: fewer would damage the archive.
struct Exactly<R> {
    bytes: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        if len == 0 {
            return Ok(0);
        }
        match self.bytes.read(&mut buf[..len])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.left -= read as u64;
                Ok(read)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { uid: 1000, gid: 100, mode: 0o4755 };

    fn head(name: &[u8]) -> Head<'_> {
        Head { name, owner: OWNER, mtime: Some(Time { sec: 1_700_000_000, nsec: 0 }) }
    }

    /// A member alone: its records, if it has any, and the block of its header.
    fn written(write: impl FnOnce(&mut TarWriter<&mut Vec<u8>>)) -> (String, Vec<u8>, Vec<u8>) {
        let mut bytes = Vec::new();
        let mut writer = TarWriter::new(&mut bytes);
        write(&mut writer);
        writer.finish().unwrap();
        assert!(bytes.len() % BLOCK == 0 && bytes.ends_with(&[0; 2 * BLOCK]));
        bytes.truncate(bytes.len() - 2 * BLOCK);
        let mut records = String::new();
        if bytes[156] == b'x' {
            let len = usize::try_from(octal(&bytes[124..136])).unwrap();
            records = String::from_utf8(bytes[BLOCK..BLOCK + len].to_vec()).unwrap();
            bytes.drain(..BLOCK + len.next_multiple_of(BLOCK));
        }
        let rest = bytes.split_off(BLOCK);
        (records, bytes, rest)
    }

    fn octal(field: &[u8]) -> u64 {
        let text = std::str::from_utf8(field).unwrap();
        u64::from_str_radix(text.trim_end_matches('\0').trim(), 8).unwrap()
    }

    #[test]
    fn what_fits_is_in_the_header() {
        let (records, header, rest) = written(|tar| tar.directory(&head(b"a/b")).unwrap());
        assert_eq!((records.as_str(), rest.len()), ("", 0));
        assert!(header.starts_with(b"a/b/\0") && header[156] == b'5');
        let numbers = [100..108, 108..116, 116..124, 124..136, 136..148];
        let numbers = numbers.map(|range| octal(&header[range]));
        assert_eq!(numbers, [0o4755, 1000, 100, 0, 1_700_000_000]);
        let name = [b'n'; NAME_LEN];
        let (records, header, rest) =
            written(|tar| tar.file(&head(&name), 5, &b"12345"[..]).unwrap());
        assert_eq!((records.as_str(), &header[..NAME_LEN]), ("", &name[..]));
        assert!(
            rest.len() == BLOCK && rest.starts_with(b"12345\0") && octal(&header[124..136]) == 5
        );
    }

    #[test]
    fn what_does_not_fit_is_in_records() {
        let long = vec![b'n'; NAME_LEN + 1];
        let (records, ..) = written(|tar| tar.symlink(&head(&long), &long).unwrap());
        let text = "n".repeat(NAME_LEN + 1);
        assert_eq!(records, format!("111 path={text}\n115 linkpath={text}\n"));
        let (records, ..) = written(|tar| tar.hard_link(&head(b"a"), &long).unwrap());
        assert_eq!(records, format!("115 linkpath={text}\n"));
        let owner = Owner { uid: u32::MAX - 1, gid: 0o10_000_000, mode: 0o644 };
        for (sec, nsec, shown) in [
            (-1, 999_999_999, "-0.000000001"),
            (-5, 0, "-5"),
            (-2, 500_000_000, "-1.500000000"),
            (0, 1, "0.000000001"),
            (1 << 33, 0, "8589934592"),
            (i64::MAX, 999_999_999, "9223372036854775807.999999999"),
        ] {
            let head = Head { name: b"a", owner, mtime: Some(Time { sec, nsec }) };
            let (records, header, _) = written(|tar| tar.directory(&head).unwrap());
            let line = format!(" mtime={shown}\n");
            assert!(records.starts_with("18 uid=4294967294\n15 gid=2097152\n"), "{records}");
            assert!(records.ends_with(&line), "{records}");
            assert_eq!((octal(&header[108..116]), octal(&header[116..124])), (0, 0));
        }
        let large = Member::new(&head(b"a"), EntryType::Regular, MAX_NUMBER + 1);
        assert_eq!(large.records, [("size", b"8589934592".to_vec())]);
        let fits = Member::new(&head(b"a"), EntryType::Regular, MAX_NUMBER);
        assert!(fits.records.is_empty());
    }

    #[test]
    fn a_sparse_file_has_its_map_before_its_bytes() {
        let data = [4096..8192, 1 << 40..(1 << 40) + 10];
        let held = vec![7; 4096 + 10];
        let size = 1 << 41;
        let (records, header, rest) =
            written(|tar| tar.sparse(&head(b"d/f"), size, &data, &held[..]).unwrap());
        for line in ["GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=d/f"] {
            assert!(records.contains(&format!(" {line}\n")), "{records}");
        }
        assert!(records.contains(" GNU.sparse.realsize=2199023255552\n"), "{records}");
        assert!(header.starts_with(b"d/GNUSparseFile.0/f\0"));
        let map = "3\n4096\n4096\n1099511627776\n10\n2199023255552\n0\n";
        assert_eq!(octal(&header[124..136]), (BLOCK + held.len()) as u64);
        assert!(rest.starts_with(map.as_bytes()) && rest[map.len()..BLOCK].iter().all(|b| *b == 0));
        assert_eq!(rest[BLOCK..BLOCK + held.len()], held);
        // Nothing but a hole, and no hole at the end.
        assert!(sparse_map(5, &[]).starts_with(b"1\n5\n0\n\0"));
        assert!(sparse_map(10, &[5..10]).starts_with(b"1\n5\n5\n\0"));
        assert_eq!(sparse_map(0, &[]).len(), BLOCK);
    }

    /// A member that is shorter than its header says would make the next one unreadable.
    #[test]
    fn a_file_that_becomes_shorter_is_an_error() {
        let mut bytes = Vec::new();
        let mut writer = TarWriter::new(&mut bytes);
        let error = writer.file(&head(b"a"), 6, &b"12345"[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let (_, header, rest) = written(|tar| tar.file(&head(b"a"), 3, &b"12345"[..]).unwrap());
        assert!(octal(&header[124..136]) == 3 && rest.starts_with(b"123\0"));
    }
}
