// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Virtual machines that share one memory pool.
//!
//! ```text
//! Pool -> Window -> shared memory region message -> guest
//! ```
//!
//! A [`pool`] is host memory or a file; a [window](pool::Window) is the checked range of it that
//! one guest sees. The [`device`] is a virtio-pmem device behind a vhost-user connection: it asks
//! the VMM to map the window into the guest (SHMEM_MAP) and answers flush requests. From then on,
//! the guest's loads and stores go directly to the pool's pages; no host process is involved. A
//! [`vm`] is one virtual machine. A [`cluster`] describes, starts and stops several VMs that share
//! a pool; it keeps running after the command that starts it.
//!
//! Each module uses only those before it in this list: [`bounded_log`], [`wake`], [`host`],
//! [`pool`], [`device`], [`vm`], [`space`], [`cluster`], [`doctor`], [`args`]. The code that
//! carries out the program's commands (`run`) is not part of this library; block devices ([`ublk`])
//! have a library of their own.
//!
//! Guests are hostile until proven otherwise: a malformed request is answered with an error, a
//! broken queue is ignored until the guest resets its device, and neither ends the process.
//!
//! Out of scope: coherency between guests that write to the same file, and the protection of one
//! guest's data from another guest on the same pool.

pub mod args;
pub mod bounded_log;
pub mod cluster;
pub mod device;
pub mod doctor;
pub mod host;
pub mod pool;
pub mod space;
pub mod vm;
pub mod wake;
