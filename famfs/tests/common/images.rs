// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The images in `tests/vectors`.

use std::fs;
use std::path::{Path, PathBuf};

/// Size of the device on which the images of small file systems were made.
pub const DEVICE_LEN: u64 = 64 << 30;

/// A file of the test vectors. They are part of the library, and the program's tests use them too.
pub fn vector(name: &str) -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut vectors = crates.map(|dir| dir.join("tests/vectors"));
    vectors.find(|dir| dir.is_dir()).unwrap().join(name)
}

/// An image's bytes.
pub fn image(name: &str) -> Vec<u8> {
    let path = vector(name);
    let packed = fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    zstd::decode_all(packed.as_slice()).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}
