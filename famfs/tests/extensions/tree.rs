// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What logs with extension entries describe.

use famfs::format::extension::{
    EXTENSIONS_OFFSET, Extensions, MAX_COMPONENT, PAGE, RawPiece, SET_GID, SET_MODE, SET_MTIME,
    SET_UID,
};
use famfs::format::path::RelPath;
use famfs::format::{EntryKind, slot_offset};
use famfs::media::Media;
use famfs::replay::Time;
use famfs::replay::fsck;
use famfs::replay::tree::Tree;
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::{Contents, Owner};
use famfs::text::error_report::one_line;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{IntoBytes, transmute};

use crate::log::{
    DEVICE_LEN, ExtendedLog, UNIT_PAGES, attributes, dir, far, file, group, link, list, listed,
    moved, removal, symlink,
};
use crate::sample::{Prepared, ROOT, clean, paths, piece, prepared, refused};

#[test]
fn a_whole_tree() {
    let mut log = ExtendedLog::new(true);
    log.store();
    let start = log.free;
    let slab = log.file(".famfs/0", 1, 0);
    let long = [b'x'; MAX_COMPONENT];
    let top = log.name(&dir(ROOT, b"top"));
    let deep = log.name(&dir(top, &long));
    log.name(&file(deep, b"any \x01\xff byte", 1, &[piece(slab, 3, 0, 1)]));
    log.name(&file(deep, b"empty", 0, &[]));
    log.name(&file(
        deep,
        b"sparse",
        1 << 32,
        &[piece(slab, 9, 1 << 19, 2), piece(slab, 1, (1 << 20) - 1, 1)],
    ));
    log.name(&symlink(top, b"dangling", b"../no where"));
    let target = [b't'; 4095];
    log.lists(&target);
    log.name(&far(symlink(top, b"long", b""), 4095));
    let conventional = log.file("conventional", 1, 0);
    log.push(EntryKind::Link, link(conventional, deep, b"link").as_bytes());
    let contents = log.contents();
    clean(&contents);
    let long = String::from_utf8_lossy(&long).into_owned();
    assert_eq!(
        paths(&contents.plan),
        [
            "conventional 2097152".to_owned(),
            "top/".to_owned(),
            "top/dangling -> ../no where".to_owned(),
            format!("top/long -> {}", "t".repeat(4095)),
            format!("top/{long}/"),
            format!("top/{long}/any \x01\u{fffd} byte 1"),
            format!("top/{long}/empty 0"),
            format!("top/{long}/link 2097152"),
            format!("top/{long}/sparse 4294967296"),
        ]
    );
    // Conventional readers see the plain files, the store among them, and skip the rest.
    let plain: Vec<String> =
        contents.plan.nodes().iter().map(|node| node.path.to_string()).collect();
    assert_eq!(plain, [".famfs", ".famfs/0", "conventional"]);
    let tree = contents.plan.tree();
    let sparse = tree.look_up(format!("top/{long}/sparse").as_bytes()).unwrap();
    let ObjectKind::File { size, bytes } = &tree.object(sparse).unwrap().kind else { panic!() };
    let extents: Vec<_> = tree.extents(bytes, *size);
    let extents: Vec<_> =
        extents.iter().map(|(at, extent)| (*at, extent.offset - start, extent.len)).collect();
    assert_eq!(extents, [(1 << 31, 9 * PAGE, 2 * PAGE), ((1 << 32) - PAGE, PAGE, PAGE)]);
    assert_eq!(tree.allocated(bytes), 3 * PAGE);
    let linked = tree.object(conventional).unwrap();
    assert_eq!((linked.links, linked.mtime), (2, None));
    let report = fsck::check(&log.media, &contents);
    assert_eq!(report.problems, [""; 0]);
    assert_eq!(report.unknown_entries, 0);
}

/// Without the mark the entries do not count, as for the reference, and that is reported.
#[test]
fn no_mark_no_extensions() {
    let mut log = ExtendedLog::new(false);
    log.mkdir("a");
    log.name(&dir(0, b"b"));
    log.push(EntryKind::Group, group(100).as_bytes());
    log.mkdir(".famfs");
    let contents = log.contents();
    let plan = &contents.plan;
    assert!(!plan.has_extensions());
    assert_eq!((plan.unmarked, plan.unknown, plan.nodes().len()), (2, 0, 2));
    let [problem] = &fsck::check(&log.media, &contents).problems[..] else { panic!("problems") };
    assert!(
        problem.starts_with("log slot 1 at ") && problem.contains("famfs upgrade"),
        "{problem}"
    );
    // A mark that an earlier file system left, and one of a later version.
    let mut mark = Extensions::new([9; 16]);
    log.media.write_at(EXTENSIONS_OFFSET, mark.as_bytes()).unwrap();
    assert!(!log.contents().plan.has_extensions());
    mark = Extensions::new(1_u128.to_be_bytes());
    mark.version = U32::new(2);
    log.media.write_at(EXTENSIONS_OFFSET, mark.as_bytes()).unwrap();
    let error = one_line(&Contents::read(&log.media).err().unwrap());
    assert!(error.starts_with("mark of extensions at 0x6000: checksum "), "{error}");
    mark.crc = U64::new(mark.checksum());
    log.media.write_at(EXTENSIONS_OFFSET, mark.as_bytes()).unwrap();
    assert_eq!(
        one_line(&Contents::read(&log.media).err().unwrap()),
        "the file system has extensions of version 2, expected 1; use newer tools"
    );
}

/// What moves, links, removals and changes of attributes leave.
#[test]
fn changes() {
    let Prepared { mut log, store, dir: d, inner, file: f, link: l, .. } = prepared();
    log.push(EntryKind::Link, link(f, ROOT, b"hard").as_bytes());
    log.push(EntryKind::Attr, attributes(f, SET_MODE | SET_MTIME, 0o4711).as_bytes());
    log.push(EntryKind::Attr, attributes(ROOT, SET_UID | SET_GID, 7).as_bytes());
    // The directory moves with what is in it; a file takes the place of a link.
    log.push(EntryKind::Move, moved(inner, ROOT, b"out", None).as_bytes());
    log.push(EntryKind::Move, moved(f, ROOT, b"link", Some(l)).as_bytes());
    log.push(EntryKind::Move, moved(inner, ROOT, b"dir", Some(d)).as_bytes());
    let contents = log.contents();
    clean(&contents);
    assert_eq!(paths(&contents.plan), ["dir/", "hard 5000", "link 5000", "plain 2097152"]);
    let tree = contents.plan.tree();
    let file_object = tree.object(f).unwrap();
    assert_eq!(file_object.owner, Owner { uid: 1000, gid: 100, mode: 0o4711 });
    assert_eq!(file_object.mtime, Some(Time { sec: 0o4711, nsec: 0o4711 }));
    assert_eq!(file_object.links, 2);
    let root = tree.object(ROOT).unwrap();
    assert_eq!(root.owner, Owner { uid: 8, gid: 9, mode: 0o755 });
    // The last name takes its pages with it.
    log.push(EntryKind::Remove, removal(f).as_bytes());
    let again = log.name(&file(ROOT, b"again", 1, &[piece(store, 4, 0, 1)]));
    log.push(EntryKind::Remove, removal(f + 2).as_bytes());
    let third = log.name(&file(ROOT, b"third", 1, &[piece(store, 4, 0, 1)]));
    let contents = log.contents();
    let taken = format!("page 4 of slot {store} belongs to what slot {f} made");
    assert_eq!(refused(&contents.plan), [(again, taken)]);
    assert_eq!(paths(&contents.plan), ["dir/", "plain 2097152", "third 1"]);
    assert!(contents.plan.tree().object(third).is_some());
}

/// Pieces in entries before the name: as many as it needs, right before it.
#[test]
fn pieces_in_lists() {
    let mut log = ExtendedLog::new(true);
    log.store();
    let start = log.free;
    let data = log.file(".famfs/0", 2, 0);
    let pieces: Vec<RawPiece> = (0..200).map(|n| piece(data, 2 * n, 3 * n, 1).to_raw()).collect();
    let bytes = pieces.as_bytes();
    let many = listed(file(ROOT, b"many", 600 * PAGE, &[]), 200);
    // What is before them, of them or not, does not matter.
    let idle = log.lists(&[9; 512]);
    log.lists(bytes);
    let made = log.name(&many);
    let contents = log.contents();
    clean(&contents);
    assert_eq!(contents.plan.idle(), [idle]);
    assert_eq!(contents.plan.tree().extended(), 14);
    let tree = contents.plan.tree();
    let ObjectKind::File { size, bytes: place } = &tree.object(made).unwrap().kind else {
        panic!()
    };
    let extents = tree.extents(place, *size);
    assert_eq!(extents.len(), 200);
    assert_eq!((extents[199].0, extents[199].1.offset), (597 * PAGE, start + 398 * PAGE));
    log.name(&file(ROOT, b"x", 1, &[piece(data, 398, 0, 1)]));
    assert_eq!(log.contents().plan.refused.len(), 1, "a page of the last piece is free");

    // Without one of them, without the last one, or with something in between, the name is refused.
    for (gap, found) in [(idle + 1, 12), (made - 1, 0), (made - 2, 1)] {
        log.cut(made + 1);
        log.next = made + 1;
        let mut before = [0; 544];
        log.media.read_at(slot_offset(gap), &mut before).unwrap();
        log.contents().log.void(gap).unwrap();
        let contents = log.contents();
        let message =
            format!("its pieces or target need 13 LIST entries right before it, found {found}");
        assert_eq!(refused(&contents.plan), [(made, message)]);
        let idle: Vec<u64> = (idle..made).filter(|slot| *slot != gap).collect();
        assert_eq!(contents.plan.idle(), idle);
        log.media.write_at(slot_offset(gap), &before).unwrap();
    }
    // The name that takes them takes them from the next one; and a name is no list.
    log.name(&listed(file(ROOT, b"again", 600 * PAGE, &[]), 200));
    assert_eq!(log.contents().plan.refused.len(), 1);
    // A reader that goes on finds what it has read before.
    for cut in idle..=made {
        log.cut(cut);
        let mut plan = log.contents().plan;
        log.cut(made + 1);
        let now = log.contents();
        plan.read_on(&now.log, now.superblock.data_area(DEVICE_LEN));
        assert_eq!((paths(&plan), plan.idle()), (vec!["many 2457600".to_owned()], &[idle][..]));
    }
}

/// A long list, behind more entries than it needs.
#[test]
fn a_long_list() {
    let mut log = ExtendedLog::new(true);
    log.store();
    let data = log.file(".famfs/0", 64, 0);
    // In the file, they are in the opposite order.
    let raw = |n: u64| piece(data, 32_767 - n, n, 1).to_raw();
    let pieces: Vec<RawPiece> = (0..32_768).map(raw).collect();
    let bodies = vec![(EntryKind::List as u32, transmute!(list(&[1; 512]))); 5000];
    let lists = pieces.as_bytes().chunks(512).map(list);
    let lists = lists.map(|body| (EntryKind::List as u32, transmute!(body)));
    let body = listed(file(ROOT, b"many", 32_768 * PAGE, &[]), 32_768);
    let name = (EntryKind::Name as u32, transmute!(body));
    let entries: Vec<_> = bodies.into_iter().chain(lists).chain([name]).collect();
    log.append(&entries);
    let contents = log.contents();
    clean(&contents);
    assert_eq!(contents.plan.idle().len(), 5000);
    assert_eq!(contents.plan.tree().store_use().free, 0);
}

/// Pages that nothing has, and those that removed files had.
#[test]
fn free_pages() {
    let Prepared { mut log, store, interleaved, file: f, .. } = prepared();
    let runs = |log: &ExtendedLog| {
        let plan = log.contents().plan;
        let runs: Vec<_> =
            plan.tree().free_runs().map(|run| (run.slot, run.page, run.pages)).collect();
        let usage = plan.tree().store_use();
        assert_eq!(usage.used + usage.free + usage.retired, usage.bytes);
        assert_eq!(usage.free, runs.iter().map(|(_, _, pages)| pages * PAGE).sum::<u64>());
        (runs, usage.retired / PAGE)
    };
    // The interleaved file is for one file as a whole, so only a compaction can make use of it.
    let whole = 2 * UNIT_PAGES;
    assert_eq!(runs(&log), (vec![(store, 0, 4), (store, 6, 506)], whole));
    let at_once = log.name(&file(ROOT, b"x", 9 * PAGE, &[piece(interleaved, 0, 0, 9)]));
    assert_eq!(runs(&log).1, 0);
    // Refused ones take nothing.
    log.name(&file(ROOT, b"x", 2, &[piece(store, 8, 0, 1)]));
    log.name(&file(ROOT, b"y", 9 * PAGE, &[piece(store, 8, 0, 1), piece(store, 4, 1, 1)]));
    assert_eq!(runs(&log), (vec![(store, 0, 4), (store, 6, 506)], 0));
    log.push(EntryKind::Remove, removal(f).as_bytes());
    assert_eq!(runs(&log), (vec![(store, 0, 4), (store, 6, 506)], 2));
    // What touches, what overlaps, and what is used again.
    let both =
        log.name(&file(ROOT, b"both", 9 * PAGE, &[piece(store, 3, 0, 2), piece(store, 6, 2, 1)]));
    let last = log.name(&file(ROOT, b"last", 1, &[piece(store, 511, 0, 1)]));
    assert_eq!(runs(&log), (vec![(store, 0, 3), (store, 7, 504)], 1));
    log.push(EntryKind::Remove, removal(both).as_bytes());
    assert_eq!(runs(&log), (vec![(store, 0, 3), (store, 7, 504)], 4));
    log.name(&file(ROOT, b"again", 4096 * 3, &[piece(store, 4, 0, 3)]));
    log.push(EntryKind::Remove, removal(last).as_bytes());
    log.push(EntryKind::Remove, removal(at_once).as_bytes());
    assert_eq!(runs(&log), (vec![(store, 0, 3), (store, 7, 504)], 2 + whole));
}

/// No path gets longer than the system can name, however directories move.
#[test]
fn paths_have_an_end() {
    let mut log = ExtendedLog::new(true);
    let long = [b'x'; 255];
    let mut at = ROOT;
    for _ in 0..15 {
        at = log.name(&dir(at, &long));
    }
    // 15 components of 255 and 15 slashes: 3840, so that 255 are left.
    let last = log.name(&dir(at, &long));
    let other = log.name(&dir(ROOT, b"other"));
    let child = log.name(&dir(other, b"child"));
    let contents = log.contents();
    clean(&contents);
    let refusals = [
        (EntryKind::Name, dir(last, b"x").as_bytes().to_vec(), 4097),
        (EntryKind::Move, moved(child, last, b"x", None).as_bytes().to_vec(), 4097),
        (EntryKind::Move, moved(other, at, &[b'o'; 250], None).as_bytes().to_vec(), 4096),
        // The first of the long ones moves with all below it.
        (EntryKind::Move, moved(0, child, &long, None).as_bytes().to_vec(), 4107),
    ];
    for (kind, body, len) in refusals {
        log.push(kind, &body);
        let contents = log.contents();
        let found = refused(&contents.plan);
        assert!(found[0].1.ends_with(&format!("{len} bytes, expected at most 4095")), "{found:?}");
        log.next -= 1;
        log.cut(log.next);
    }
    log.push(EntryKind::Move, moved(other, at, &[b'o'; 249], None).as_bytes());
    log.push(EntryKind::Remove, removal(last).as_bytes());
    clean(&log.contents());
}

/// The tree finds names as it lists them.
#[test]
fn names_are_found() {
    let Prepared { log, .. } = prepared();
    let contents = log.contents();
    let tree: &Tree = contents.plan.tree();
    let mut number = 0;
    tree.walk(ROOT, |path, listed| {
        assert_eq!(tree.look_up(path), Some(listed.slot));
        number += 1;
        Ok::<(), ()>(())
    })
    .unwrap();
    assert_eq!(number, 5);
    for path in [&b""[..], b"dir/", b"none", b"dir/inner/file/x", b"link/inner", b".famfs"] {
        assert_eq!(tree.look_up(path), None);
    }
}

/// Conventional readers see no moves: their paths stay, however the plan finds them.
#[test]
fn conventional_paths_stay_where_they_were() {
    let mut log = ExtendedLog::new(true);
    log.store();
    let slab = log.file(".famfs/0", 1, 0);
    let top = log.mkdir("top");
    log.name(&dir(ROOT, b"extended"));
    let inner = log.file("top/inner", 1, 0);
    let beside = log.file("beside", 1, 0);
    let paths = |log: &ExtendedLog| {
        let contents = log.contents();
        clean(&contents);
        let slot = |path: &str| {
            let node = contents.plan.get(&RelPath::new(path.as_bytes()).unwrap());
            node.map(|node| node.slot)
        };
        [".famfs/0", "top", "top/inner", "beside", "extended", "moved/inner"].map(slot)
    };
    let expected = [Some(slab), Some(top), Some(inner), Some(beside), None, None];
    assert_eq!(paths(&log), expected);
    log.push(EntryKind::Move, moved(top, ROOT, b"moved", None).as_bytes());
    log.push(EntryKind::Remove, removal(beside).as_bytes());
    assert_eq!(paths(&log), expected);
    log.delete(slab, ".famfs/0");
    assert_eq!(paths(&log)[0], None);
}
