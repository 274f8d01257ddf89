// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Copies files, directories and links out of a file system, to a directory of the host.
//!
//! Owners and modes in a log are another system's claim: set-user-ID and set-group-ID bits are kept
//! only if the user asks for that, and owners only by root. Below the directory that the user
//! named, no symbolic link is followed, whoever made it, and when.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use crate::format::extension::NO_ENTRY;
use crate::format::path::RelPath;
use crate::kernel::beneath::Root;
use crate::replay::tree::Tree;
use crate::replay::tree::list::Entry;
use crate::replay::tree::object::{Object, ObjectKind};
use crate::replay::{Owner, Time};
use crate::system::output_file::temporary_name;
use crate::text::terminal::shown;
use crate::write::reading::Reading;
use crate::write::volume::{COPY_STEP, Volume};

/// Bits that let a program run with its file's owner or group, and pass a directory's group on.
pub const SET_ID_BITS: u32 = 0o6000;
/// All bits that chmod(2) knows.
const MODE_BITS: u32 = 0o7777;
/// Why something cannot be copied out.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The log does not have it.
    #[error("\"{0}\" does not exist")]
    Missing(RelPath),
    /// A directory without `--recursive`.
    #[error("{} is a directory; use --recursive to copy it", .0.as_ref().map_or("/".to_owned(), |p| format!("\"{p}\"")))]
    NotRecursive(Option<RelPath>),
    /// Something else has the target's name.
    #[error("{} exists and is not a {expected}", shown(path))]
    InTheWay {
        /// The target.
        path: PathBuf,
        /// "directory", "regular file" or "symbolic link".
        expected: &'static str,
    },
    /// A file of the file system could not be read.
    #[error("cannot read \"{path}\"")]
    Read {
        /// The file.
        path: RelPath,
        /// The error of the system.
        source: io::Error,
    },
    /// The host refused.
    #[error("cannot {action} {}", shown(path))]
    Host {
        /// The action that failed.
        action: &'static str,
        /// The file or directory of the host.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The user asked to stop.
    #[error("interrupted; what was complete is kept")]
    Interrupted,
}

/// The directory that the user named, or the one that a named file goes into.
#[derive(Clone)]
pub struct Base {
    path: PathBuf,
    root: Arc<Root>,
}

impl Base {
    /// Opens a directory; an empty path is the working directory. Links that lead to it are the
    /// user's own, and are followed.
    pub fn open(path: &Path) -> Result<Self, ExtractError> {
        let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, here, flags, Mode::empty()).map_err(|errno| {
            let (action, path) = ("open the directory", path.to_owned());
            ExtractError::Host { action, path, source: errno.into() }
        })?;
        Ok(Self { path: path.to_owned(), root: Arc::new(Root::with_mounts(dir)) })
    }
}

/// One file, directory or symbolic link to make on the host.
pub struct Item<'p> {
    /// Its path in the file system; `None` for the root.
    path: Option<RelPath>,
    /// Slot that made it.
    slot: u64,
    object: &'p Object,
    base: Base,
    /// Where it goes, below the base; empty for the base itself.
    below: PathBuf,
    /// What is there, which the item replaces or uses.
    pub existing: Option<Metadata>,
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Names of files that were made under another name before.
    pub hard_links: u64,
    /// Those that lost set-user-ID or set-group-ID bits.
    pub without_set_id: Vec<RelPath>,
}

impl Item<'_> {
    /// Size of a file in bytes; `None` for anything else.
    pub fn size(&self) -> Option<u64> {
        match self.object.kind {
            ObjectKind::File { size, .. } => Some(size),
            _ => None,
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.object.kind, ObjectKind::Dir { .. })
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        matches!(self.object.kind, ObjectKind::Symlink { .. })
    }

    fn error(&self, action: &'static str) -> impl Fn(io::Error) -> ExtractError + '_ {
        move |source| ExtractError::Host { action, path: self.target(), source }
    }

    /// Where it goes, for messages.
    pub fn target(&self) -> PathBuf {
        match self.below.as_os_str().is_empty() {
            true => self.base.path.clone(),
            false => self.base.path.join(&self.below),
        }
    }

    /// Its path in the file system; `None` for the root.
    pub fn path(&self) -> Option<&RelPath> {
        self.path.as_ref()
    }

    fn name(&self) -> &OsStr {
        self.below.file_name().unwrap_or_default()
    }

    fn parent(&self) -> Result<OwnedFd, ExtractError> {
        self.base.root.open_parent(&self.below).map_err(self.error("make"))
    }

    /// Gives what was made as `temporary` its own name. Until then its name cannot be guessed, so
    /// that it cannot be a link of somebody else.
    fn take_name(&self, dir: &OwnedFd, temporary: &OsStr) -> Result<(), ExtractError> {
        let renamed = rustix::fs::renameat(dir, temporary, dir, self.name());
        renamed.map_err(|errno| self.error("make")(errno.into()))
    }
}

/// Lists what to make for a source: a path of the log (`None` is the root) that becomes `target`
/// below the base, or the base itself if that is empty; with `recursive` also everything below it,
/// directories first.
pub fn list<'p>(
    tree: &'p Tree,
    source: Option<&RelPath>,
    (base, target): (&Base, &Path),
    recursive: bool,
) -> Result<Vec<Item<'p>>, ExtractError> {
    let item = |path: Option<RelPath>, slot, object, below| Item {
        path,
        slot,
        object,
        base: base.clone(),
        below,
        existing: None,
    };
    let mut entries = tree.at_and_below(source).into_iter();
    let mut items = Vec::new();
    match (source, tree.object(NO_ENTRY)) {
        (None, Some(root)) => items.push(item(None, NO_ENTRY, root, target.to_owned())),
        (None, None) => {}
        (Some(path), _) => {
            let Some(Entry { path, listed }) = entries.next() else {
                return Err(ExtractError::Missing(path.clone()));
            };
            let (slot, object) = (listed.name.object, listed.object);
            items.push(item(Some(path), slot, object, target.to_owned()));
        }
    }
    if items.iter().any(Item::is_dir) {
        if !recursive {
            return Err(ExtractError::NotRecursive(source.cloned()));
        }
        let skip = source.map_or(0, |path| path.as_bytes().len() + 1);
        items.extend(entries.map(|Entry { path, listed }| {
            let below = target.join(OsStr::from_bytes(&path.as_bytes()[skip..]));
            item(Some(path), listed.name.object, listed.object, below)
        }));
    }
    for item in &mut items {
        item.existing = existing(item)?;
    }
    Ok(items)
}

/// What is at the target. One of another kind is refused; links are not followed.
fn existing(item: &Item<'_>) -> Result<Option<Metadata>, ExtractError> {
    let in_the_way = |expected| ExtractError::InTheWay { path: item.target(), expected };
    let expected = match &item.object.kind {
        ObjectKind::Dir { .. } => "directory",
        ObjectKind::File { .. } => "regular file",
        ObjectKind::Symlink { .. } => "symbolic link",
    };
    if item.below.as_os_str().is_empty() {
        let found = item.base.root.as_fd().try_clone_to_owned();
        let found = found.and_then(|dir| File::from(dir).metadata());
        let found = found.map_err(item.error("examine"))?;
        return if item.is_dir() { Ok(Some(found)) } else { Err(in_the_way(expected)) };
    }
    // The link itself is opened only with the directory it is in, of which no link is followed.
    let dir = match item.base.root.open_parent(&item.below) {
        Ok(dir) => dir,
        Err(err) => {
            return match Errno::from_io_error(&err) {
                Some(Errno::NOENT) => Ok(None),
                Some(Errno::LOOP | Errno::NOTDIR) => Err(in_the_way("directory")),
                _ => Err(item.error("examine")(err)),
            };
        }
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = match rustix::fs::openat(&dir, item.name(), flags, Mode::empty()) {
        Ok(found) => File::from(found).metadata().map_err(item.error("examine"))?,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(item.error("examine")(errno.into())),
    };
    let is_same = match &item.object.kind {
        ObjectKind::Dir { .. } => found.is_dir(),
        ObjectKind::File { .. } => found.is_file(),
        ObjectKind::Symlink { .. } => found.is_symlink(),
    };
    if is_same { Ok(Some(found)) } else { Err(in_the_way(expected)) }
}

/// A file that was made, and has more names.
struct First<'i, 'p> {
    item: &'i Item<'p>,
    /// Device and number of the inode.
    identity: (u64, u64),
}

/// Makes everything on the host, with set-user-ID and set-group-ID bits only if `set_id` is set.
/// `progress` gets the bytes of each step, and returns whether to go on.
pub fn extract(
    (volume, tree): (&dyn Volume, &Tree),
    items: &[Item<'_>],
    set_id: bool,
    mut progress: impl FnMut(u64) -> bool,
) -> Result<Done, ExtractError> {
    let mut dirs = Vec::new();
    let mut done = Done::default();
    let kept = if set_id { MODE_BITS } else { MODE_BITS & !SET_ID_BITS };
    let made = make_all((volume, tree), items, kept, (&mut dirs, &mut done), &mut progress);
    // Last, because a directory's mode may forbid making its contents, which also change its time;
    // from the bottom up. Those of a copy that ends early are right, too, for the next one.
    let mut finished = Ok(());
    for item in dirs.iter().rev() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let set = item
            .base
            .root
            .open(&item.below, flags, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|dir| set_attributes(&File::from(dir), item.object, kept))
            .map_err(item.error("set owner, mode and time of"));
        finished = finished.and(set);
    }
    made.and(finished).map(|()| done)
}

/// Makes everything. `dirs` gets the directories whose attributes are to be set at the end.
fn make_all<'i, 'p>(
    source: (&dyn Volume, &Tree),
    items: &'i [Item<'p>],
    kept: u32,
    (dirs, done): (&mut Vec<&'i Item<'p>>, &mut Done),
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<(), ExtractError> {
    let mut firsts: HashMap<u64, First<'i, 'p>> = HashMap::new();
    for item in items {
        let is_new = match &item.object.kind {
            ObjectKind::Dir { .. } => {
                let new = make_dir(item)?;
                done.directories += u64::from(new);
                dirs.extend((new || is_copy(item)).then_some(item));
                new
            }
            ObjectKind::Symlink { target, .. } => {
                make_symlink(item, target)?;
                done.symlinks += 1;
                false
            }
            ObjectKind::File { .. } => {
                let first = firsts.get(&item.slot);
                if first.map(|first| make_link(item, first)).transpose()? == Some(true) {
                    done.hard_links += 1;
                    continue;
                }
                let identity = make_file(source, item, kept, progress)?;
                if item.object.links > 1 {
                    firsts.insert(item.slot, First { item, identity });
                }
                done.files += 1;
                true
            }
        };
        if is_new && item.object.owner.mode & MODE_BITS & !kept != 0 {
            done.without_set_id.extend(item.path().cloned());
        }
    }
    Ok(())
}

/// Whether an existing directory is an earlier copy, whose time stays right after new contents. All
/// others are used as they are.
fn is_copy(item: &Item<'_>) -> bool {
    let is_base = item.below.as_os_str().is_empty();
    let existing = item.existing.as_ref().filter(|_| !is_base);
    existing.zip(item.object.mtime).is_some_and(|(existing, Time { sec, nsec })| {
        (existing.mtime(), existing.mtime_nsec()) == (sec, nsec.into())
    })
}

/// Makes a file; device and number of its inode.
fn make_file(
    (volume, tree): (&dyn Volume, &Tree),
    item: &Item<'_>,
    kept: u32,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<(u64, u64), ExtractError> {
    let (dir, temporary) = (item.parent()?, temporary_name());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, &temporary, flags, Mode::from_raw_mode(0o600))
        .map_err(|errno| item.error("make")(errno.into()))?;
    let file = File::from(file);
    let made = fill((volume, tree), item, &file, progress).and_then(|()| {
        set_attributes(&file, item.object, kept)
            .map_err(item.error("set owner, mode and time of"))?;
        item.take_name(&dir, &temporary)?;
        let metadata = file.metadata().map_err(item.error("examine"))?;
        Ok((metadata.dev(), metadata.ino()))
    });
    made.inspect_err(|_| discard(&dir, &temporary))
}

/// Removes what is not complete; the earlier error is the one to report.
fn discard(dir: &OwnedFd, temporary: &OsString) {
    let _ = rustix::fs::unlinkat(dir, temporary, AtFlags::empty());
}

fn fill(
    (volume, tree): (&dyn Volume, &Tree),
    item: &Item<'_>,
    file: &File,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<(), ExtractError> {
    let (ObjectKind::File { size, bytes }, Some(path)) = (&item.object.kind, &item.path) else {
        return Ok(());
    };
    let read_error = |source| ExtractError::Read { path: path.clone(), source };
    let bytes = Reading::open(volume, path, *size, &tree.memory(bytes, *size));
    let bytes = bytes.map_err(read_error)?;
    if bytes.is_sparse() {
        file.set_len(*size).map_err(item.error("write"))?;
    }
    let mut buf = vec![0; COPY_STEP];
    for range in bytes.data() {
        for offset in (range.start..range.end).step_by(COPY_STEP) {
            let len = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(COPY_STEP);
            let buf = &mut buf[..len];
            bytes.read(offset, buf).map_err(read_error)?;
            file.write_all_at(buf, offset).map_err(item.error("write"))?;
            if !progress(len as u64) {
                return Err(ExtractError::Interrupted);
            }
        }
    }
    Ok(())
}

/// Makes another name of a file; false if the file is no longer there under its first name, because
/// another one took it.
fn make_link(item: &Item<'_>, first: &First<'_, '_>) -> Result<bool, ExtractError> {
    let error = |errno: Errno| item.error("link")(errno.into());
    let old = match first.item.base.root.open_parent(&first.item.below) {
        Ok(old) => old,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(err) => return Err(first.item.error("link")(err)),
    };
    let (dir, temporary) = (item.parent()?, temporary_name());
    match rustix::fs::linkat(&old, first.item.name(), &dir, &temporary, AtFlags::empty()) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(error(errno)),
    }
    let linked = rustix::fs::statat(&dir, &temporary, AtFlags::SYMLINK_NOFOLLOW);
    let result = match linked {
        Ok(stat) if (stat.st_dev, stat.st_ino) == first.identity => {
            item.take_name(&dir, &temporary).map(|()| true)
        }
        Ok(_) => Ok(false),
        Err(errno) => Err(error(errno)),
    };
    // A rename to another name of the same file does nothing.
    discard(&dir, &temporary);
    result
}

fn make_symlink(item: &Item<'_>, target: &[u8]) -> Result<(), ExtractError> {
    let (dir, temporary) = (item.parent()?, temporary_name());
    rustix::fs::symlinkat(OsStr::from_bytes(target), &dir, &temporary)
        .map_err(|errno| item.error("make symbolic link")(errno.into()))?;
    let set = || -> Result<(), Errno> {
        let Owner { uid, gid, .. } = item.object.owner;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(&dir, &temporary, Some(uid), Some(gid), flags)?;
        }
        match item.object.mtime {
            Some(time) => rustix::fs::utimensat(&dir, &temporary, &times(time), flags),
            None => Ok(()),
        }
    };
    let made = set().map_err(|errno| item.error("set owner and time of")(errno.into()));
    made.and_then(|()| item.take_name(&dir, &temporary)).inspect_err(|_| discard(&dir, &temporary))
}

/// Makes a directory; false if it exists, and is used as it is.
fn make_dir(item: &Item<'_>) -> Result<bool, ExtractError> {
    if item.below.as_os_str().is_empty() {
        return Ok(false);
    }
    let dir = item.parent()?;
    match rustix::fs::mkdirat(dir.as_fd(), item.name(), Mode::from_raw_mode(0o700)) {
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(item.error("make directory")(errno.into())),
        Ok(()) => Ok(true),
    }
}

fn set_attributes(file: &File, object: &Object, kept: u32) -> io::Result<()> {
    let Owner { uid, gid, mode } = object.owner;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::fchown(file, Some(uid), Some(gid))?;
    }
    // After the owner, because changing that clears set-user-ID bits.
    file.set_permissions(Permissions::from_mode(mode & kept))?;
    match object.mtime {
        Some(time) => Ok(rustix::fs::futimens(file, &times(time))?),
        None => Ok(()),
    }
}

/// The time of the last change, without that of the last access.
fn times(Time { sec, nsec }: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: sec, tv_nsec: nsec.into() },
    }
}
