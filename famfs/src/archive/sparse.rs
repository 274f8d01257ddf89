// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Maps of sparse members: GNU tar's own format, and the versions 0.0, 0.1 and 1.0 of its pax
//! format. The ranges with data come one after the other in the archive; what lies between them is
//! zero.

use std::ops::Range;

use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

/// Highest size of a file.
const MAX_SIZE: u64 = i64::MAX.unsigned_abs();

/// The ranges of a file that have data, in order, without empty ones.
pub type Map = Box<[Range<u64>]>;

/// The ranges that a header names: offset and length.
pub(super) type Claims = Vec<(u64, u64)>;

/// Checks ranges against the size of the file, and against the number of bytes in the archive.
pub(super) fn checked(claims: &[(u64, u64)], size: u64, stored: u64) -> Option<Map> {
    let (mut map, mut end, mut sum) = (Vec::with_capacity(claims.len()), 0, 0_u64);
    for &(offset, len) in claims {
        let next = offset.checked_add(len)?;
        if offset < end || next > size {
            return None;
        }
        end = next;
        sum += len;
        if len > 0 {
            map.push(offset..next);
        }
    }
    (size <= MAX_SIZE && sum == stored).then(|| map.into())
}

/// The ranges in a header of GNU's own format.
pub(super) fn of_header(header: &GnuHeader, claims: &mut Claims) -> Option<()> {
    add(&header.sparse, claims)
}

/// The ranges in a block that follows such a header.
pub(super) fn of_extension(block: &GnuExtSparseHeader, claims: &mut Claims) -> Option<()> {
    add(block.sparse(), claims)
}

fn add(fields: &[GnuSparseHeader], claims: &mut Claims) -> Option<()> {
    for field in fields.iter().take_while(|field| !field.is_empty()) {
        claims.push((field.offset().ok()?, field.length().ok()?));
    }
    Some(())
}

/// The ranges in the records of the versions 0.0 and 0.1.
pub(super) fn of_records(records: &[(Vec<u8>, Vec<u8>)]) -> Option<Claims> {
    let mut numbers = Vec::new();
    for (key, value) in records {
        match key.as_slice() {
            b"GNU.sparse.map" => {
                numbers.clear();
                if !value.is_empty() {
                    for part in value.split(|byte| *byte == b',') {
                        numbers.push(number(part)?);
                    }
                }
            }
            b"GNU.sparse.offset" if numbers.len() % 2 == 0 => numbers.push(number(value)?),
            b"GNU.sparse.numbytes" if numbers.len() % 2 == 1 => numbers.push(number(value)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => return None,
            _ => {}
        }
    }
    let pairs = numbers.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| (pair[0], pair[1])).collect())
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Reads the map of version 1.0, which is in the blocks before the data: decimal numbers, each with
/// a line break after it. The first one is the number of ranges.
#[derive(Default)]
pub(super) struct MapText {
    numbers: Vec<u64>,
    digits: Option<u64>,
}

impl MapText {
    /// Reads the next block; the rest of the last one does not count.
    pub fn add(&mut self, block: &[u8]) -> Option<()> {
        for byte in block {
            if self.is_whole() {
                return Some(());
            }
            match byte {
                b'\n' => self.numbers.push(self.digits.take()?),
                b'0'..=b'9' => {
                    let digits = self.digits.unwrap_or(0).checked_mul(10)?;
                    self.digits = Some(digits.checked_add(u64::from(byte - b'0'))?);
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// Whether all ranges were read.
    pub fn is_whole(&self) -> bool {
        let count = self.numbers.first().map(|count| count.saturating_mul(2).saturating_add(1));
        count == Some(self.numbers.len() as u64)
    }

    /// The ranges.
    pub fn claims(&self) -> Claims {
        let rest = self.numbers.get(1..).unwrap_or_default();
        rest.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_checked() {
        let map = |claims: &[(u64, u64)], size, stored| {
            checked(claims, size, stored).map(|map| map.to_vec())
        };
        assert_eq!(map(&[(0, 5), (5, 0), (10, 2), (20, 0)], 20, 7), Some(vec![0..5, 10..12]));
        assert_eq!(map(&[], 1 << 40, 0), Some(vec![]));
        for (claims, size, stored) in [
            (&[(0, 5), (4, 1)][..], 10, 6),
            (&[(0, 11)], 10, 11),
            (&[(0, 5)], 10, 4),
            (&[(u64::MAX, 1)], 10, 1),
            (&[], u64::MAX, 0),
        ] {
            assert_eq!(map(claims, size, stored), None, "{claims:?}");
        }
    }

    #[test]
    fn maps_of_both_pax_versions_are_read() {
        let records = |records: &[(&str, &str)]| {
            let records: Vec<_> = records
                .iter()
                .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect();
            of_records(&records)
        };
        let (offset, bytes, map) = ("GNU.sparse.offset", "GNU.sparse.numbytes", "GNU.sparse.map");
        let both = [(offset, "0"), (bytes, "5"), (offset, "9"), (bytes, "1")];
        assert_eq!(records(&both), Some(vec![(0, 5), (9, 1)]));
        assert_eq!(records(&[(map, "0,5,9,1")]), Some(vec![(0, 5), (9, 1)]));
        assert_eq!(records(&[(map, "")]), Some(vec![]));
        for damaged in [&[(offset, "0")][..], &[(bytes, "0")], &[(map, "1")], &[(map, "1,x")]] {
            assert_eq!(records(damaged), None, "{damaged:?}");
        }
        let text = |text: &str| {
            let mut read = MapText::default();
            read.add(text.as_bytes()).map(|()| (read.is_whole(), read.claims()))
        };
        assert_eq!(text("2\n0\n5\n9\n1\n\0\0"), Some((true, vec![(0, 5), (9, 1)])));
        assert_eq!(text("0\n\0"), Some((true, vec![])));
        assert_eq!(text("2\n0\n5"), Some((false, vec![])));
        for damaged in ["\n", "x\n", "1\n-1\n", "1\n0\n\0", "99999999999999999999\n"] {
            assert_eq!(text(damaged), None, "{damaged:?}");
        }
    }
}
