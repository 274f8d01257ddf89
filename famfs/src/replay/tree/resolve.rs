// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Follows symbolic links within a tree, as the kernel follows them in a mount.

use super::Tree;
use super::object::ObjectKind;
use crate::format::component::Component;
use crate::format::extension::NO_ENTRY;
use crate::format::path::{PathError, RelPath};
use crate::text::terminal::escape_name as escape;

/// Highest number of links on the way to a path, as in the kernel.
const MAX_LINKS: usize = 40;

/// Whether a symbolic link at the end of a path is followed. Those before it always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    /// The path stands for what the link leads to.
    Follow,
    /// The path stands for the link.
    Keep,
}

/// Why a path leads nowhere in a file system.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A link's target is outside.
    #[error(
        "symbolic link \"{link}\" leads to \"{target}\", which is outside of the file system: only \
         a mount can follow it"
    )]
    Outside {
        /// Path of the link.
        link: String,
        /// Its target.
        target: String,
    },
    /// Links that lead to links.
    #[error(
        "more than {MAX_LINKS} symbolic links on the way to \"{path}\", the last one \"{link}\""
    )]
    TooMany {
        /// The path.
        path: RelPath,
        /// Path of the last link.
        link: String,
    },
    /// A link's target goes up from what is no directory.
    #[error("symbolic link \"{link}\" leads to \"{target}\", which does not exist")]
    NotThere {
        /// Path of the link.
        link: String,
        /// Its target.
        target: String,
    },
    /// A link's target is no path.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// A component on the way: its name, and what is there.
struct Step {
    name: Vec<u8>,
    object: Option<u64>,
}

impl Tree {
    /// The path that a path leads to; `None` is the root. What does not exist stays as it is.
    pub fn resolve(&self, path: &RelPath, last: LastLink) -> Result<Option<RelPath>, ResolveError> {
        let mut left: Vec<Vec<u8>> = reversed(path.as_bytes());
        let mut steps: Vec<Step> = Vec::new();
        // The link that was followed last, and where it leads.
        let mut link = (String::new(), String::new());
        let mut links = 0;
        while let Some(name) = left.pop() {
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    let (link, target) = link.clone();
                    match steps.pop() {
                        None => return Err(ResolveError::Outside { link, target }),
                        Some(step) if self.is_dir(step.object) => {}
                        Some(_) => return Err(ResolveError::NotThere { link, target }),
                    }
                    continue;
                }
                _ => {}
            }
            let dir = steps.last().map_or(Some(NO_ENTRY), |step| step.object);
            let object = dir.and_then(|dir| self.child(dir, &name));
            steps.push(Step { name, object });
            if left.is_empty() && last == LastLink::Keep {
                break;
            }
            let Some(ObjectKind::Symlink { target, .. }) = self.kind(object) else { continue };
            link = (escape(&joined(&steps)), escape(target));
            links += 1;
            if links > MAX_LINKS {
                return Err(ResolveError::TooMany { path: path.clone(), link: link.0 });
            }
            if target.first() == Some(&b'/') {
                return Err(ResolveError::Outside { link: link.0, target: link.1 });
            }
            steps.pop();
            left.extend(reversed(target));
        }
        if steps.is_empty() { Ok(None) } else { Ok(Some(RelPath::new(&joined(&steps))?)) }
    }

    fn child(&self, dir: u64, name: &[u8]) -> Option<u64> {
        let slot = self.find(dir, &Component::new(name).ok()?)?;
        Some(self.name(slot)?.object)
    }

    fn kind(&self, object: Option<u64>) -> Option<&ObjectKind> {
        Some(&self.object(object?)?.kind)
    }

    fn is_dir(&self, object: Option<u64>) -> bool {
        matches!(self.kind(object), Some(ObjectKind::Dir { .. }))
    }
}

fn reversed(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec).collect()
}

fn joined(steps: &[Step]) -> Vec<u8> {
    let names: Vec<&[u8]> = steps.iter().map(|step| &step.name[..]).collect();
    names.join(&b'/')
}
