// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tools and library for famfs pools: the media format, its log, mounting, and work on a pool
//! file without a kernel module.
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
//! * **What is on the media is a claim.** It is copied out, the copy is checked, the copy is used;
//!   other systems may write the memory at any time. No reference into a mapping is ever made.
//! * **A log becomes a plan before anything is done.** [`replay`] is pure; no path of a plan leaves
//!   the file system, no two of its files share memory.
//! * **Data before its entry, the entry before the index.** A crash at any store leaves a file
//!   system that mounts with every file that was reported complete.
//! * **Modules import downwards only**, in the order that `tests/layers.rs` gives; unsafe code is
//!   in [`sys`] alone.
//!
//! It does not order writers of one file, and has no daemon. The command line is the crate
//! `famfs-cli`, which prints and exits; nothing here does.
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
