// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Copies files and directories out of a file system, to a directory of the host.
//!
//! Owners and modes in a log are another system's claim: set-user-ID and set-group-ID bits are kept
//! only if the user asks for that, and owners only by root. Below the directory that the user
//! named, no symbolic link is followed, whoever made it, and when.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::format::map::Memory;
use crate::format::path::RelPath;
use crate::kernel::beneath::Root;
use crate::replay::{Node, NodeKind, Owner, Plan};
use crate::sys::dax::Access;
use crate::system::output_file::temporary_name;
use crate::text::terminal::shown;
use crate::write::volume::{COPY_STEP, Volume, steps};

/// Bits that let a program run with its file's owner or group, and pass a directory's group on.
pub const SET_ID_BITS: u32 = 0o6000;
/// All bits that chmod(2) knows.
const MODE_BITS: u32 = 0o7777;
/// Owner of a directory that is made for the root of a file system, which has no log entry.
const ROOT_OWNER: Owner = Owner { uid: 0, gid: 0, mode: 0o755 };

/// Why something cannot be copied out.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The log does not have it.
    #[error("\"{0}\" is not in the log")]
    Missing(RelPath),
    /// A directory without `--recursive`.
    #[error("{} is a directory; use --recursive to copy it", .0.as_ref().map_or("/".to_owned(), |p| format!("\"{p}\"")))]
    NotRecursive(Option<RelPath>),
    /// Something else has the target's name.
    #[error("{} exists and is not a {expected}", shown(path))]
    InTheWay {
        /// The target.
        path: PathBuf,
        /// "directory" or "regular file".
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

/// One file or directory to make on the host.
pub struct Item<'p> {
    /// What the log says; `None` for the root.
    node: Option<&'p Node>,
    base: Base,
    /// Where it goes, below the base; empty for the base itself.
    below: PathBuf,
    /// Whether something is there, which the item replaces or uses.
    pub exists: bool,
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Those that lost set-user-ID or set-group-ID bits.
    pub without_set_id: Vec<RelPath>,
}

impl Item<'_> {
    /// Size of a file in bytes; `None` for a directory.
    pub fn size(&self) -> Option<u64> {
        match self.node.map(|node| &node.kind) {
            Some(NodeKind::File { size, .. }) => Some(*size),
            Some(NodeKind::Dir) | None => None,
        }
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

    fn owner(&self) -> Owner {
        self.node.map_or(ROOT_OWNER, |node| node.owner)
    }

    /// Its path in the file system; `None` for the root.
    pub fn path(&self) -> Option<&RelPath> {
        self.node.map(|node| &node.path)
    }
}

/// Lists what to make for a source: a path of the log (`None` is the root) that becomes `target`
/// below the base, or the base itself if that is empty; with `recursive` also everything below it,
/// directories first.
pub fn list<'p>(
    plan: &'p Plan,
    source: Option<&RelPath>,
    (base, target): (&Base, &Path),
    recursive: bool,
) -> Result<Vec<Item<'p>>, ExtractError> {
    let node = match source {
        None => None,
        Some(path) => Some(plan.get(path).ok_or_else(|| ExtractError::Missing(path.clone()))?),
    };
    let item = |node, below| Item { node, base: base.clone(), below, exists: false };
    let mut items = vec![item(node, target.to_owned())];
    if items[0].size().is_none() {
        if !recursive {
            return Err(ExtractError::NotRecursive(source.cloned()));
        }
        let skip = source.map_or(0, |path| path.as_bytes().len() + 1);
        let below = |node: &&Node| match source {
            None => true,
            Some(path) => node.path != *path && node.path.is_within(path),
        };
        let mut nodes: Vec<&Node> = plan.nodes().iter().filter(below).collect();
        nodes.sort_by(|a, b| a.path.as_path().cmp(b.path.as_path()));
        items.extend(nodes.into_iter().map(|node| {
            let rest = Path::new(std::ffi::OsStr::from_bytes(&node.path.as_bytes()[skip..]));
            item(Some(node), target.join(rest))
        }));
    }
    for item in &mut items {
        item.exists = is_there(item)?;
    }
    Ok(items)
}

/// Whether the target exists. One of another kind is refused; links are not followed.
fn is_there(item: &Item<'_>) -> Result<bool, ExtractError> {
    let in_the_way = |expected| ExtractError::InTheWay { path: item.target(), expected };
    if item.below.as_os_str().is_empty() {
        return match item.size() {
            Some(_) => Err(in_the_way("regular file")),
            None => Ok(true),
        };
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let found = match item.base.root.open(&item.below, flags, Mode::empty()) {
        Ok(found) => File::from(found).metadata().map_err(item.error("examine"))?,
        Err(Errno::NOENT) => return Ok(false),
        Err(Errno::LOOP | Errno::NOTDIR) => return Err(in_the_way("directory")),
        Err(errno) => return Err(item.error("examine")(errno.into())),
    };
    match item.size() {
        Some(_) if !found.is_file() => Err(in_the_way("regular file")),
        None if !found.is_dir() => Err(in_the_way("directory")),
        _ => Ok(true),
    }
}

/// Makes everything on the host, with set-user-ID and set-group-ID bits only if `set_id` is set.
/// `progress` gets the bytes of each step, and returns whether to go on.
pub fn extract(
    volume: &dyn Volume,
    items: &[Item<'_>],
    set_id: bool,
    mut progress: impl FnMut(u64) -> bool,
) -> Result<Done, ExtractError> {
    let mut made = Vec::new();
    let mut done = Done::default();
    let kept = if set_id { MODE_BITS } else { MODE_BITS & !SET_ID_BITS };
    for item in items {
        let is_new = match item.node.filter(|_| item.size().is_some()) {
            Some(node) => {
                make_file(volume, node, item, kept, &mut progress)?;
                done.files += 1;
                true
            }
            None => {
                let new = make_dir(item)?;
                made.extend(new.then_some(item));
                new
            }
        };
        if is_new && item.owner().mode & MODE_BITS & !kept != 0 {
            done.without_set_id.extend(item.path().cloned());
        }
    }
    // Last, because a directory's mode may forbid making its contents; from the bottom up.
    for item in made.iter().rev() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        item.base
            .root
            .open(&item.below, flags, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|dir| set_owner(&File::from(dir), item.owner(), kept))
            .map_err(item.error("set the owner of"))?;
    }
    done.directories = made.len() as u64;
    Ok(done)
}

fn make_file(
    volume: &dyn Volume,
    node: &Node,
    item: &Item<'_>,
    kept: u32,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<(), ExtractError> {
    // It gets its own name only when it is complete; until then its name cannot be guessed, so it
    // cannot be a link.
    let (dir, temporary) = (parent(item).map_err(item.error("make"))?, temporary_name());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, &temporary, flags, Mode::from_raw_mode(0o600))
        .map_err(|errno| item.error("make")(errno.into()))?;
    let file = File::from(file);
    let filled = fill(volume, node, &file, progress, &item.error("write")).and_then(|()| {
        set_owner(&file, node.owner, kept).map_err(item.error("set the owner of"))?;
        let name = item.below.file_name().unwrap_or_default();
        rustix::fs::renameat(&dir, &temporary, &dir, name)
            .map_err(|errno| item.error("make")(errno.into()))
    });
    filled.inspect_err(|_| {
        // The earlier error is the one to report.
        let _ = rustix::fs::unlinkat(&dir, &temporary, AtFlags::empty());
    })
}

fn parent(item: &Item<'_>) -> io::Result<OwnedFd> {
    item.base.root.open_parent(&item.below)
}

fn fill(
    volume: &dyn Volume,
    node: &Node,
    file: &File,
    progress: &mut dyn FnMut(u64) -> bool,
    write_error: &impl Fn(io::Error) -> ExtractError,
) -> Result<(), ExtractError> {
    let NodeKind::File { size, map } = &node.kind else { return Ok(()) };
    let read_error = |source| ExtractError::Read { path: node.path.clone(), source };
    let bytes = volume
        .open_file(&node.path, *size, &Memory::Map(map.clone()), Access::Read)
        .map_err(read_error)?;
    let mut buf = vec![0; COPY_STEP];
    for (offset, len) in steps(*size) {
        bytes.read(offset, &mut buf[..len]).map_err(read_error)?;
        file.write_all_at(&buf[..len], offset).map_err(write_error)?;
        if !progress(len as u64) {
            return Err(ExtractError::Interrupted);
        }
    }
    Ok(())
}

/// Makes a directory; false if it exists, and is used as it is.
fn make_dir(item: &Item<'_>) -> Result<bool, ExtractError> {
    if item.below.as_os_str().is_empty() {
        return Ok(false);
    }
    let name = item.below.file_name().unwrap_or_default();
    let made = parent(item)
        .and_then(|dir| Ok(rustix::fs::mkdirat(dir.as_fd(), name, Mode::from_raw_mode(0o700))?));
    match made {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true).map_err(item.error("make directory")),
    }
}

fn set_owner(file: &File, owner: Owner, kept: u32) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::fchown(file, Some(owner.uid), Some(owner.gid))?;
    }
    // After the owner, because changing that clears set-user-ID bits.
    file.set_permissions(Permissions::from_mode(owner.mode & kept))
}
