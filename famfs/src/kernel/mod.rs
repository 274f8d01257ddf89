// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A file system of the kernel: mounting it, and making its tree appear.

pub mod apply;
mod aside;
pub mod backoff;
pub mod beneath;
pub mod carry;
pub mod deletions;
pub mod follow;
mod group;
pub mod grow;
pub mod mapped;
pub mod mount;
pub mod note;
pub mod play;
pub mod player;
pub mod release;
pub mod safe_links;
pub mod sweep;
pub mod target;
pub mod volume;
