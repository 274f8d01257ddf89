// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of a device, for tests: an image of 1 MiB of fives, and the path for its overlay.

use std::fs;
use std::path::{Path, PathBuf};

/// They are removed when this is dropped.
pub struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    pub fn new() -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(files.image(), vec![5; 1 << 20]).unwrap();
        files
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn image(&self) -> PathBuf {
        self.dir().join("image")
    }

    pub fn overlay(&self) -> PathBuf {
        self.dir().join("overlay")
    }
}
