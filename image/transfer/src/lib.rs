// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files and trees as a stream, for copies between host and guest.
//!
//! ```text
//!  sources --pack--> tar archive --(a command's standard input or output)--> unpack --> places
//! ```
//!
//! The archive names the sources by their number, `0`, `1/dir/file`: only the side that writes
//! decides where they go. A file comes in pieces, so its size need not be known before it is read,
//! and a file that grows, shrinks or has no end is copied as far as it was read. A stream that ends
//! without its end mark was cut short.
//!
//! Both ends are the same code, and the reading end takes nothing for granted: names that lead out
//! of a place, types other than files, directories and symbolic links, and members in a wrong order
//! are refused; memory is bounded; no symbolic link is followed. A file gets its name when it is
//! complete.

pub mod pack;
mod part;
pub mod place;
pub mod unpack;

#[cfg(test)]
mod tests;

/// Bits of a file's mode that are copied: all but set-user-ID and set-group-ID.
const MODE_BITS: u32 = 0o1777;
