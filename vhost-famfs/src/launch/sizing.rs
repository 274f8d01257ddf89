// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How large a pool must be for what is put into it.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use famfs::archive::{ArchiveError, Content, read_headers};
use famfs::format::{ALLOC_UNIT, slots};
use famfs::superblock::{DEFAULT_LOG_LEN, MAX_DEVICE_LEN};

use crate::units::ALIGNMENT;

/// Room in the pool beside what is imported, for the files of the VMs.
const SPARE: u64 = 256 << 20;

/// Log entries beside those of what is imported.
const SPARE_ENTRIES: u64 = 1000;

/// Pool sizes that are computed are a multiple of this: what libnvdimm prefers for regions.
const STEP: u64 = 16 << 20;

/// What some files and directories take in a famfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes of the files in whole allocation units.
    pub allocated: u64,
}

/// Why what is to be imported cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file or directory cannot be read.
    #[error("cannot {action} {}", path.display())]
    Read {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is a file, but no tar archive.
    #[error("cannot import {}: expected a directory or a tar archive", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: ArchiveError,
    },
    /// There is nothing in it.
    #[error("nothing to import: {} holds no regular file", .0.display())]
    Empty(PathBuf),
}

impl ImportError {
    /// The file or directory that it is about.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. } | Self::Archive { path, .. } | Self::Empty(path) => path,
        }
    }
}

impl Needs {
    /// What a directory or a tar archive takes.
    ///
    /// # Errors
    /// It cannot be read, or has no file in it.
    pub fn of(path: &Path) -> Result<Self, ImportError> {
        let read = |action| move |source| ImportError::Read { action, path: path.into(), source };
        let mut needs = Self::default();
        if fs::metadata(path).map_err(read("import"))?.is_dir() {
            needs.add_directory(path)?;
        } else {
            needs.add_archive(path, &File::open(path).map_err(read("open"))?)?;
        }
        if needs.files == 0 {
            return Err(ImportError::Empty(path.into()));
        }
        Ok(needs)
    }

    fn add_directory(&mut self, dir: &Path) -> Result<(), ImportError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| ImportError::Read { action, path, source }
        };
        for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
            let path = entry.map_err(failed("list", dir))?.path();
            // What is neither file nor directory is not imported.
            let metadata = path.symlink_metadata().map_err(failed("look at", &path))?;
            if metadata.is_dir() {
                self.directories += 1;
                self.add_directory(&path)?;
            } else if metadata.is_file() {
                self.add_file(metadata.len());
            }
        }
        Ok(())
    }

    fn add_archive(&mut self, path: &Path, file: &File) -> Result<(), ImportError> {
        let read = read_headers(BufReader::new(file), |member| {
            match member.map(|member| member.content) {
                Ok(Content::Dir) => self.directories += 1,
                Ok(Content::File { size, .. }) => self.add_file(size),
                Err(_) => {}
            }
            Ok(())
        });
        read.map_err(|source: ArchiveError| ImportError::Archive { path: path.into(), source })
    }

    fn add_file(&mut self, size: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
        // A size near the end of the numbers is a claim of an archive's header.
        let allocated = size.checked_next_multiple_of(ALLOC_UNIT).unwrap_or(u64::MAX);
        self.allocated = self.allocated.saturating_add(allocated);
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            files: self.files + other.files,
            directories: self.directories + other.directories,
            bytes: self.bytes.saturating_add(other.bytes),
            allocated: self.allocated.saturating_add(other.allocated),
        }
    }

    /// The length of the smallest log that has room for them: a power of two, and not less than
    /// mkfs takes by itself.
    #[must_use]
    pub fn log_len(self) -> u64 {
        let entries = self.files + self.directories + SPARE_ENTRIES;
        let mut len = DEFAULT_LOG_LEN;
        while slots(len) < entries && len < MAX_DEVICE_LEN {
            len *= 2;
        }
        len
    }

    /// The size of a pool with room for them and nothing else: info area, superblock, log, files.
    #[must_use]
    pub fn least_pool_size(self) -> u64 {
        self.allocated.saturating_add(ALIGNMENT + ALLOC_UNIT + self.log_len())
    }

    /// The size of a pool with room for them and some more.
    #[must_use]
    pub fn pool_size(self) -> u64 {
        let size = self.least_pool_size().saturating_add(SPARE);
        size.checked_next_multiple_of(STEP).unwrap_or(u64::MAX - (u64::MAX % STEP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_directory_and_its_archive_need_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::write(tree.join("one"), "x").unwrap();
        fs::write(tree.join("sub/two"), "").unwrap();
        std::os::unix::fs::symlink("one", tree.join("link")).unwrap();
        let needs = Needs::of(&tree).unwrap();
        let expected = Needs { files: 2, directories: 1, bytes: 1, allocated: ALLOC_UNIT };
        assert_eq!(needs, expected);
        let archive = dir.path().join("tree.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&tree).arg("-cf").arg(&archive).args(["sub", "one"]);
        assert!(tar.status().unwrap().success());
        assert_eq!(Needs::of(&archive).unwrap(), needs);
    }

    #[test]
    fn the_pool_grows_with_files_and_entries() {
        let none = Needs::default();
        assert_eq!(none.log_len(), DEFAULT_LOG_LEN);
        assert!(none.pool_size() >= SPARE && none.pool_size().is_multiple_of(STEP));
        let many = Needs { files: 100_000, allocated: 1 << 40, ..none };
        assert!(slots(many.log_len()) > 100_000 && many.pool_size() > 1 << 40);
        let absurd = Needs { allocated: u64::MAX, ..none };
        assert!(absurd.pool_size().is_multiple_of(STEP), "no overflow");
    }

    #[test]
    fn what_is_nothing_to_import_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = |path: &Path| Needs::of(path).unwrap_err().to_string();
        assert!(error(dir.path()).contains("holds no regular file"));
        assert!(error(&dir.path().join("none")).contains("cannot import"));
        let text = dir.path().join("text");
        fs::write(&text, "not a tar archive".repeat(100)).unwrap();
        assert!(error(&text).ends_with("expected a directory or a tar archive"));
    }
}
