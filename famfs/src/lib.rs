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
//! It does not delete files, does not order writers of one file, and has no daemon. The command
//! line ([`args`] and the `famfs` binary) prints and exits; nothing here does.
pub mod alloc;
pub mod apply;
pub mod archive;
pub mod args;
pub mod arrivals;
pub mod backlog;
pub mod beneath;
pub mod check;
pub mod compact;
pub mod compare;
pub mod compression;
pub mod copy;
pub mod dropped;
pub mod dump;
pub mod error_report;
pub mod export;
pub mod extract;
pub mod faults;
pub mod fields;
pub mod follow;
pub mod format;
pub mod guest;
pub mod holders;
pub mod import;
pub mod json_name;
pub mod lease;
pub mod lock;
pub mod log;
pub mod map;
pub mod media;
pub mod memory;
pub mod mkfs;
pub mod mount;
pub mod mounts;
pub mod names;
pub mod output_file;
pub mod ownership;
pub mod pack;
pub mod path;
pub mod picture;
pub mod play;
pub mod prng;
pub mod replay;
pub mod role;
pub mod search;
pub mod size;
pub mod sources;
pub mod stream;
pub mod superblock;
pub mod sys;
pub mod takeover;
pub mod tar_reader;
pub mod terminal;
pub mod transfer;
pub mod units;
pub mod unsupported;
pub mod view;
pub mod volume;
pub mod watcher;
pub mod writer;
