// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The directory that the demo shares: its contents, the size of the pool that it needs, and its
//! checksums.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// The allocation unit of famfs in bytes.
const UNIT: u64 = 2 << 20;

/// The space before the data: the devdax info area and the superblock, one unit each.
const FRONT: u64 = 2 * UNIT;

/// The size of the smallest log, and how many entries (files and directories) it holds.
const LOG: u64 = 8 << 20;
const LOG_ENTRIES: u64 = 15_420;

/// Extra space in the pool for the file that the demo creates, and for the user to try things.
const SPARE: u64 = 64 << 20;

/// Pool sizes are a multiple of this, the alignment that libnvdimm prefers for regions.
const POOL_STEP: u64 = 16 << 20;

/// A directory with its files.
#[derive(Debug)]
pub struct Share {
    /// The directory.
    pub dir: PathBuf,
    /// Its regular files with their sizes in bytes; paths are relative to it.
    pub files: Vec<(PathBuf, u64)>,
    directories: u64,
}

impl Share {
    /// Lists a directory.
    pub fn scan(dir: &Path) -> Result<Self> {
        let dir = dir
            .canonicalize()
            .with_context(|| format!("cannot share the directory {}", dir.display()))?;
        let mut share = Self { files: Vec::new(), directories: 0, dir: dir.clone() };
        share.visit(&dir)?;
        if share.files.is_empty() {
            bail!("nothing to share: {} contains no regular file", dir.display());
        }
        share.files.sort();
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
                self.directories += 1;
                self.visit(&path)?;
            } else if metadata.is_file() {
                let name = path.strip_prefix(&self.dir).unwrap_or(&path).to_path_buf();
                self.files.push((name, metadata.len()));
            }
        }
        Ok(())
    }

    /// The total size of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, size)| size).sum()
    }

    /// The size of the log for all files and directories: a power of two.
    pub fn log_size(&self) -> u64 {
        let entries = self.files.len() as u64 + self.directories + 100;
        LOG * entries.div_ceil(LOG_ENTRIES).next_power_of_two()
    }

    /// The size of a pool for the files; each takes whole units.
    pub fn pool_size(&self) -> u64 {
        let data: u64 = self.files.iter().map(|(_, size)| size.next_multiple_of(UNIT)).sum();
        (FRONT + self.log_size() + data + SPARE).next_multiple_of(POOL_STEP)
    }

    /// The SHA-256 of every file except `skipped`, in the format of sha256sum, and the number of
    /// lines. The files are read from the directory itself, so that the pool is checked against its
    /// source.
    pub fn manifest(&self, skipped: &HashSet<PathBuf>) -> Result<(Vec<u8>, u64)> {
        let mut text = Vec::new();
        let mut lines = 0;
        for (name, _) in self.files.iter().filter(|(name, _)| !skipped.contains(name)) {
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

    fn share(sizes: &[u64]) -> Share {
        let files = sizes.iter().enumerate().map(|(i, s)| (PathBuf::from(i.to_string()), *s));
        Share { dir: PathBuf::new(), files: files.collect(), directories: 0 }
    }

    #[test]
    fn pool_holds_whole_units() {
        let small = share(&[1, UNIT, UNIT + 1]);
        assert_eq!(small.log_size(), LOG);
        assert!(small.pool_size() >= FRONT + LOG + 4 * UNIT);
        assert_eq!(small.pool_size() % POOL_STEP, 0);
    }

    #[test]
    fn log_grows_with_the_number_of_files() {
        assert_eq!(share(&vec![1; 15_320]).log_size(), LOG);
        assert_eq!(share(&vec![1; 15_321]).log_size(), 2 * LOG);
        assert_eq!(share(&vec![1; 40_000]).log_size(), 4 * LOG);
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
