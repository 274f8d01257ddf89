// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Logs that a guest cannot fill a disk with.
//!
//! ```text
//! QEMU, back-end --> FILE.pipe --Keeper--> FILE (newest), FILE.old (what came before) --> Reader, tail
//! ```
//!
//! A log is a ring of two files, each at most half of the limit: when the newer one is full it takes the place
//! of the older one. What is in the files together is always the last that was written, at least half of the
//! limit of it. Whoever writes has a pipe, not the file, so the limit cannot be outrun: a writer that is faster
//! than the keeper waits.

mod keeper;
mod pipe;
mod reader;
mod writer;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use keeper::Keeper;
pub use pipe::{make_pipe, open_for_writing, pipe_of, settle};
pub use reader::{MAX_LINE, Reader, tail};
pub use writer::{DEFAULT_LIMIT, MIN_LIMIT};

/// What was written before that which is in a log's file.
#[must_use]
pub fn older(log: &Path) -> PathBuf {
    with_suffix(log, ".old")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(suffix);
    name.into()
}
