// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Logs with a maximum size, so that a guest cannot fill a disk.
//!
//! ```text
//! QEMU, back-end --> FILE.pipe --Keeper--> FILE (newest), FILE.old (before) --> Reader, tail
//! ```
//!
//! A log is a ring of two files, each at most half of the limit: when the newer file is full, it
//! replaces the older one. Together, the files always contain the most recent data, at least half
//! of the limit. Writers have a pipe, not the file, so they cannot exceed the limit: a writer that
//! is faster than the keeper waits. Beside each file is one with the times at which its bytes came.

mod keeper;
mod pipe;
mod reader;
mod times;
mod writer;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use keeper::Keeper;
pub use pipe::{add_line, make_pipe, open_for_writing, pipe_of, settle};
pub use reader::{MAX_LINE, Reader, tail};
pub use times::times_of;
pub use writer::{DEFAULT_LIMIT, MIN_LIMIT};

/// The path of the older file of a log.
#[must_use]
pub fn older(log: &Path) -> PathBuf {
    with_suffix(log, ".old")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(suffix);
    name.into()
}
