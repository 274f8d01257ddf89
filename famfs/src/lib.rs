// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Library for famfs pools: the media format, its log, mounting, and work on pool files without a
//! kernel module.
//!
//! ```text
//!   pool file --- view ---+                                  +--> apply --> files of a mount
//!                         +--> media --> superblock, log --> replay (a checked plan)
//!   .meta files of mount -+                 ^                +--> fsck, ls, sum of a pool file
//!                                           |
//!   source files --> copy --> writer -------+   (data first, then its log entry)
//! ```
//!
//! Each folder uses those before it in this list, and no files of a folder use each other in a
//! circle; `tests/layers.rs` checks both:
//! * [`text`]: what people and programs read and write: sizes, numbers, names, errors;
//! * [`format`]: what the bytes on the media mean, without I/O;
//! * [`sys`]: the only unsafe code: mappings, cache lines, ioctls;
//! * [`system`]: this machine: its mounts, processes, locks and files;
//! * [`media`]: how the bytes are reached: pool files, mounted file systems, a device in memory;
//! * [`store`]: superblock, log and free space, and who may write them;
//! * [`replay`]: what the log means as a whole, and what is found out or changed about all of it;
//! * [`write`](mod@write): adding and deleting files, by a pool file or a mount;
//! * [`kernel`]: mounting, and making the files of the log appear in the mount;
//! * [`archive`]: tar archives, in and out, and copies out;
//! * [`guest`]: a guest's devices, and which of them is the pool.
//!
//! Principles:
//! * **Media content is a claim.** Other systems may write the memory at any time: content is
//!   copied out, the copy is checked, and only the copy is used. No reference into a mapping is
//!   ever made.
//! * **A log becomes a plan before anything is done.** [`replay`] is pure; no path of a plan leaves
//!   the file system, and no two of its files share memory.
//! * **Data before its entry, the entry before the index.** After a crash at any store, the file
//!   system mounts with every file that was reported complete.
//! * **A deleted file keeps its memory** until nobody has it open or mapped: every system that
//!   follows the log has proven that, or nobody has the pool at all.
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
