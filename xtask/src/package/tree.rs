// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A directory with what a package installs, as it will be below `/`.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};

use crate::hash::Key;

/// A tree that is being filled.
pub struct Tree {
    dir: PathBuf,
}

/// What a tree holds at a path.
pub enum Entry {
    /// A file with its permissions.
    File(u32),
    /// A link with its target.
    Link(PathBuf),
}

impl Tree {
    /// An empty tree in that directory, whatever was there before.
    pub fn new(dir: PathBuf) -> Result<Self> {
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
            }
            _ => {}
        }
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// The tree in a directory that was filled before.
    pub fn open(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The path in the tree; the directories above it are made.
    pub fn place(&self, to: &str) -> Result<PathBuf> {
        let path = self.dir.join(to);
        let parent = path.parent().context("a path without a directory")?;
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
        Ok(path)
    }

    /// Writes a file.
    pub fn write(&self, to: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let path = self.place(to)?;
        fs::write(&path, bytes)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Copies a file.
    pub fn copy(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.write(to, mode, &bytes)
    }

    /// Writes a file compressed, with nothing in it that changes from run to run. `.gz` is added to
    /// the name.
    pub fn compress(&self, to: &str, bytes: &[u8]) -> Result<()> {
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
        let bytes = gzip.write_all(bytes).and_then(|()| gzip.finish());
        self.write(&format!("{to}.gz"), 0o644, &bytes.context("cannot compress")?)
    }

    /// Makes a symbolic link.
    pub fn link(&self, target: &str, to: &str) -> Result<()> {
        let path = self.place(to)?;
        symlink(target, &path).with_context(|| format!("cannot create {}", path.display()))
    }

    /// All files and links, by path below the tree.
    pub fn entries(&self) -> Result<Vec<(PathBuf, Entry)>> {
        let mut found = Vec::new();
        list(&self.dir, Path::new(""), &mut found)
            .with_context(|| format!("cannot list {}", self.dir.display()))?;
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    /// Adds all paths, permissions and contents to a key.
    pub fn add_to(&self, mut key: Key) -> Result<Key> {
        for (path, entry) in self.entries()? {
            key = key.text(&path.to_string_lossy());
            key = match entry {
                Entry::Link(target) => key.text(&target.to_string_lossy()),
                Entry::File(mode) => key.text(&mode.to_string()).path(&self.dir.join(path))?,
            };
        }
        Ok(key)
    }
}

fn list(base: &Path, below: &Path, found: &mut Vec<(PathBuf, Entry)>) -> io::Result<()> {
    for entry in fs::read_dir(base.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list(base, &path, found)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(entry.path())?;
            found.push((path, Entry::Link(target)));
        } else {
            found.push((path, Entry::File(entry.metadata()?.permissions().mode() & 0o7777)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_lists_what_it_got() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path().join("tree")).unwrap();
        tree.write("usr/bin/b", 0o755, b"b").unwrap();
        tree.link("b", "usr/bin/a").unwrap();
        tree.compress("usr/share/c", b"text").unwrap();
        let entries = tree.entries().unwrap();
        let paths: Vec<_> = entries.iter().map(|(path, _)| path.to_str().unwrap()).collect();
        assert_eq!(paths, ["usr/bin/a", "usr/bin/b", "usr/share/c.gz"]);
        assert!(matches!(&entries[0].1, Entry::Link(target) if target == Path::new("b")));
        assert!(matches!(entries[1].1, Entry::File(0o755)));
        let key = || tree.add_to(Key::default()).unwrap().finish();
        let before = key();
        assert_eq!(before, key());
        tree.write("usr/bin/b", 0o644, b"b").unwrap();
        assert_ne!(before, key(), "permissions count");
    }
}
