// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Adding files and directories to a file system, and changing them.

pub mod change;
pub mod compare;
pub mod copy;
mod copy_error;
pub mod dropped;
pub(crate) mod error;
mod examine;
mod existing;
mod gather;
pub mod layout;
mod make;
pub mod need;
mod pages;
pub mod prng;
pub mod reading;
pub mod room;
mod session;
pub mod sources;
pub mod stream;
pub mod transfer;
pub mod unsupported;
pub mod volume;
pub mod writer;
