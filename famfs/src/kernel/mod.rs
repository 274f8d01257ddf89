// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A file system of the kernel: mounting it, and making its files appear.

pub mod apply;
pub mod backlog;
pub mod beneath;
pub mod follow;
pub mod mount;
pub mod play;
