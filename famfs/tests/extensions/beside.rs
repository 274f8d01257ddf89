// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Extension entries beside conventional ones, and those who know only these.

use famfs::format::EntryKind;
use famfs::format::extension::SET_UID;
use famfs::replay::size;
use zerocopy::IntoBytes;

use crate::log::{DEVICE_LEN, ExtendedLog, attributes, file, link, moved, removal};
use crate::sample::{Prepared, ROOT, clean, paths, piece, prepared, refused};

/// Conventional entries beside the tree: they find their directory wherever it is, and leave what
/// the tree needs.
#[test]
fn conventional_entries_beside_the_tree() {
    let mut log = ExtendedLog::new(true);
    log.store();
    let slab = log.file(".famfs/0", 1, 0);
    let d = log.mkdir("d");
    log.push(EntryKind::Move, moved(d, ROOT, b"moved", None).as_bytes());
    log.file("d/f", 1, 0);
    log.name(&file(d, b"g", 1, &[piece(slab, 0, 0, 1)]));
    let taken = log.mkdir("d/g");
    let taken_at_top = log.mkdir("moved");
    let hard = log.file("hard", 1, 0);
    let more = log.push(EntryKind::Link, link(hard, d, b"other").as_bytes());
    let in_use = log.delete(slab, ".famfs/0");
    let has_links = log.delete(hard, "hard");
    log.push(EntryKind::Remove, removal(more).as_bytes());
    log.delete(hard, "hard");
    let contents = log.contents();
    let expected = [
        (taken, "\"g\" already exists in its directory; slot 5 made it"),
        (taken_at_top, "\"moved\" already exists in its directory; slot 2 made it"),
        (in_use, "pages of other files in it: 1"),
        (has_links, "the file has other names"),
    ];
    let expected = expected.map(|(slot, message)| (slot, message.to_owned()));
    assert_eq!(refused(&contents.plan), expected);
    assert_eq!(paths(&contents.plan), ["moved/", "moved/f 2097152", "moved/g 1"]);
}

/// What refers to an entry that a compaction made void is harmless, as a compaction is interrupted.
#[test]
fn void_entries_leave_idle_ones() {
    let Prepared { mut log, inner, file: f, link: l, .. } = prepared();
    log.push(EntryKind::Attr, attributes(f, SET_UID, 1).as_bytes());
    log.push(EntryKind::Move, moved(f, ROOT, b"f", None).as_bytes());
    log.push(EntryKind::Remove, removal(f).as_bytes());
    log.push(EntryKind::Move, moved(inner, ROOT, b"link", Some(l)).as_bytes());
    assert_eq!(refused(&log.contents().plan).len(), 1, "a directory replaces no link");
    log.next -= 1;
    log.cut(log.next);
    log.push(EntryKind::Remove, removal(l).as_bytes());
    let before = paths(&log.contents().plan);
    log.contents().log.void(f).unwrap();
    log.contents().log.void(l).unwrap();
    let contents = log.contents();
    clean(&contents);
    assert_eq!(paths(&contents.plan), before);
    assert_eq!(contents.plan.idle(), [f + 2, f + 3, f + 4, f + 5]);
}

#[test]
fn where_data_ends_is_told_by_the_file_entries() {
    let Prepared { log, .. } = prepared();
    let contents = log.contents();
    let end = size::data_end(&contents, DEVICE_LEN).unwrap();
    assert_eq!((end.now, end.compacted), (log.free, log.free));
}
