// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The directory that the demo shares: its contents, the size of the pool that it needs, and its
//! checksums.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use vhost_famfs::cluster::sizing::Needs;
use vhost_famfs::cluster::spec::ImportSpec;
use vhost_famfs::pool::ALIGNMENT;

use crate::exec;

/// A directory with its files.
#[derive(Debug)]
pub struct Share {
    /// The directory.
    pub dir: PathBuf,
    /// Its regular files; paths are relative to it.
    pub files: Vec<PathBuf>,
    /// What it needs in a pool, as `vhost-famfs up --share` counts.
    needs: Needs,
}

impl Share {
    /// Lists a directory.
    pub fn scan(dir: &Path) -> Result<Self> {
        let dir = dir
            .canonicalize()
            .with_context(|| format!("cannot share the directory {}", dir.display()))?;
        let mut share = Self { files: Vec::new(), needs: Needs::default(), dir: dir.clone() };
        share.visit(&dir)?;
        if share.files.is_empty() {
            bail!("nothing to share: {} contains no regular file", dir.display());
        }
        share.files.sort();
        // What famfs cannot hold is reported when the pool is filled.
        (share.needs, _) = Needs::of(&ImportSpec::of(dir))?;
        Ok(share)
    }

    fn visit(&mut self, dir: &Path) -> Result<()> {
        let entries =
            fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
            let path = entry.path();
            let metadata = entry
                .metadata()
                .with_context(|| format!("cannot read the metadata of {}", path.display()))?;
            if metadata.is_dir() {
                self.visit(&path)?;
            } else if metadata.is_file() {
                let name = path.strip_prefix(&self.dir).unwrap_or(&path).to_path_buf();
                self.files.push(name);
            }
        }
        Ok(())
    }

    /// The total size of all files.
    pub fn bytes(&self) -> u64 {
        self.needs.bytes
    }

    /// The memory that the directory takes in a pool, without the log.
    pub fn memory(&self) -> u64 {
        self.needs.room().data
    }

    /// The length of the log in a pool of this size.
    pub fn log_size(&self, pool: u64) -> u64 {
        self.needs.room().log_len(pool - ALIGNMENT)
    }

    /// The size of a pool for the directory, and for what the demo and its user add.
    pub fn pool_size(&self) -> u64 {
        self.needs.room().pool_size()
    }

    /// The SHA-256 of every file except `skipped`, in the format of sha256sum, and the number of
    /// lines. The files are read from the directory itself, so that the pool is checked against its
    /// source.
    pub fn manifest(&self, skipped: &HashSet<PathBuf>) -> Result<(Vec<u8>, u64)> {
        let mut text = Vec::new();
        let mut lines = 0;
        for name in self.files.iter().filter(|name| !skipped.contains(*name)) {
            let path = self.dir.join(name);
            let mut hash = Sha256::new();
            File::open(&path)
                .and_then(|mut file| io::copy(&mut file, &mut hash))
                .with_context(|| format!("cannot read {}", path.display()))?;
            let sum: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            text.extend(line(&sum, name.as_os_str().as_bytes()));
            lines += 1;
        }
        Ok((text, lines))
    }
}

/// What the demo shares if nothing is named: the toolchain's libraries.
pub fn default_dir() -> Result<PathBuf> {
    let sysroot = exec::output(Command::new("rustc").args(["--print", "sysroot"]))
        .context("cannot ask the Rust toolchain for its directory; name one with --share")?;
    Ok(Path::new(&sysroot).join("lib"))
}

/// A line of sha256sum(1). If the name contains a line break or a backslash, it is escaped, and the
/// line begins with a backslash.
fn line(sum: &str, name: &[u8]) -> Vec<u8> {
    let escaped: Vec<u8> = name
        .iter()
        .flat_map(|byte| match byte {
            b'\n' => b"\\n".to_vec(),
            b'\r' => b"\\r".to_vec(),
            b'\\' => b"\\\\".to_vec(),
            other => vec![*other],
        })
        .collect();
    let mark: &[u8] = if escaped == name { b"" } else { b"\\" };
    [mark, sum.as_bytes(), b"  ", &escaped, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size follows the tree: pages for files, and none for holes.
    #[test]
    fn the_pool_holds_any_tree() {
        let dir = tempfile::tempdir().unwrap();
        trees::plant_many(dir.path(), 3000).unwrap();
        let small = Share::scan(dir.path()).unwrap();
        assert_eq!(small.files.len(), 3000);
        let hole = File::create(dir.path().join("hole")).unwrap();
        hole.set_len(1 << 40).unwrap();
        let sparse = Share::scan(dir.path()).unwrap();
        assert_eq!(sparse.pool_size(), small.pool_size());
        assert!(sparse.bytes() > 1 << 40 && small.pool_size() < 1 << 30);
        trees::plant_many(&dir.path().join("more"), 40_000).unwrap();
        let many = Share::scan(dir.path()).unwrap();
        assert!(many.log_size(many.pool_size()) >= 40_000 * 544);
    }

    /// Nothing of what the demo shares by default, or of a tree with one of each kind, is left out.
    #[test]
    fn nothing_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        trees::plant("links", &dir.path().join("links")).unwrap();
        trees::plant("names", &dir.path().join("names")).unwrap();
        fs::write(dir.path().join("empty"), "").unwrap();
        for dir in [dir.path().to_owned(), default_dir().unwrap()] {
            let (needs, left_out) = Needs::of(&ImportSpec::of(dir.clone())).unwrap();
            assert!(left_out.is_empty(), "{}: {left_out:?}", dir.display());
            let share = Share::scan(&dir).unwrap();
            assert!(needs.names >= share.files.len() as u64 && share.bytes() == needs.bytes);
        }
        trees::remove_all(dir.path()).unwrap();
    }

    #[test]
    fn manifest_reads_like_sha256sum() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/a b"), "abc").unwrap();
        fs::write(dir.path().join("left out"), "").unwrap();
        let share = Share::scan(dir.path()).unwrap();
        let (text, lines) = share.manifest(&HashSet::from(["left out".into()])).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  d/a b\n"
        );
        assert_eq!(lines, 1);
    }

    #[test]
    fn names_that_break_lines_are_escaped() {
        assert_eq!(line("00", b"a b"), b"00  a b\n");
        assert_eq!(line("00", b"a\nb\\"), b"\\00  a\\nb\\\\\n");
    }

    #[test]
    fn a_directory_without_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = Share::scan(dir.path()).unwrap_err().to_string();
        assert!(error.contains("nothing to share"), "{error}");
    }
}
