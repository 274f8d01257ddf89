// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads the members of a tar archive, one after the other: ustar, pax and GNU long names.
//!
//! Records of pax headers are delimited by their length, so a value may have any bytes. The library
//! `tar` reads the fields of a header; the headers that come before a member are combined here,
//! within a limit.

use std::io::{self, Read, Seek};

use tar::{EntryType, GnuExtSparseHeader, GnuHeader, Header};

use crate::archive::compression::{NoArchive, describe};
use crate::archive::sparse::{self, Claims, Map, MapText};
use crate::text::units::human;

/// Bytes of a block.
const BLOCK: usize = 512;
/// Highest number of bytes of the headers of one member: its own and those with a long name or pax
/// records, which are kept in memory. PATH_MAX (4096) twice and some records fit many times.
const MAX_HEADERS: u64 = 256 << 10;
/// Highest number of bytes of the map of a sparse member.
const MAX_MAP: u64 = 4 << 20;
/// Records of a global pax header that count here, for all members after it.
const GLOBAL_KEYS: [&[u8]; 5] = [b"path", b"size", b"uid", b"gid", b"mtime"];
/// Type of a label for the whole archive, as `tar --label` writes it.
const LABEL: u8 = b'V';

/// Why an archive cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bytes cannot be read, or are not valid compressed data.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// It begins with something else.
    #[error(transparent)]
    None(#[from] NoArchive),
    /// A header is damaged.
    #[error("cannot read the archive: {what} at byte {at}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: u64,
    },
    /// The headers of a member claim to be huge.
    #[error(
        "the headers of a member take more than {}, or its map of holes more than {}",
        human(MAX_HEADERS),
        human(MAX_MAP)
    )]
    Headers,
    /// The end mark is missing.
    #[error("the archive was cut short: it ends without an end mark")]
    CutShort,
}

/// A member as it is in the archive; nothing of it is checked but the header's checksum.
#[derive(Clone, Debug)]
pub struct RawMember {
    /// Its header.
    pub header: Header,
    /// Its name, however it is stored.
    pub name: Vec<u8>,
    /// What a link leads to.
    pub link: Vec<u8>,
    /// The pax records that apply to it, the last one of a key last.
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
    /// Its number of bytes, with its holes.
    pub size: u64,
    /// Where its bytes begin.
    pub position: u64,
    /// The ranges of a sparse file that have data; the archive has only these bytes.
    pub map: Option<Map>,
}

impl RawMember {
    /// The value of a pax record, unless it is empty.
    pub fn record(&self, key: &[u8]) -> Option<&[u8]> {
        let found = self.records.iter().rev().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_slice()).filter(|value| !value.is_empty())
    }

    /// The number in a pax record.
    pub fn number(&self, key: &[u8]) -> Option<Result<u64, ArchiveError>> {
        let digits = std::str::from_utf8(self.record(key)?).ok().and_then(|text| text.parse().ok());
        Some(digits.ok_or(ArchiveError::Damaged { what: "damaged number", at: self.position }))
    }
}

/// Skips bytes that nobody asked for.
type Skip<R> = fn(&mut R, u64) -> io::Result<()>;

/// An archive that is being read.
pub struct TarReader<R> {
    input: R,
    skip: Skip<R>,
    /// Bytes of the input that were read or skipped.
    at: u64,
    /// Where the bytes of the current member end, and where the next header is.
    end: u64,
    next: u64,
    /// The records for all members, one of each key.
    global: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> TarReader<R> {
    /// Reads a stream.
    pub fn stream(input: R) -> Self {
        let skip = |input: &mut R, len| {
            // An input that ends too early is noticed at the next header.
            io::copy(&mut input.take(len), &mut io::sink()).map(drop)
        };
        Self { input, skip, at: 0, end: 0, next: 0, global: Vec::new() }
    }

    /// Reads the next member; `None` at the end of the archive.
    pub fn next_member(&mut self) -> Result<Option<RawMember>, ArchiveError> {
        let mut budget = MAX_HEADERS;
        let (mut long_name, mut long_link, mut own, mut begun) = (None, None, Vec::new(), false);
        loop {
            let Some((header, at)) = self.header()? else {
                return if begun { Err(ArchiveError::CutShort) } else { Ok(None) };
            };
            let damaged = |what| ArchiveError::Damaged { what, at };
            let kind = header.entry_type();
            if kind.as_byte() == LABEL {
                // The field is usually empty.
                let size = header.entry_size().unwrap_or(0);
                (self.end, self.next) = ends(self.at, size).ok_or(damaged("damaged size"))?;
                continue;
            }
            let extends = matches!(
                kind,
                EntryType::GNULongName
                    | EntryType::GNULongLink
                    | EntryType::XHeader
                    | EntryType::XGlobalHeader
            );
            begun |= kind != EntryType::XGlobalHeader;
            if extends {
                let size = header.entry_size().map_err(|_| damaged("damaged size"))?;
                let bytes = self.extension(size, &mut budget)?;
                let records = || parse(&bytes).ok_or(damaged("damaged pax record"));
                match kind {
                    EntryType::XHeader => own.extend(records()?),
                    EntryType::XGlobalHeader => self.add_global(records()?),
                    EntryType::GNULongName => long_name = Some(until_nul(&bytes)),
                    EntryType::GNULongLink => long_link = Some(until_nul(&bytes)),
                    _ => {}
                }
                continue;
            }
            let name = long_name.unwrap_or_else(|| header.path_bytes().into_owned());
            let short_link = || header.link_name_bytes().unwrap_or_default().into_owned();
            let link = long_link.unwrap_or_else(short_link);
            let records = self.global.iter().cloned().chain(own).collect();
            let (size, position, map) = (0, self.at, None);
            let mut member = RawMember { header, name, link, records, size, position, map };
            // A sparse file of the pax format has another name for programs that do not know it.
            for key in [&b"path"[..], b"GNU.sparse.name"] {
                if let Some(path) = member.record(key) {
                    member.name = path.to_vec();
                }
            }
            if let Some(link) = member.record(b"linkpath") {
                member.link = link.to_vec();
            }
            member.size = match member.number(b"size") {
                Some(size) => size?,
                None => member.header.entry_size().map_err(|_| damaged("damaged size"))?,
            };
            self.find_holes(&mut member, at)?;
            return Ok(Some(member));
        }
    }

    /// The bytes of the current member that have not been read yet.
    pub fn bytes(&mut self) -> impl Read + '_ {
        Bytes(self)
    }

    /// The input after the archive.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next header and where it is; `None` at the end mark.
    fn header(&mut self) -> Result<Option<(Header, u64)>, ArchiveError> {
        (self.skip)(&mut self.input, self.next - self.at).map_err(ArchiveError::Read)?;
        self.at = self.next;
        let (at, mut block) = (self.at, [0; BLOCK]);
        let read = self.fill(&mut block)?;
        if read < BLOCK {
            return match at {
                0 => Err(NoArchive(describe(&block[..read])).into()),
                _ => Err(ArchiveError::CutShort),
            };
        }
        self.next = self.at;
        self.end = self.at;
        if block == [0; BLOCK] {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        match header.cksum() {
            Ok(sum) if sum == checksum(&block) => Ok(Some((header, at))),
            _ if at == 0 => Err(NoArchive(describe(&block)).into()),
            _ => Err(ArchiveError::Damaged { what: "no tar header", at }),
        }
    }

    /// Takes over the records of a global header, which replace older ones.
    fn add_global(&mut self, records: Vec<(Vec<u8>, Vec<u8>)>) {
        for (key, value) in records {
            if GLOBAL_KEYS.contains(&key.as_slice()) {
                self.global.retain(|(old, _)| *old != key);
                self.global.push((key, value));
            }
        }
    }

    /// The contents of a header that extends the next ones.
    fn extension(&mut self, size: u64, budget: &mut u64) -> Result<Vec<u8>, ArchiveError> {
        *budget = budget.checked_sub(size).ok_or(ArchiveError::Headers)?;
        let size = usize::try_from(size).map_err(|_| ArchiveError::Headers)?;
        let mut bytes = vec![0; size];
        if self.fill(&mut bytes)? < size {
            return Err(ArchiveError::CutShort);
        }
        self.next = self.at.next_multiple_of(BLOCK as u64);
        Ok(bytes)
    }

    /// Finds out where the bytes of a member end, and reads its map if it is sparse.
    fn find_holes(&mut self, member: &mut RawMember, at: u64) -> Result<(), ArchiveError> {
        let damaged = |what| ArchiveError::Damaged { what, at };
        let bad_map = || damaged("damaged map of a sparse file");
        let stored = member.size;
        let (mut claims, mut real_size) = (None, None);
        if member.header.entry_type() == EntryType::GNUSparse {
            let header = member.header.as_gnu().ok_or_else(bad_map)?;
            real_size = Some(header.real_size().map_err(|_| bad_map())?);
            claims = Some(self.header_map(header, at)?);
            member.position = self.at;
        }
        (self.end, self.next) = ends(self.at, stored).ok_or(damaged("damaged size"))?;
        let first = self.at;
        if member.record(b"GNU.sparse.major").is_some() {
            let version = [b"GNU.sparse.major", b"GNU.sparse.minor"].map(|key| member.number(key));
            let [Some(Ok(1)), Some(Ok(0))] = version else {
                return Err(damaged("unknown version of a sparse file"));
            };
            real_size = member.number(b"GNU.sparse.realsize").transpose()?;
            claims = Some(self.map_before_data(at)?);
            member.position = self.at;
        } else if member.records.iter().any(|(key, _)| key.starts_with(b"GNU.sparse.")) {
            real_size = member.number(b"GNU.sparse.size").transpose()?;
            claims = Some(sparse::of_records(&member.records).ok_or_else(bad_map)?);
        }
        if let Some(claims) = claims {
            member.size = real_size.ok_or_else(bad_map)?;
            let stored = stored - (self.at - first);
            let map = sparse::checked(&claims, member.size, stored).ok_or_else(bad_map)?;
            member.map = Some(map);
        }
        Ok(())
    }

    /// The map in a header of GNU's own format, and in the blocks after it.
    fn header_map(&mut self, header: &GnuHeader, at: u64) -> Result<Claims, ArchiveError> {
        let bad_map = || ArchiveError::Damaged { what: "damaged map of a sparse file", at };
        let (mut claims, mut budget) = (Vec::new(), MAX_MAP);
        sparse::of_header(header, &mut claims).ok_or_else(bad_map)?;
        let mut more = header.is_extended();
        while more {
            let block = self.extension(BLOCK as u64, &mut budget)?;
            let mut extended = GnuExtSparseHeader::new();
            extended.as_mut_bytes().copy_from_slice(&block);
            sparse::of_extension(&extended, &mut claims).ok_or_else(bad_map)?;
            more = extended.is_extended();
        }
        Ok(claims)
    }

    /// The map of the pax format 1.0, in the first blocks of the current member's bytes.
    fn map_before_data(&mut self, at: u64) -> Result<Claims, ArchiveError> {
        let bad_map = || ArchiveError::Damaged { what: "damaged map of a sparse file", at };
        let (mut text, mut budget) = (MapText::default(), MAX_MAP);
        while !text.is_whole() {
            let mut block = [0; BLOCK];
            if self.end - self.at < BLOCK as u64 {
                return Err(bad_map());
            }
            budget = budget.checked_sub(BLOCK as u64).ok_or(ArchiveError::Headers)?;
            if self.fill(&mut block)? < BLOCK {
                return Err(ArchiveError::CutShort);
            }
            text.add(&block).ok_or_else(bad_map)?;
        }
        Ok(text.claims())
    }

    /// Reads as much as there is, at most all of `buf`.
    fn fill(&mut self, buf: &mut [u8]) -> Result<usize, ArchiveError> {
        let mut done = 0;
        while done < buf.len() {
            match self.input.read(&mut buf[done..]) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(ArchiveError::Read(err)),
            }
        }
        self.at += done as u64;
        Ok(done)
    }
}

impl<R: Read + Seek> TarReader<R> {
    /// Reads a file, and seeks over what nobody asks for.
    pub fn file(input: R) -> Self {
        let skip = |input: &mut R, len| {
            // A size beyond any possible file is beyond the end of this one.
            match i64::try_from(len).map(|len| input.seek_relative(len)) {
                Ok(Ok(())) => Ok(()),
                _ => input.seek(io::SeekFrom::End(0)).map(drop),
            }
        };
        Self { skip, ..Self::stream(input) }
    }
}

struct Bytes<'r, R>(&'r mut TarReader<R>);

impl<R: Read> Read for Bytes<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.0.end - self.0.at).unwrap_or(usize::MAX);
        let len = left.min(buf.len());
        let read = self.0.input.read(&mut buf[..len])?;
        self.0.at += read as u64;
        Ok(read)
    }
}

/// Where the bytes of a member end, and where the next header is.
fn ends(at: u64, size: u64) -> Option<(u64, u64)> {
    let end = at.checked_add(size)?;
    Some((end, end.checked_next_multiple_of(BLOCK as u64)?))
}

/// The sum of a header's bytes, with spaces in place of its own field.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..])
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// The records of a pax header: "LENGTH KEY=VALUE\n", whose length counts all of it.
fn parse(mut bytes: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ')?;
        let len: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        bytes = &bytes[len..];
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_taken_by_their_length() {
        let records = parse(b"9 a=b\nc=\n6 d=e\n").unwrap();
        let record = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        assert_eq!(records, [record("a", "b\nc="), record("d", "e")]);
        for damaged in ["9 a=b", "5 a=b\n", "7 a=b\n", "6 a-b\n", "x a=b\n", "-6 a=b\n", "2 a=b\n"]
        {
            assert_eq!(parse(damaged.as_bytes()), None, "{damaged:?}");
        }
        assert_eq!(parse(format!("{} a=b\n", u64::MAX).as_bytes()), None);
        assert_eq!(parse(b"").unwrap(), []);
    }
}
