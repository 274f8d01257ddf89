// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pool files made of the images in `tests/vectors`.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Size of the device that the images of small file systems were made on.
pub const DEVICE_LEN: u64 = 64 << 30;

/// A file of the test vectors.
pub fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

/// An image's bytes.
pub fn image(name: &str) -> Vec<u8> {
    let path = vector(name);
    let packed = fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    zstd::decode_all(packed.as_slice()).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// A pool file in a directory that goes away with the test.
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
