// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Virtual machines that share one memory pool.
//!
//! ```text
//! Pool -> Window -> shared memory region message -> guest
//! ```
//!
//! A [`pool`] is host memory or a file; a [window](pool::Window) is the checked range of it that one
//! guest sees. The [`device`] is a virtio-pmem device behind a vhost-user connection: it asks the VMM
//! to map the window into the guest (SHMEM_MAP) and answers flush requests. From then on loads and
//! stores of the guest go to the pool's pages; no process of the host is involved. A [`vm`] is one
//! virtual machine; a [`cluster`] describes, starts and ends several that share a pool, and outlives
//! the command that starts it.
//!
//! Each folder uses those before it in this list, and nothing points back:
//! [`bounded_log`], [`host`], [`pool`], [`device`], [`vm`], [`cluster`], [`doctor`], [`args`].
//! What the program does with them (`run`) is not part of this library; block devices ([`ublk`]) are a
//! library of their own.
//!
//! Guests are hostile until proven otherwise: a malformed request is given back, a broken queue
//! is ignored until the guest resets its device, and neither ends the process.
//!
//! Not here: coherency between guests that write to the same file, and protection of one guest's
//! data from another guest of the same pool.

pub mod args;
pub mod bounded_log;
pub mod cluster;
pub mod device;
pub mod doctor;
pub mod host;
pub mod pool;
pub mod vm;
