// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Groups of changes in a mounted tree: what a group puts into directories that were there before
//! it is made elsewhere in the mount, and appears as a whole at the end of the group. Files and
//! links that a group removes go then too, so that a new one takes the place of an old one in one
//! step. A move or the removal of a directory has what waits appear before it, and ends that.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags};
use rustix::io::Errno;

use crate::format::path::{META_DIR, RelPath};
use crate::kernel::apply::ApplyError;
use crate::kernel::sweep::names;
use crate::kernel::target::{Dir, Target};

/// Directory in [`META_DIR`] where the new names of a group wait.
const GROUP_DIR: &str = ".group";

/// A directory of a mounted tree, which need not be one of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(PathBuf);

impl Place {
    /// Where a path's last name is.
    pub fn of_parent(path: &RelPath) -> Self {
        let parent = path.as_path().parent().filter(|parent| !parent.as_os_str().is_empty());
        Self(parent.unwrap_or(Path::new(".")).to_owned())
    }

    fn waiting() -> Self {
        Self(Path::new(META_DIR).join(GROUP_DIR))
    }

    /// Opens it.
    pub fn open(&self, target: &Target<'_>) -> io::Result<Dir> {
        target.open_at(&self.0)
    }
}

/// A new name that waits.
#[derive(Debug)]
struct Waiting {
    /// Its name meanwhile.
    name: Vec<u8>,
    /// Slot of its name.
    slot: u64,
}

/// A group that is being carried out.
#[derive(Debug)]
pub struct Group {
    end: u64,
    /// By path.
    waiting: HashMap<RelPath, Waiting>,
    /// Where something is to go.
    going: HashSet<RelPath>,
}

/// What became of what waited.
#[derive(Debug, Default)]
pub struct Published {
    /// Number of names that are gone.
    pub removed: u64,
    /// What could not be done.
    pub errors: Vec<ApplyError>,
}

impl Group {
    /// A group that ends before slot `end`.
    pub fn new(end: u64) -> Self {
        Self { end, waiting: HashMap::new(), going: HashSet::new() }
    }

    /// The first slot behind it.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether something waits.
    pub fn is_used(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Where a path is now: a directory, and the name in it.
    pub fn place(&self, path: &RelPath) -> (Place, Vec<u8>) {
        if let Some(waiting) = self.waiting.get(path) {
            return (Place::waiting(), waiting.name.clone());
        }
        let name = path.name().to_vec();
        let Some((top, waiting)) = self.above(path) else { return (Place::of_parent(path), name) };
        let mut dir = Place::waiting().0.join(OsStr::from_bytes(&waiting.name));
        if let Some(rest) = path
            .parent()
            .and_then(|parent| Some(parent.as_path().strip_prefix(top.as_path()).ok()?.to_owned()))
        {
            dir.push(rest);
        }
        (Place(dir), name)
    }

    /// What waits and has a path below it, with its own path.
    fn above(&self, path: &RelPath) -> Option<(RelPath, &Waiting)> {
        let mut above = path.parent();
        while let Some(path) = above {
            if let Some(waiting) = self.waiting.get(&path) {
                return Some((path, waiting));
            }
            above = path.parent();
        }
        None
    }

    /// Whether a new name would be in a directory that was there before the group.
    pub fn is_top(&self, path: &RelPath) -> bool {
        self.above(path).is_none()
    }

    /// Has a new name wait.
    pub fn stage(&mut self, target: &Target<'_>, slot: u64, path: &RelPath) -> io::Result<()> {
        if self.waiting.is_empty() {
            make_waiting(target)?;
        }
        let name = slot.to_string().into_bytes();
        self.waiting.insert(path.clone(), Waiting { name, slot });
        Ok(())
    }

    /// Has a file or link stay until the end of the group; false if it is one of the group, which
    /// nobody sees yet.
    pub fn keep(&mut self, path: &RelPath) -> bool {
        let is_old = self.is_top(path) && !self.waiting.contains_key(path);
        is_old && self.going.insert(path.clone())
    }

    /// Whether what was at a path before the group is to go.
    pub fn is_going(&self, path: &RelPath) -> bool {
        self.going.contains(path)
    }

    /// Has what is at a path stay: it is what the group makes there already.
    pub fn stays(&mut self, path: &RelPath) {
        self.going.remove(path);
    }

    /// Has all that waits appear, in the order in which it was made, and what is to go be gone.
    /// What cannot is told, and made again from the log.
    pub fn publish(mut self, target: &Target<'_>) -> Published {
        let mut waiting: Vec<_> = self.waiting.into_iter().collect();
        waiting.sort_unstable_by_key(|(_, waiting)| waiting.slot);
        let mut published = Published::default();
        for (path, Waiting { name, slot }) in waiting {
            let replaces = self.going.remove(&path);
            if let Err(source) = appear(target, &name, &path, replaces) {
                let slot = Some(slot);
                published.errors.push(ApplyError::System { action: "make", path, slot, source });
            }
        }
        for path in self.going {
            match remove(target, &path) {
                Ok(removed) => published.removed += u64::from(removed),
                Err(source) => {
                    let (action, slot) = ("remove", None);
                    published.errors.push(ApplyError::System { action, path, slot, source });
                }
            }
        }
        published
    }
}

fn appear(target: &Target<'_>, name: &[u8], path: &RelPath, replaces: bool) -> io::Result<()> {
    let (from, to) = (Place::waiting().open(target)?, Place::of_parent(path).open(target)?);
    let rename = |flags| rustix::fs::renameat_with(&from, name, &to, path.name(), flags);
    if !replaces {
        return Ok(rename(RenameFlags::NOREPLACE)?);
    }
    match rename(RenameFlags::empty()) {
        // A directory and something else do not replace each other, but can change places.
        Err(Errno::NOTDIR | Errno::ISDIR) => {
            rename(RenameFlags::EXCHANGE)?;
            let old = rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let is_dir = FileType::from_raw_mode(old.st_mode) == FileType::Directory;
            remove_all(target, Place::waiting().0.join(OsStr::from_bytes(name)), is_dir)
        }
        renamed => Ok(renamed?),
    }
}

/// Removes a file or link; whether it was there.
fn remove(target: &Target<'_>, path: &RelPath) -> io::Result<bool> {
    match target.root().remove(path, false) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

/// Has `make` make something where nobody sees it, which then takes the place of what is at a path.
pub fn replace(
    target: &Target<'_>,
    path: &RelPath,
    slot: u64,
    make: impl FnOnce(&Dir, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    make_waiting(target)?;
    let name = slot.to_string();
    make(&Place::waiting().open(target)?, name.as_bytes())?;
    appear(target, name.as_bytes(), path, true)
}

/// Makes the directory of what waits, if it is not there.
fn make_waiting(target: &Target<'_>) -> io::Result<()> {
    let path = Place::waiting().0;
    match rustix::fs::mkdirat(target.root(), &path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// Removes what a player that was killed has left waiting.
pub fn clear_waiting(target: &Target<'_>) -> io::Result<()> {
    remove_all(target, Place::waiting().0, true)
}

/// Removes what is at a path, with all that is below it, if it is there. What cannot be removed
/// keeps nothing else; the first such error is returned.
fn remove_all(target: &Target<'_>, path: PathBuf, is_dir: bool) -> io::Result<()> {
    let mut found = vec![(path, is_dir)];
    let mut next = 0;
    while let Some((path, is_dir)) = found.get(next).cloned() {
        next += 1;
        if !is_dir {
            continue;
        }
        // What cannot be listed cannot be removed, which is told then.
        let names = target.open_at(&path).and_then(names).unwrap_or_default();
        for (name, kind) in names {
            found.push((path.join(OsStr::from_bytes(&name)), kind == FileType::Directory));
        }
    }
    let mut first = Ok(());
    for (path, is_dir) in found.into_iter().rev() {
        match target.root().remove_at(&path, is_dir) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => first = first.and(Err(err)),
            _ => {}
        }
    }
    first
}
