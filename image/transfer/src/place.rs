// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where sources go, by the rules of cp(1).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use famfs::kernel::beneath::Root;
use famfs::text::terminal::shown;

/// A name in an existing directory, which one source gets.
#[derive(Debug)]
pub struct Place {
    pub(crate) root: Root,
    /// The directory's path, for messages.
    pub(crate) dir: PathBuf,
    pub(crate) name: OsString,
}

/// Why there is no place for a source.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The directory does not exist or cannot be used.
    #[error("{}", shown(path))]
    Dir {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Several sources need a directory.
    #[error("{} is not a directory; several sources can only be copied into one", shown(.0))]
    Several(PathBuf),
    /// A source without a name cannot be in a directory.
    #[error("{} is a directory; name a file in it", shown(.0))]
    Unnamed(PathBuf),
    /// Two sources would get the same name.
    #[error("two sources have the name {}; copy them one by one", shown(Path::new(.0)))]
    Twice(OsString),
    /// A path without a name at its end.
    #[error("{} has no name to copy it under; name what is in it", shown(.0))]
    NoName(PathBuf),
}

/// The name that a source has at its destination: the last one of its path.
///
/// # Errors
/// There is none, as in `/` and `..`.
pub fn name_of(path: &Path) -> Result<&OsStr, PlaceError> {
    path.file_name().ok_or_else(|| PlaceError::NoName(path.to_owned()))
}

/// The places for sources with these names: in `target` if that is a directory, else `target`
/// itself. A target that is a symbolic link stands for what it leads to. A source without a name,
/// as of a stream, has an empty one.
///
/// # Errors
/// The directory does not exist, or the sources cannot be there.
pub fn places(target: &Path, names: &[OsString]) -> Result<Vec<Place>, PlaceError> {
    let failed = |source| PlaceError::Dir { path: target.to_owned(), source };
    let is_dir = match fs::metadata(target) {
        Ok(meta) => meta.is_dir(),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(failed(error)),
    };
    if is_dir && names.iter().any(|name| name.is_empty()) {
        return Err(PlaceError::Unnamed(target.to_owned()));
    }
    if is_dir {
        let mut seen = BTreeSet::new();
        if let Some(name) = names.iter().find(|name| !seen.insert(*name)) {
            return Err(PlaceError::Twice(name.clone()));
        }
        return names.iter().map(|name| place(target, name)).collect();
    }
    if names.len() > 1 {
        return Err(PlaceError::Several(target.to_owned()));
    }
    if target.as_os_str().as_bytes().ends_with(b"/") {
        return Err(failed(ErrorKind::NotADirectory.into()));
    }
    let target = match fs::symlink_metadata(target) {
        Ok(meta) if meta.is_symlink() => fs::canonicalize(target).map_err(failed)?,
        _ => target.to_owned(),
    };
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok(vec![place(parent, name_of(&target)?)?])
}

fn place(dir: &Path, name: &OsStr) -> Result<Place, PlaceError> {
    let failed = |source| PlaceError::Dir { path: dir.to_owned(), source };
    let file = File::open(dir).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_dir() {
        return Err(failed(ErrorKind::NotADirectory.into()));
    }
    Ok(Place { root: Root::with_mounts(file.into()), dir: dir.to_owned(), name: name.to_owned() })
}
