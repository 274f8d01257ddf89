// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Library for famfs pools: the media format, its log, mounting, and work on pool files without a
//! kernel module.
//!
//! ```text
//!   pool file --- view ---+                                  +--> apply --> files of a mount
//!                         +--> media --> superblock, log --> replay (a checked plan)
//!   .meta files of mount -+                 ^                +--> check, ls, sum of a pool file
//!                                           |
//!   source files --> copy --> writer -------+   (data first, then its log entry)
//! ```
//!
//! Principles:
//! * **Media content is a claim.** Other systems may write the memory at any time: content is
//!   copied out, the copy is checked, and only the copy is used. No reference into a mapping is
//!   ever made.
//! * **A log becomes a plan before anything is done.** [`replay`] is pure; no path of a plan leaves
//!   the file system, and no two of its files share memory.
//! * **Data before its entry, the entry before the index.** After a crash at any store, the file
//!   system mounts with every file that was reported complete.
//! * **Modules import downwards only**, in the order that `tests/layers.rs` gives; unsafe code is
//!   in [`sys`] alone.
//!
//! The library does not order writers of one file, has no daemon, and neither prints nor exits. The
//! crate `famfs-cli` is the command line, which does.
pub mod archive;
pub mod format;
pub mod guest;
pub mod kernel;
pub mod media;
pub mod replay;
pub mod store;
pub mod sys;
pub mod system;
pub mod text;
pub mod write;
