// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Several paths of one file system, for the commands that change names and attributes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use famfs::format::path::RelPath;
use famfs::replay::tree::Tree;
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::tree::resolve::LastLink;
use famfs::sys::dax::Access;

use crate::place::{Place, check_dir, locate, locate_link, mounted_path, names_dir, pool_path};

/// Finds paths in the pool, or in the mounted famfs that the first of them is in.
pub struct Operands<'p> {
    pool: Option<&'p Path>,
    /// Where the famfs is mounted.
    mount_point: Option<PathBuf>,
}

/// Where names go to.
pub enum Destination {
    /// Into a directory, with their old names; `None` is the root.
    Into(Option<RelPath>),
    /// To this path.
    As(RelPath),
}

impl<'p> Operands<'p> {
    /// Opens the file system of a path, to change it.
    pub fn open(pool: Option<&'p Path>, path: &Path) -> Result<(Place, Self)> {
        let place = Place::open_link(pool, Some(path), Access::Write)?;
        let mount_point = match pool {
            Some(_) => None,
            None => Some(locate_link(path)?.mount.mount_point),
        };
        Ok((place, Self { pool, mount_point }))
    }

    /// The path in the tree that an argument leads to; `None` is the root. It need not exist.
    pub fn find(&self, tree: &Tree, arg: &Path, last: LastLink) -> Result<Option<RelPath>> {
        let last = if names_dir(arg) { LastLink::Follow } else { last };
        let path = match self.pool {
            Some(_) => pool_path(arg)?,
            None => {
                let found = match last {
                    LastLink::Follow => locate(arg)?,
                    LastLink::Keep => locate_link(arg)?,
                };
                let at = &found.mount.mount_point;
                if let Some(first) = self.mount_point.as_ref().filter(|first| *first != at) {
                    let (arg, at, first) = (arg.display(), at.display(), first.display());
                    bail!("{arg} is on {at}, expected all paths to be on {first}");
                }
                mounted_path(&found)?
            }
        };
        // In a mount, only links that lead nowhere are left.
        let Some(path) = path else { return Ok(None) };
        let path = tree.resolve(&path, last)?;
        if names_dir(arg) {
            check_dir(tree, path.as_ref())?;
        }
        Ok(path)
    }

    /// The path of a name itself, for commands that move or delete names: a link at its end is not
    /// followed, whatever the argument ends with. The root has no name.
    pub fn name(&self, tree: &Tree, arg: &Path) -> Result<RelPath> {
        let found = self.find(tree, bare(arg), LastLink::Keep)?;
        let path =
            found.with_context(|| format!("{} is the root of the file system", arg.display()))?;
        if names_dir(arg) {
            check_dir(tree, Some(&path))?;
        }
        Ok(path)
    }

    /// The same for a name that must exist.
    pub fn existing(&self, tree: &Tree, arg: &Path) -> Result<RelPath> {
        let path = self.name(tree, arg)?;
        match tree.get(&path) {
            Some(_) => Ok(path),
            None => bail!("\"{path}\" does not exist"),
        }
    }

    /// Where `sources` names are to go: into a directory, or one of them to a new name. A link at
    /// the end counts as itself, unless a slash follows it.
    pub fn destination(&self, tree: &Tree, arg: &Path, sources: usize) -> Result<Destination> {
        let Some(path) = self.find(tree, arg, LastLink::Keep)? else {
            return Ok(Destination::Into(None));
        };
        let found = tree.get(&path).map(|listed| &listed.object.kind);
        match found {
            Some(ObjectKind::Dir { .. }) => Ok(Destination::Into(Some(path))),
            None if names_dir(arg) || sources > 1 => {
                bail!("no directory \"{path}\": make it with `famfs mkdir`")
            }
            Some(ObjectKind::Symlink { .. }) if sources > 1 => bail!(
                "\"{path}\" is a symbolic link: add a slash to mean the directory that it leads to"
            ),
            Some(_) if names_dir(arg) || sources > 1 => {
                bail!("\"{path}\" is not a directory")
            }
            _ => Ok(Destination::As(path)),
        }
    }
}

impl Destination {
    /// The new path of a thing with this name.
    pub fn path(&self, name: &[u8]) -> Result<RelPath> {
        Ok(match self {
            Self::As(path) => path.clone(),
            Self::Into(None) => RelPath::new(name)?,
            Self::Into(Some(dir)) => RelPath::new(&[dir.as_bytes(), b"/", name].concat())?,
        })
    }
}

/// A path without the slashes and dots at its end.
fn bare(path: &Path) -> &Path {
    let mut bytes = path.as_os_str().as_bytes();
    while let Some(shorter) = bytes.strip_suffix(b"/").or_else(|| bytes.strip_suffix(b"/.")) {
        bytes = shorter;
    }
    match bytes.is_empty() {
        true => path,
        false => Path::new(OsStr::from_bytes(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_that_means_a_directory_is_left_out() {
        for (path, expected) in
            [("a/", "a"), ("a/b/.", "a/b"), ("a//./", "a"), ("/", "/"), (".", "."), ("a.", "a.")]
        {
            assert_eq!(bare(Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
