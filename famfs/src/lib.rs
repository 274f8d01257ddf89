// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tools and library for famfs pools.
pub mod alloc;
pub mod apply;
pub mod args;
pub mod check;
pub mod copy;
pub mod faults;
pub mod format;
pub mod guest;
pub mod log;
pub mod map;
pub mod media;
pub mod mkfs;
pub mod mount;
pub mod mounts;
pub mod path;
pub mod prng;
pub mod replay;
pub mod role;
pub mod superblock;
pub mod sys;
pub mod view;
pub mod volume;
pub mod writer;
