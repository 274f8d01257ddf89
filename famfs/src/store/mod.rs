// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the media holds: superblock, log, free space, and who may write.

pub mod alloc;
mod entries;
pub mod identity;
pub mod lease;
pub mod lease_request;
pub mod log;
mod log_error;
pub mod members;
pub mod mkfs;
pub mod numbering;
mod renumber;
pub mod role;
pub mod superblock;
pub mod takeover;
pub mod users;
