// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pool files that are removed with the test.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

/// A pool file in a directory that is removed with the test.
pub struct Pool {
    _dir: TempDir,
    /// The file.
    pub path: PathBuf,
}

impl Pool {
    /// A sparse pool of `len` bytes that starts with `bytes`.
    pub fn new(bytes: &[u8], len: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool");
        fs::write(&path, bytes).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
        Self { _dir: dir, path }
    }
}
