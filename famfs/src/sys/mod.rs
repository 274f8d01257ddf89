// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The only modules with `unsafe`: mappings of shared memory, CPU cache lines, ioctls,
//! locks, signals.

pub mod cache;
pub mod dax;
pub mod ioctl;
pub mod mount_attr;
pub mod record_lock;
pub mod signal;
