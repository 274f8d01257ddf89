// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds out what the contents of a pool need.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use famfs::archive::import::{self, Survey};
use famfs::write::need::Need;
use famfs::write::sources::{self, Destination, Scan, SourceError};
use famfs::write::unsupported::{LeftOut, first_names};

use super::room::Room;
use super::spec::ImportSpec;

/// What files and directories need in a famfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Number of files, directories and links.
    pub names: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Log entries and memory.
    pub need: Need,
}

/// Why an import cannot be examined.
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
    /// The directory cannot be examined.
    #[error("cannot import {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: SourceError,
    },
    /// The file is not an archive.
    #[error("cannot import {}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: import::ImportError,
    },
    /// Something in it would be missing from the pool.
    #[error(
        "{}: {} not copied: {} (--dry-run and -v list all){}\nto continue without them, use \
         --skip-unsupported, or skip-unsupported = true in [[import]]", path.display(), items.len(), import::reasons(items),
        first_names(items)
    )]
    LeftOut {
        /// The directory or archive.
        path: PathBuf,
        /// What famfs cannot store.
        items: Vec<LeftOut>,
    },
    /// It contains nothing to import.
    #[error("nothing to import: {} is empty", .0.display())]
    Empty(PathBuf),
}

impl ImportError {
    /// The file or directory that the error is about.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. }
            | Self::Directory { path, .. }
            | Self::Archive { path, .. }
            | Self::LeftOut { path, .. }
            | Self::Empty(path) => path,
        }
    }
}

impl Needs {
    /// What a directory or archive needs, and what famfs cannot store of it.
    ///
    /// # Errors
    /// It cannot be read, or is empty.
    pub fn of(import: &ImportSpec) -> Result<(Self, Vec<LeftOut>), ImportError> {
        let path = &import.from;
        let read = |action| move |source| ImportError::Read { action, path: path.into(), source };
        let mut needs = Self::default();
        let left_out = if fs::metadata(path).map_err(read("import"))?.is_dir() {
            needs.add_directory(import)?
        } else {
            needs.add_archive(import, &File::open(path).map_err(read("open"))?)?
        };
        if needs.names == 0 && left_out.is_empty() {
            return Err(ImportError::Empty(path.into()));
        }
        Ok((needs, left_out))
    }

    fn add_directory(&mut self, import: &ImportSpec) -> Result<Vec<LeftOut>, ImportError> {
        let found = look(import, true);
        let found =
            found.map_err(|source| ImportError::Directory { path: import.from.clone(), source })?;
        for size in found.sizes() {
            self.names += 1;
            self.bytes = self.bytes.saturating_add(size.unwrap_or(0));
        }
        self.need = self.need.and(found.need());
        Ok(found.unsupported.iter().map(LeftOut::from).collect())
    }

    fn add_archive(
        &mut self,
        import: &ImportSpec,
        file: &File,
    ) -> Result<Vec<LeftOut>, ImportError> {
        let found = Survey::of(file, import.to.as_ref())
            .map_err(|source| ImportError::Archive { path: import.from.clone(), source })?;
        self.names += found.names;
        // A size near the maximum is a claim in an archive's header.
        self.bytes = self.bytes.saturating_add(found.bytes);
        self.need = self.need.and(found.need);
        Ok(found.left_out)
    }

    /// The sum of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            names: self.names + other.names,
            bytes: self.bytes.saturating_add(other.bytes),
            need: self.need.and(other.need),
        }
    }

    /// What they take in a pool.
    #[must_use]
    pub fn room(self) -> Room {
        Room { entries: self.need.entries(), data: self.need.data() }
    }
}

/// Examines the contents of a directory to be imported.
///
/// # Errors
/// It cannot be read, or, unless `skip` is set, famfs cannot store something in it.
pub fn look(import: &ImportSpec, skip: bool) -> Result<Scan, SourceError> {
    let options =
        sources::Options { recursive: true, skip_unsupported: skip, ..sources::Options::default() };
    // `DIR/.` means the contents of DIR.
    sources::scan(&[import.from.join(".")], &Destination::Into(import.to.clone()), &options)
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
        fs::write(tree.join("sub/two"), vec![1; 3 << 20]).unwrap();
        std::os::unix::fs::symlink("one", tree.join("link")).unwrap();
        fs::hard_link(tree.join("one"), tree.join("hard")).unwrap();
        File::create(tree.join("holes")).unwrap().set_len(1 << 30).unwrap();
        let (pipe, mode) = (tree.join("pipe"), rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let found = |path: &Path| Needs::of(&ImportSpec::of(path.to_owned())).unwrap();
        let (needs, left_out) = found(&tree);
        assert_eq!((needs.names, needs.bytes), (6, 1 + (3 << 20) + (1 << 30)));
        assert_eq!(import::reasons(&left_out), "1 named pipe");
        let archive = dir.path().join("tree.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&tree).arg("-Scf").arg(&archive);
        tar.args(["sub", "one", "hard", "holes", "link", "pipe"]);
        assert!(tar.status().unwrap().success());
        let (of_archive, left_out) = found(&archive);
        assert_eq!(of_archive, needs);
        assert_eq!(import::reasons(&left_out), "1 named pipe");
    }

    #[test]
    fn what_is_nothing_to_import_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = |path: &Path| {
            let error = Needs::of(&ImportSpec::of(path.to_owned())).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", source.unwrap_or_default())
        };
        assert!(error(dir.path()).contains("is empty"));
        assert!(error(&dir.path().join("none")).contains("cannot import"));
        let text = dir.path().join("text");
        fs::write(&text, "password: secret".repeat(100)).unwrap();
        let error = error(&text);
        assert!(error.contains("it is text, expected a tar archive"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
