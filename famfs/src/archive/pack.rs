// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Packs: a directory of small files as one file, as earlier versions of these tools made them.
//!
//! A pack is an ordinary tar archive that begins with a mark, a pax global header with a comment.
//! A file system with extensions holds small files as they are, so packs are only read.

use std::io::Read;

use tar::{Archive, EntryType};

/// The end of a pack's name, after the name of the directory.
pub const SUFFIX: &[u8] = b".tar";
/// The comment that marks a pack.
const MARK: &[u8] = b"famfs pack 1";

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

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::*;

    #[test]
    fn a_pack_is_known_by_its_mark() {
        let archive = |record: &[u8]| {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XGlobalHeader);
            header.set_size(record.len() as u64);
            header.set_cksum();
            let mut builder = Builder::new(Vec::new());
            builder.append(&header, record).unwrap();
            builder.into_inner().unwrap()
        };
        let pack = archive(b"24 comment=famfs pack 1\n");
        assert!(is_pack(&pack[..]));
        assert!(!is_pack(&pack[1024..]) && !is_pack(&b"no archive"[..]));
        assert!(!is_pack(&archive(b"24 comment=famfs pack 2\n")[..]));
    }
}
