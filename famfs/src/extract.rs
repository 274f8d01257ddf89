// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Copying files and directories out of a file system, to a directory of the host.
//!
//! What a log says about owners and modes is another system's claim: set-user-ID and
//! set-group-ID bits are never taken over, owners only by root.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::path::RelPath;
use crate::replay::{Node, NodeKind, Owner, Plan};
use crate::sys::dax::Access;
use crate::volume::{COPY_STEP, Volume, steps};

/// Permission bits that the host takes over.
const MODE_BITS: u32 = 0o777;
/// Owner of a directory that is made for the root of a file system, which has no log entry.
const ROOT_OWNER: Owner = Owner { uid: 0, gid: 0, mode: 0o755 };

/// Why something is not copied out.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The log does not have it.
    #[error("\"{0}\" is not in the log")]
    Missing(RelPath),
    /// A directory without `--recursive`.
    #[error("{} is a directory; use --recursive to copy it", .0.as_ref().map_or("/".to_owned(), |p| format!("\"{p}\"")))]
    NotRecursive(Option<RelPath>),
    /// Something else has the target's name.
    #[error("{} is there and no {expected}", path.display())]
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
        /// What the system says.
        source: io::Error,
    },
    /// The host refused.
    #[error("cannot {action} {}", path.display())]
    Host {
        /// What was tried.
        action: &'static str,
        /// The file or directory of the host.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The user asked to stop.
    #[error("interrupted; what was complete is kept")]
    Interrupted,
}

/// One file or directory to make on the host.
pub struct Item<'p> {
    /// What the log says; `None` for the root.
    node: Option<&'p Node>,
    /// Where it goes.
    pub target: PathBuf,
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
        move |source| ExtractError::Host { action, path: self.target.clone(), source }
    }

    /// Its path in the file system; `None` for the root.
    pub fn path(&self) -> Option<&RelPath> {
        self.node.map(|node| &node.path)
    }
}

/// Lists what is to be made for a source: a path of the log (`None` is the root) that becomes
/// `target`, and with `recursive` all that is below it, directories first.
pub fn list<'p>(
    plan: &'p Plan,
    source: Option<&RelPath>,
    target: &Path,
    recursive: bool,
) -> Result<Vec<Item<'p>>, ExtractError> {
    let node = match source {
        None => None,
        Some(path) => Some(plan.get(path).ok_or_else(|| ExtractError::Missing(path.clone()))?),
    };
    let mut items = vec![Item { node, target: target.to_owned() }];
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
            Item { node: Some(node), target: target.join(rest) }
        }));
    }
    items.iter().try_for_each(check_target)?;
    Ok(items)
}

/// Refuses a target that is something else; links are not followed.
fn check_target(item: &Item<'_>) -> Result<(), ExtractError> {
    let Ok(metadata) = fs::symlink_metadata(&item.target) else { return Ok(()) };
    let (fits, expected) = match item.size() {
        Some(_) => (metadata.is_file(), "regular file"),
        // The directory that the user named may be reached through a link.
        None if item.target.is_dir() => (true, "directory"),
        None => (false, "directory"),
    };
    match fits {
        true => Ok(()),
        false => Err(ExtractError::InTheWay { path: item.target.clone(), expected }),
    }
}

/// Makes everything on the host. `progress` is told the bytes of each step, and answers whether
/// to go on. Returns the numbers of files and directories that were made.
pub fn extract(
    volume: &dyn Volume,
    items: &[Item<'_>],
    mut progress: impl FnMut(u64) -> bool,
) -> Result<(u64, u64), ExtractError> {
    let mut made = Vec::new();
    let mut files = 0;
    for item in items {
        match item.node.filter(|_| item.size().is_some()) {
            Some(node) => {
                make_file(volume, node, item, &mut progress)?;
                files += 1;
            }
            None if make_dir(&item.target).map_err(item.error("make directory"))? => {
                made.push(item);
            }
            None => {}
        }
    }
    // Last, because a directory's mode may forbid making what is in it; from the bottom up.
    for item in made.iter().rev() {
        let owner = item.node.map_or(ROOT_OWNER, |node| node.owner);
        File::open(&item.target)
            .and_then(|dir| set_owner(&dir, owner))
            .map_err(item.error("set the owner of"))?;
    }
    Ok((files, made.len() as u64))
}

fn make_file(
    volume: &dyn Volume,
    node: &Node,
    item: &Item<'_>,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<(), ExtractError> {
    // Under its own name only when it is complete; the name cannot be guessed, nor a link.
    let temporary = item.target.with_file_name(format!(".famfs-{}", Uuid::new_v4()));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(item.error("make"))?;
    let filled = fill(volume, node, &file, progress, &item.error("write")).and_then(|()| {
        set_owner(&file, node.owner).map_err(item.error("set the owner of"))?;
        fs::rename(&temporary, &item.target).map_err(item.error("make"))
    });
    filled.inspect_err(|_| {
        // The error that led here is the one to tell.
        let _ = fs::remove_file(&temporary);
    })
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
    let bytes = volume.open_file(&node.path, *size, map, Access::Read).map_err(read_error)?;
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

/// Makes a directory; false if it is there, and then used as it is.
fn make_dir(path: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true),
    }
}

fn set_owner(file: &File, owner: Owner) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::fchown(file, Some(owner.uid), Some(owner.gid))?;
    }
    file.set_permissions(Permissions::from_mode(owner.mode & MODE_BITS))
}
