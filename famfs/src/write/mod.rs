// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Adding files and directories to a file system.

pub mod compare;
pub mod copy;
pub mod dropped;
pub mod prng;
pub mod sources;
pub mod stream;
pub mod transfer;
pub mod unsupported;
pub mod volume;
pub mod writer;
