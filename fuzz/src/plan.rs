// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Target: from a log to a plan. Input: a file system ([`crate::image`]).
//!
//! Invariants of every plan, whatever the log holds ([`promises`]):
//! * paths are normal, relative, unique, outside of `.meta`, and below a directory of the plan;
//! * a file has at least one byte; its extents lie in the data area, belong to no other file, and
//!   hold it;
//! * every published entry is a node, was refused, deletes or was deleted, is void or of an unknown
//!   type, changes the tree, or comes after the damage at which reading stopped;
//! * in a tree of extensions a path is at most 4,095 bytes long and below a directory; what it
//!   names has as many names as it says, and its pages are its own, in files of the store;
//! * free and used memory add up to the data area, and what is allocated next belongs to no file,
//!   not even a deleted one;
//! * memory use follows the input, not what the input claims;
//! * where appending is allowed, an entry can be appended, and everything else stays as it was;
//! * where compacting is allowed, the tree stays, and only its memory is taken;
//! * pages that a new file may have belong to no file;
//! * a device that is cut where the data ends keeps all of it, before and after a compaction, and
//!   deleted files still count.

use std::collections::{BTreeMap, HashSet};

use famfs::format::extension::{MAX_LONG_PATH, NO_ENTRY, PAGE, STORE_DIR};
use famfs::format::map::Extent;
use famfs::format::path::{META_DIR, RelPath};
use famfs::format::{ALLOC_UNIT, Body, ENTRY_LEN, EntryKind, MkdirBody};
use famfs::media::Media;
use famfs::media::in_memory::InMemory;
use famfs::replay::compact::compact;
use famfs::replay::dead::Dead;
use famfs::replay::fsck;
use famfs::replay::size;
use famfs::replay::tree::Tree;
use famfs::replay::tree::list::Listed;
use famfs::replay::tree::object::{Object, ObjectKind};
use famfs::replay::{Contents, Node, NodeKind, Plan};
use famfs::store::log::Log;
use zerocopy::{FromZeros, IntoBytes};

use crate::{bounded, image};

/// Bytes that may be allocated for any input, however small: the scan's buffer, and the tables.
const ALLOWANCE: usize = 4 << 20;
/// Bytes that may be allocated for each byte of input. An entry of 544 bytes becomes a node, its
/// path in two indexes, extents, or an error with its text.
const PER_BYTE: usize = 64;

/// Runs the target.
///
/// # Panics
/// When an invariant does not hold.
pub fn run(data: &[u8]) {
    let (media, _) = image::parse(data);
    let limit = ALLOWANCE + PER_BYTE * data.len();
    let nodes = bounded(limit, || {
        let Ok(contents) = Contents::read(&media) else { return None };
        promises(&media, &contents);
        let report = fsck::check(&media, &contents);
        let clean = contents.plan.stopped.is_none() && contents.plan.refused.is_empty();
        assert!(clean || !report.problems.is_empty(), "fsck says nothing of what was left out");
        Some(contents.plan.nodes().to_vec())
    });
    if let Some(nodes) = nodes {
        // The input's entries, and the one that is appended.
        let entries = (data.len() as u64).div_ceil(ENTRY_LEN) + 1;
        resized(&media, entries);
        append(&media, &nodes);
        compacted(&media);
        resized(&media, entries);
    }
}

/// Cuts the device where its data ends, as a pool is resized.
fn resized(media: &InMemory, entries: u64) {
    let before = Contents::read(media).expect("it was readable a moment ago");
    let Some(end) = size::data_end(&before, media.len()) else { return };
    let area = before.superblock.data_area(media.len());
    assert!(end.compacted <= end.now && end.now <= area.end.max(area.start + ALLOC_UNIT));
    if before.superblock.size_problem(media.len()).is_some() || end.now > media.len() {
        return;
    }
    let cut = image::copy(media, end.now, entries);
    size::record(&cut, end.now).expect("the superblock is there");
    let after = Contents::read(&cut).expect("cutting damaged the file system");
    promises(&cut, &after);
    assert!(after.superblock.size_problem(cut.len()).is_none());
    assert_eq!(after.plan.nodes(), before.plan.nodes());
    assert_eq!(after.plan.deletions_since(0), before.plan.deletions_since(0));
    assert!(after.plan.refused.is_empty() && after.plan.stopped.is_none());
    assert_eq!(after.log.interrupted(), before.log.interrupted());
    assert_eq!(size::data_end(&after, cut.len()), Some(end));
    // What an interrupted append left still fits.
    let whole = image::copy(media, media.len(), entries);
    let [whole, cut] = [&whole, &cut].map(recovered);
    assert_eq!(whole, cut);
}

/// The nodes, and the number of entries that are left out, after a log was made ready for appends.
fn recovered(media: &InMemory) -> Option<(Vec<Node>, usize)> {
    let Contents { superblock, mut log, .. } = Contents::read(media).ok()?;
    log.prepare_append().ok()?;
    let extensions = superblock.has_extensions(media).ok()?;
    let plan = Plan::read(&log, superblock.data_area(media.len()), extensions);
    Some((plan.nodes().to_vec(), plan.refused.len()))
}

/// Compacts if that is allowed.
fn compacted(media: &InMemory) {
    let contents = Contents::read(media).expect("it was readable a moment ago");
    let end = size::data_end(&contents, media.len());
    let before = contents.plan;
    let Ok(freed) = compact(media, false) else { return };
    let contents = Contents::read(media).expect("compacting damaged the header");
    promises(media, &contents);
    let after = size::data_end(&contents, media.len());
    assert_eq!(after.map(|after| after.now), end.map(|end| end.compacted));
    let Contents { log, plan, .. } = contents;
    assert!(log.counter_problem().is_none() && log.interrupted().is_none());
    assert_eq!(listing(plan.tree()), listing(before.tree()));
    // Their entries may have moved.
    let mut old = before.nodes().iter();
    let is_old = |node: &Node| old.any(|old| Node { slot: node.slot, ..old.clone() } == *node);
    assert!(plan.nodes().iter().all(is_old), "a node is new");
    assert!(plan.idle().is_empty() && plan.refused.is_empty() && plan.stopped.is_none());
    let dead = Dead::of(&log, &plan).expect("the log was readable a moment ago");
    assert!(dead.made.is_empty() && dead.rest.is_empty(), "something is left to free");
    assert_eq!(plan.space.used() + freed.bytes, before.space.used());
    let (old, new) = (before.tree().store_use(), plan.tree().store_use());
    assert_eq!((new.used, new.retired), (old.used, 0));
    assert!(new.free >= freed.page_bytes);
}

/// Every path of a tree with what it names.
fn listing(tree: &Tree) -> Vec<(Vec<u8>, Object)> {
    let mut paths = Vec::new();
    let walked = tree.walk(NO_ENTRY, |path, listed| {
        let mut object = listed.object.clone();
        // A directory forgets how long paths in it have been.
        if let ObjectKind::Dir { below, .. } = &mut object.kind {
            *below = 0;
        }
        paths.push((path.to_vec(), object));
        Ok::<(), ()>(())
    });
    assert!(walked.is_ok());
    paths
}

/// Asserts what a plan promises.
///
/// # Panics
/// When it does not keep the promise.
pub fn promises(media: &dyn Media, contents: &Contents<'_>) {
    let Contents { superblock, log, plan } = contents;
    let area = superblock.data_area(media.len());
    let (mut dirs, mut seen) = (HashSet::new(), HashSet::new());
    let mut taken = BTreeMap::new();
    for node in plan.nodes() {
        let path = node.path.as_bytes();
        let mut parts = path.split(|&byte| byte == b'/');
        assert!(parts.all(|part| !matches!(part, b"" | b"." | b"..") && !part.contains(&0)));
        assert!(path.split(|&byte| byte == b'/').next() != Some(META_DIR.as_bytes()));
        assert!(seen.insert(&node.path), "two nodes have one path");
        assert!(node.path.parent().is_none_or(|dir| dirs.contains(&dir)), "no directory for it");
        assert_eq!(node.owner.mode & !0o7777, 0);
        assert!(node.slot < log.published());
        let NodeKind::File { size, map } = &node.kind else {
            dirs.insert(node.path.clone());
            continue;
        };
        assert!(*size > 0 && map.piece(size - 1).is_some(), "the last byte has no place");
        for extent in map.extents() {
            assert!(extent.offset >= area.start && extent.offset + extent.len <= area.end);
            assert!(is_apart(&taken, extent), "two files share memory");
            taken.insert(extent.offset, extent.len);
        }
    }

    // The memory of a deleted file stays taken; a deletion has two entries.
    let deletions = plan.deletions_since(0);
    for deletion in deletions {
        let NodeKind::File { map, .. } = &deletion.node.kind else { continue };
        for extent in map.extents() {
            assert!(is_apart(&taken, extent), "a deleted file's memory is used again");
            taken.insert(extent.offset, extent.len);
        }
    }

    let idle = plan.voids().len() + plan.idle().len();
    let left_out =
        (plan.refused.len() + idle) as u64 + plan.unknown + plan.unmarked.saturating_sub(1);
    let stopped = plan.stopped.is_some();
    let extended = plan.tree().extended();
    let read = (plan.nodes().len() + 2 * deletions.len()) as u64 + left_out + extended;
    assert!(read == log.published() || stopped && read < log.published());
    assert_eq!(read, plan.next_slot());

    let tree = plan.tree();
    if plan.has_extensions() {
        tree_promises(plan, tree);
    }

    let mut space = plan.space.clone();
    assert_eq!(space.free() + space.used(), area.end - area.start);
    assert!(space.used() >= taken.values().sum());
    if let Some(extent) = space.allocate(ALLOC_UNIT + 1) {
        assert!(extent.offset >= area.start && extent.offset + extent.len <= area.end);
        assert!(extent.len == 2 * ALLOC_UNIT && is_apart(&taken, &extent));
    }
}

/// Asserts what a tree of extensions promises.
fn tree_promises(plan: &Plan, tree: &Tree) {
    let (mut dirs, mut objects) = (HashSet::from([NO_ENTRY]), BTreeMap::new());
    let mut seen = HashSet::new();
    let walked = tree.walk(NO_ENTRY, |path, listed| {
        let Listed { slot, name, object } = listed;
        assert!(path.len() <= MAX_LONG_PATH && !name.component.as_bytes().is_empty());
        assert!(dirs.contains(&name.parent), "a name before its directory");
        assert!(seen.insert((name.parent, name.component.clone())), "a name twice");
        assert_eq!(tree.look_up(path), Some(slot));
        assert!(path != STORE_DIR.as_bytes() && path != META_DIR.as_bytes());
        if let ObjectKind::Dir { .. } = object.kind {
            assert!(dirs.insert(name.object), "a directory has two names");
        }
        *objects.entry(name.object).or_insert(0) += 1;
        Ok::<(), ()>(())
    });
    assert!(walked.is_ok());
    // Slot and first page of each piece, and the page behind it.
    let mut pages = BTreeMap::new();
    for (slot, links) in objects {
        let object = tree.object(slot).expect("it has just been walked");
        assert_eq!(object.links, links);
        for piece in object.pieces() {
            let holder = plan.nodes().iter().find(|node| node.slot == piece.slot);
            let holder = holder.expect("a piece of a file that is not there");
            let NodeKind::File { size, .. } = holder.kind else { panic!("a piece of a directory") };
            assert!(holder.path.as_bytes().starts_with(STORE_DIR.as_bytes()));
            let end = piece.page + piece.pages;
            assert!(piece.pages > 0 && end <= size.div_ceil(PAGE));
            assert!(pages.insert((piece.slot, piece.page), end).is_none(), "a page twice");
        }
    }
    for (((slot, _), end), ((next_slot, page), _)) in pages.iter().zip(pages.iter().skip(1)) {
        assert!(slot != next_slot || end <= page, "pieces overlap");
    }
    for run in tree.free_runs() {
        let end = run.page + run.pages;
        let before = pages.range(..(run.slot, end)).next_back();
        let apart = before.is_none_or(|((slot, _), end)| *slot != run.slot || *end <= run.page);
        assert!(apart && run.pages > 0, "a page in use is free");
    }
    let store = tree.store_use();
    assert_eq!(store.used + store.free + store.retired, store.bytes);
}

/// Whether an extent overlaps none of the taken ones, given as offsets and lengths.
fn is_apart(taken: &BTreeMap<u64, u64>, extent: &Extent) -> bool {
    let before = taken.range(..extent.offset + extent.len).next_back();
    before.is_none_or(|(offset, len)| offset + len <= extent.offset)
}

/// Appends a directory if that is allowed.
fn append(media: &InMemory, before: &[Node]) {
    let contents = Contents::read(media).expect("it was readable a moment ago");
    let (damaged, log_len) = (contents.plan.stopped.is_some(), contents.superblock.log_len);
    let area = contents.superblock.data_area(media.len());
    let mut log = Log::open(media, log_len).expect("it was readable a moment ago");
    if damaged || log.prepare_append().is_err() {
        return;
    }
    let recovered = Plan::read(&log, area, contents.plan.has_extensions());
    if recovered.stopped.is_some() {
        return;
    }
    // What it publishes may delete.
    let kept = recovered.nodes().starts_with(before) || !recovered.deletions_since(0).is_empty();
    assert!(kept, "recovery changed what was published");
    let Some(name) = (0..).find_map(|number: u32| {
        let path = RelPath::new(format!("new {number}").as_bytes()).ok()?;
        let in_tree = recovered.tree().look_up(path.as_bytes()).is_some();
        (recovered.get(&path).is_none() && !in_tree).then_some(path)
    }) else {
        return;
    };
    let mut body = MkdirBody::new_zeroed();
    body.path = name.to_field().expect("a short path");
    let mut bytes = [0; size_of::<Body>()];
    bytes.copy_from_slice(body.as_bytes());
    let full = log.free_slots() == 0;
    assert_eq!(log.append(&[(EntryKind::Mkdir as u32, bytes)]).is_err(), full);
    let after = Contents::read(media).expect("appending damaged the header");
    assert!(after.log.counter_problem().is_none());
    assert!(after.plan.nodes().starts_with(recovered.nodes()));
    assert_eq!(after.plan.get(&name).is_some(), !full);
}
