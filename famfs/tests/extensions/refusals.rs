// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every entry that is refused, and why.

use famfs::format::EntryKind;
use famfs::format::extension::{NameBody, SET_UID};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use crate::log::{
    UNIT_PAGES, attributes, dir, far, file, link, list, listed, moved, removal, symlink,
};
use crate::sample::{Prepared, ROOT, piece, prepared, refused};

type Entry = (EntryKind, Vec<u8>);

fn name(body: &NameBody) -> Entry {
    (EntryKind::Name, body.as_bytes().to_vec())
}

/// Every entry that is refused, and why.
#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn refusals() {
    let Prepared { mut log, store, interleaved, plain, dir: d, inner, file: f, link: l } =
        prepared();
    let change = |mut body: NameBody, change: &dyn Fn(&mut NameBody)| {
        change(&mut body);
        name(&body)
    };
    let lists = |bytes: &[u8]| (EntryKind::List, list(bytes).as_bytes().to_vec());
    let mut odd = list(b"");
    odd.rest[7] = 1;
    let table: Vec<(Entry, String)> = vec![
        (name(&dir(99, b"n")), "slot 99 made no directory that still exists".into()),
        (name(&dir(f, b"n")), format!("slot {f} made something other than a directory")),
        (name(&dir(store, b"n")), format!("slot {store} made no directory that still exists")),
        (
            name(&dir(ROOT, b"dir")),
            format!("\"dir\" already exists in its directory; slot {d} made it"),
        ),
        (
            name(&dir(ROOT, b"plain")),
            format!("\"plain\" already exists in its directory; slot {plain} made it"),
        ),
        (name(&dir(ROOT, b".famfs")), "name \".famfs\" is reserved in the root directory".into()),
        (name(&dir(ROOT, b".meta")), "name \".meta\" is reserved in the root directory".into()),
        (name(&dir(ROOT, b"")), "the name is empty".into()),
        (
            name(&dir(ROOT, b"..")),
            "name \"..\" is not allowed: expected a name without \"/\", not \".\" or \"..\"".into(),
        ),
        (
            name(&dir(ROOT, b"a/b")),
            "name \"a/b\" is not allowed: expected a name without \"/\", not \".\" or \"..\""
                .into(),
        ),
        (change(dir(ROOT, b"n"), &|b| b.name[9] = 1), "name \"n\" has bytes behind its NUL".into()),
        (
            change(dir(ROOT, b"n"), &|b| b.kind = U32::new(4)),
            "kind is 4, expected 1 (file), 2 (directory) or 3 (link)".into(),
        ),
        (
            change(dir(ROOT, b"n"), &|b| b.pad = U32::new(1)),
            "bytes before the name are not zero: a later version may have given them a meaning"
                .into(),
        ),
        (
            change(dir(ROOT, b"n"), &|b| b.tail[0] = 1),
            "bytes behind the name are not zero: a later version may have given them a meaning"
                .into(),
        ),
        (
            change(dir(ROOT, b"n"), &|b| b.size = U64::new(1)),
            "size is 1, expected 0 of a directory".into(),
        ),
        (
            change(dir(ROOT, b"n"), &|b| b.place = U32::new(1)),
            "place is 1, expected 0 of a directory".into(),
        ),
        (
            change(dir(ROOT, b"n"), &|b| b.uid = U32::new(u32::MAX)),
            "user is 4294967295, expected 0 to 4294967294".into(),
        ),
        (
            change(dir(ROOT, b"n"), &|b| b.mtime_nsec = U32::new(1_000_000_000)),
            "nanoseconds is 1000000000, expected at most 999999999".into(),
        ),
        (
            name(&file(ROOT, b"n", 1, &[piece(plain, 0, 0, 1)])),
            format!("slot {plain} is not a file below .famfs, so it cannot hold data"),
        ),
        (name(&file(ROOT, b"n", 1, &[piece(store, 511, 0, 1)])), String::new()),
        (
            name(&file(ROOT, b"n2", 8192, &[piece(store, 511, 0, 2)])),
            format!(
                "pages 511 to 513 of slot {store} are to hold its bytes, but that has only {UNIT_PAGES}"
            ),
        ),
        (
            name(&file(ROOT, b"n2", 1, &[piece(store, 5, 0, 1)])),
            format!("page 5 of slot {store} belongs to what slot {f} made"),
        ),
        (
            name(&file(ROOT, b"n2", 8192, &[piece(store, 7, 0, 1), piece(store, 7, 1, 1)])),
            format!("page 7 of slot {store} belongs to what slot SELF made"),
        ),
        (
            name(&file(ROOT, b"n2", 8192, &[piece(store, 7, 1, 1), piece(store, 8, 0, 1)])),
            "piece 1 is at page 0 of the file, expected page 2 or behind it".into(),
        ),
        (
            name(&file(ROOT, b"n2", 4096, &[piece(store, 7, 0, 2)])),
            "piece 0 ends at page 2 of the file, which has only 1".into(),
        ),
        (
            name(&file(ROOT, b"n2", 8192, &[piece(interleaved, 1, 0, 1)])),
            format!(
                "slot {interleaved} is interleaved and can only hold one file as a whole, from its first page on"
            ),
        ),
        (
            change(file(ROOT, b"n2", 0, &[]), &|b| b.size = U64::new(u64::MAX)),
            "file size is 18446744073709551615, expected at most 9223372036854775807".into(),
        ),
        (
            change(file(ROOT, b"n2", 1, &[]), &|b| b.count = U32::new(7)),
            "count is 7, expected at most 6 pieces in an entry".into(),
        ),
        (
            change(file(ROOT, b"n2", 1, &[]), &|b| b.tail[0] = 1),
            "bytes behind the pieces are not zero: a later version may have given them a meaning"
                .into(),
        ),
        (
            change(file(ROOT, b"n2", 1, &[]), &|b| b.place = U32::new(2)),
            "place is 2, expected 0 (in the entry) or 1 (in LIST entries)".into(),
        ),
        (name(&listed(file(ROOT, b"n2", 1, &[]), 0)), "0 pieces, expected 1 to 65536".into()),
        (
            name(&listed(file(ROOT, b"n2", 1, &[]), 65_537)),
            "65537 pieces, expected 1 to 65536".into(),
        ),
        (
            (EntryKind::List, odd.as_bytes().to_vec()),
            "bytes behind the list are not zero: a later version may have given them a meaning"
                .into(),
        ),
        (
            name(&listed(file(ROOT, b"n2", 1, &[]), 1)),
            "its pieces or target need 1 LIST entries right before it, found 0".into(),
        ),
        (lists(piece(store, 60, 0, 1).to_raw().as_bytes()), String::new()),
        (
            name(&listed(file(ROOT, b"n2", 1, &[]), 17)),
            "its pieces or target need 2 LIST entries right before it, found 1".into(),
        ),
        (lists(&[b'x'; 33]), String::new()),
        (
            name(&listed(file(ROOT, b"n2", 1, &[]), 1)),
            "bytes behind the pieces are not zero: a later version may have given them a meaning"
                .into(),
        ),
        (lists(piece(store, 60, 0, 1).to_raw().as_bytes()), String::new()),
        (
            change(listed(file(ROOT, b"n2", 1, &[]), 1), &|b| b.tail[207] = 1),
            "bytes behind the name are not zero: a later version may have given them a meaning"
                .into(),
        ),
        (lists(&[b'x'; 10]), String::new()),
        (
            name(&far(symlink(ROOT, b"n2", b""), 9)),
            "bytes behind the target are not zero: a later version may have given them a meaning"
                .into(),
        ),
        (
            change(symlink(ROOT, b"n2", b"a"), &|b| b.place = U32::new(2)),
            "place is 2, expected 0 (in the entry) or 1 (in LIST entries)".into(),
        ),
        (
            change(symlink(ROOT, b"n2", b""), &|_| ()),
            "the target has 0 bytes, expected 1 to 4095".into(),
        ),
        (
            change(symlink(ROOT, b"n2", b"x"), &|b| b.count = U32::new(4096)),
            "the target has 4096 bytes, expected 1 to 4095".into(),
        ),
        (
            change(symlink(ROOT, b"n2", b"x"), &|b| b.size = U64::new(2)),
            "size is 2, expected the number of bytes of the target".into(),
        ),
        (
            change(symlink(ROOT, b"n2", &[b'x'; 208]), &|b| {
                b.count = U32::new(209);
                b.size = U64::new(209);
            }),
            "count is 209, expected at most 208 bytes in an entry".into(),
        ),
        (name(&symlink(ROOT, b"n2", b"a\0b")), "the target has a NUL in it".into()),
        (lists(b"a\0b"), String::new()),
        (name(&far(symlink(ROOT, b"n2", b""), 3)), "the target has a NUL in it".into()),
        (
            (EntryKind::Link, link(99, ROOT, b"n2").as_bytes().to_vec()),
            "slot 99 made nothing that still exists".into(),
        ),
        (
            (EntryKind::Link, link(d, ROOT, b"n2").as_bytes().to_vec()),
            format!("slot {d} made a directory, expected a file"),
        ),
        (
            (EntryKind::Link, link(l, ROOT, b"n2").as_bytes().to_vec()),
            format!("slot {l} made a symbolic link, expected a file"),
        ),
        (
            (EntryKind::Link, link(store, ROOT, b"n2").as_bytes().to_vec()),
            format!("slot {store} made nothing that still exists"),
        ),
        (
            (EntryKind::Link, link(f, inner, b"file").as_bytes().to_vec()),
            format!("\"file\" already exists in its directory; slot {f} made it"),
        ),
        (
            (EntryKind::Attr, attributes(99, SET_UID, 1).as_bytes().to_vec()),
            "slot 99 made nothing that still exists".into(),
        ),
        (
            (EntryKind::Attr, attributes(f, 16, 1).as_bytes().to_vec()),
            "mask is 16, expected 1 to 15".into(),
        ),
        (
            (EntryKind::Attr, attributes(f, 0, 1).as_bytes().to_vec()),
            "mask is 0, expected 1 to 15".into(),
        ),
        (
            (EntryKind::Move, moved(99, ROOT, b"n2", None).as_bytes().to_vec()),
            "slot 99 made nothing that still exists".into(),
        ),
        (
            (EntryKind::Move, moved(d, inner, b"n2", None).as_bytes().to_vec()),
            "directory \"dir\" would be inside itself".into(),
        ),
        (
            (EntryKind::Move, moved(d, d, b"n2", None).as_bytes().to_vec()),
            "directory \"dir\" would be inside itself".into(),
        ),
        (
            (EntryKind::Move, moved(f, ROOT, b"link", None).as_bytes().to_vec()),
            format!("\"link\" already exists in its directory; slot {l} made it"),
        ),
        (
            (EntryKind::Move, moved(f, ROOT, b"link", Some(d)).as_bytes().to_vec()),
            format!("\"link\" already exists in its directory; slot {l} made it"),
        ),
        (
            (EntryKind::Move, moved(f, inner, b"file", Some(f)).as_bytes().to_vec()),
            format!("\"file\" already exists in its directory; slot {f} made it"),
        ),
        (
            (EntryKind::Move, moved(f, ROOT, b"n2", Some(l)).as_bytes().to_vec()),
            format!("\"n2\" is to replace what slot {l} made, but it is not there"),
        ),
        (
            (EntryKind::Move, moved(f, ROOT, b"dir", Some(d)).as_bytes().to_vec()),
            "a file cannot replace a directory".into(),
        ),
        (
            (EntryKind::Move, moved(inner, ROOT, b"link", Some(l)).as_bytes().to_vec()),
            "a directory cannot replace a symbolic link".into(),
        ),
        (
            (EntryKind::Move, moved(f, ROOT, b".meta", None).as_bytes().to_vec()),
            "name \".meta\" is reserved in the root directory".into(),
        ),
        (
            (EntryKind::Remove, removal(99).as_bytes().to_vec()),
            "slot 99 made nothing that still exists".into(),
        ),
        (
            (EntryKind::Remove, removal(ROOT).as_bytes().to_vec()),
            format!("slot {ROOT} made nothing that still exists"),
        ),
        (
            (EntryKind::Remove, removal(d).as_bytes().to_vec()),
            "the directory is not empty: 1 names are in it".into(),
        ),
    ];
    let mut expected = Vec::new();
    for ((kind, body), message) in table {
        let slot = log.push(kind, &body);
        if !message.is_empty() {
            expected.push((slot, message.replace("SELF", &slot.to_string())));
        }
    }
    let contents = log.contents();
    let found = refused(&contents.plan);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
    assert!(contents.plan.stopped.is_none());
}
