// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Block devices of the host that are served by a process of ours (ublk). A device shows an image
//! that many devices share, with its changes in its own overlay, or a pool.
//!
//! ```text
//! Source (what the user names) -> Export (open files) -> server -> queues: requests of /dev/ublkbN
//!    |                             overlay, base, pool, mapped
//!    `-> Record in /run -> list, del, recover
//! ```
//!
//! One process serves one device and ends with it; there is no daemon. `driver` reads what the
//! kernel knows of a device; the [`record`] holds the rest, such as its files. Dependencies point
//! one way: `devices -> server -> queue -> driver, request -> export -> overlay_file -> overlay,
//! base -> mapped -> sys`, and `devices -> record -> source`.
//!
//! Without the cargo feature `driver`, there are no devices: everything that needs the kernel's
//! driver is left out, and with it the library that needs libclang to be built.
//!
//! The caller opens the pool, because only the caller knows pools. The files are trusted only as
//! far as they have been checked: an overlay by its header, its length and the digest of its base,
//! an image by its size. Requests come from the kernel, which has checked them against the size of
//! the device; the export checks them again.

pub mod base;
#[cfg(feature = "driver")]
pub mod devices;
#[cfg(feature = "driver")]
pub mod driver;
pub mod export;
mod mapped;
pub mod overlay;
pub mod overlay_file;
#[cfg(feature = "driver")]
mod queue;
pub mod record;
#[cfg(feature = "driver")]
mod request;
#[cfg(feature = "driver")]
pub mod server;
pub mod source;
#[cfg(any(feature = "driver", test))]
mod sys;
#[cfg(test)]
mod test_files;
