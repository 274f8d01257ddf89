// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A log with something of everything, and what tests ask of a plan.

use famfs::format::extension::NO_ENTRY;
use famfs::format::piece::Piece;
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::{Contents, Plan};
use famfs::text::error_report::one_line;

use crate::log::{ExtendedLog, dir, file, symlink};

pub const ROOT: u64 = NO_ENTRY;

/// Pages of a file entry as the first ones of a file.
pub fn piece(slot: u64, page: u64, at: u64, pages: u64) -> Piece {
    Piece { slot, page, at, pages }
}

/// Paths of a tree with what they name.
pub fn paths(plan: &Plan) -> Vec<String> {
    let tree = plan.tree();
    let mut paths = Vec::new();
    tree.walk(ROOT, |path, listed| {
        let path = String::from_utf8_lossy(path).into_owned();
        paths.push(match &listed.object.kind {
            ObjectKind::Dir { .. } => format!("{path}/"),
            ObjectKind::File { size, .. } => format!("{path} {size}"),
            ObjectKind::Symlink { target, .. } => {
                format!("{path} -> {}", String::from_utf8_lossy(target))
            }
        });
        Ok::<(), ()>(())
    })
    .unwrap();
    paths
}

/// Why entries were left out, with their slots.
pub fn refused(plan: &Plan) -> Vec<(u64, String)> {
    let problem = |error: &famfs::replay::EntryError| (error.slot, one_line(&error.problem));
    plan.refused.iter().map(problem).collect()
}

/// Asserts that the plan refuses nothing.
pub fn clean(contents: &Contents<'_>) {
    assert_eq!(refused(&contents.plan), []);
    assert!(contents.plan.stopped.is_none());
}

/// A log with something of everything, for entries to go wrong behind it.
pub struct Prepared {
    pub log: ExtendedLog,
    pub store: u64,
    pub interleaved: u64,
    pub plain: u64,
    pub dir: u64,
    pub inner: u64,
    pub file: u64,
    pub link: u64,
}

pub fn prepared() -> Prepared {
    let mut log = ExtendedLog::new(true);
    log.store();
    let store = log.file(".famfs/0", 1, 0);
    let interleaved = log.file(".famfs/1", 1, 2);
    let plain = log.file("plain", 1, 0);
    let dir_slot = log.name(&dir(ROOT, b"dir"));
    let inner = log.name(&dir(dir_slot, b"inner"));
    let file_slot = log.name(&file(inner, b"file", 5000, &[piece(store, 4, 0, 2)]));
    let link_slot = log.name(&symlink(ROOT, b"link", b"dir"));
    Prepared {
        log,
        store,
        interleaved,
        plain,
        dir: dir_slot,
        inner,
        file: file_slot,
        link: link_slot,
    }
}
