// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Removes what is in a mounted tree but not in the log: what could not be removed or moved when
//! its entry was carried out, and what a command that was killed left.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::format::component::Component;
use crate::format::extension::NO_ENTRY;
use crate::format::path::{META_DIR, RelPath};
use crate::kernel::apply::{Applied, ApplyError};
use crate::kernel::target::Target;
use crate::replay::tree::Tree;
use crate::replay::tree::object::ObjectKind;

/// Removes all names that a tree does not have. What a tree has there of another kind stays.
pub fn sweep(target: &Target<'_>, tree: &Tree) -> Applied {
    let mut applied = Applied::default();
    let mut left: Vec<(Option<RelPath>, u64)> = vec![(None, NO_ENTRY)];
    while let Some((path, object)) = left.pop() {
        let names = match list(target, path.as_ref()) {
            Ok(names) => names,
            Err(err) if is_elsewhere(&err) => continue,
            Err(source) => {
                applied.errors.extend(path.map(|path| error("read the directory", path, source)));
                continue;
            }
        };
        for (name, kind) in names {
            let Some(inside) = join(path.as_ref(), &name) else { continue };
            let known = Component::new(&name).ok().and_then(|name| tree.find(object, &name));
            match known.and_then(|slot| tree.listed(slot)) {
                Some(listed) => {
                    if kind == FileType::Directory
                        && matches!(listed.object.kind, ObjectKind::Dir { .. })
                    {
                        left.push((Some(inside), listed.name.object));
                    }
                }
                None => remove(target, inside, kind, &mut applied),
            }
        }
    }
    applied
}

/// Removes a name and all that is below it.
fn remove(target: &Target<'_>, path: RelPath, kind: FileType, applied: &mut Applied) {
    let mut found = vec![(path, kind)];
    let mut next = 0;
    while let Some((path, kind)) = found.get(next).cloned() {
        next += 1;
        if kind == FileType::Directory {
            // What cannot be listed cannot be removed, which is told then.
            let names = list(target, Some(&path)).unwrap_or_default();
            let names = names.into_iter();
            found.extend(names.filter_map(|(name, kind)| Some((join(Some(&path), &name)?, kind))));
        }
    }
    // A directory is before what is in it.
    for (path, kind) in found.into_iter().rev() {
        match target.root().remove(&path, kind == FileType::Directory) {
            Ok(()) => applied.removed += 1,
            Err(source) => applied.errors.push(error("remove", path, source)),
        }
    }
}

fn error(action: &'static str, path: RelPath, source: io::Error) -> ApplyError {
    ApplyError::System { action, path, slot: None, source }
}

/// Whether a directory is not there, which is not for the sweep to report.
fn is_elsewhere(err: &io::Error) -> bool {
    let known = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::XDEV];
    known.iter().any(|known| err.raw_os_error() == Some(known.raw_os_error()))
}

fn join(dir: Option<&RelPath>, name: &[u8]) -> Option<RelPath> {
    let path = match dir {
        Some(dir) => [dir.as_bytes(), b"/", name].concat(),
        None => name.to_vec(),
    };
    // Where the files of superblock and log are is no path.
    RelPath::new(&path).ok()
}

/// Names in a directory with their kinds.
fn list(target: &Target<'_>, path: Option<&RelPath>) -> io::Result<Vec<(Vec<u8>, FileType)>> {
    let dir = target.open(path)?;
    names(&dir)
}

/// Names in an open directory with their kinds.
pub fn names(dir: impl AsFd) -> io::Result<Vec<(Vec<u8>, FileType)>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), entry.file_type()));
        }
    }
    Ok(names)
}

/// Whether nothing of a log is in a tree.
pub fn is_empty(target: &Target<'_>) -> io::Result<bool> {
    Ok(names(target.open(None)?)?.iter().all(|(name, _)| name == META_DIR.as_bytes()))
}
