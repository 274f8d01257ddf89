// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files that will take the place of others in a mount: they are made where no path of the log
//! leads, and put in place when their entries are published.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use crate::format::path::{META_DIR, RelPath};
use crate::kernel::sweep::names;
use crate::kernel::target::{Dir, Target};

/// Directory in [`META_DIR`] of the files that wait.
const ASIDE_DIR: &str = ".new";

/// The files of a session that wait.
#[derive(Debug, Default)]
pub struct Aside {
    /// Their names meanwhile, by the paths that they will have.
    waiting: HashMap<RelPath, String>,
    /// Number of names given so far.
    given: u64,
}

impl Aside {
    /// Gives the file of a path a name meanwhile, and opens the directory for it.
    pub fn add(&mut self, target: &Target<'_>, path: &RelPath) -> io::Result<(Dir, String)> {
        if self.given == 0 {
            match rustix::fs::mkdirat(target.root(), dir_path(), Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(err) => return Err(err.into()),
            }
        }
        let (dir, name) = (target.open_at(&dir_path())?, self.given.to_string());
        self.given += 1;
        self.waiting.insert(path.clone(), name.clone());
        Ok((dir, name))
    }

    /// Whether the file of a path waits.
    pub fn has(&self, path: &RelPath) -> bool {
        self.waiting.contains_key(path)
    }

    /// Has the file of a path take the place of what is there, if it waits.
    pub fn put_in_place(&mut self, target: &Target<'_>, path: &RelPath) -> io::Result<()> {
        let Some(name) = self.waiting.remove(path) else { return Ok(()) };
        let (from, to) = (target.open_at(&dir_path())?, target.open(path.parent().as_ref())?);
        Ok(rustix::fs::renameat(&from, name, &to, path.name())?)
    }

    /// Removes the file of a path, if it waits.
    pub fn discard(&mut self, target: &Target<'_>, path: &RelPath) -> io::Result<()> {
        let Some(name) = self.waiting.remove(path) else { return Ok(()) };
        let dir = target.open_at(&dir_path())?;
        Ok(rustix::fs::unlinkat(&dir, name, AtFlags::empty())?)
    }
}

/// Removes what a command that was killed has left. Only for whoever keeps writers out.
pub fn clear_aside(target: &Target<'_>) -> io::Result<()> {
    let dir = match target.open_at(&dir_path()) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        dir => dir?,
    };
    for (name, _) in names(&dir)? {
        rustix::fs::unlinkat(&dir, name, AtFlags::empty())?;
    }
    Ok(())
}

fn dir_path() -> PathBuf {
    Path::new(META_DIR).join(ASIDE_DIR)
}
