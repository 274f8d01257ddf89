// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Virtual machines that share one memory pool.
//!
//! ```text
//! Pool -> Window -> shared memory region message -> guest
//! ```
//!
//! A [`pool`] is host memory or a file; a [`window`] is the checked range of it that one guest
//! sees. The [`device`] is a virtio-pmem device ([`pmem`]) behind a vhost-user connection
//! ([`server`]): it asks the VMM to map the window into the guest (SHMEM_MAP, sent by
//! [`mapper`] when [`lifecycle`] says so) and answers flush requests ([`queue`]). From then on
//! loads and stores of the guest go to the pool's pages; no process of the host is involved.
//! [`launch`] describes and starts whole virtual machines that share a pool; a [`cluster`] of them
//! outlives the command that starts it.
//!
//! Dependencies point one way: `run -> args, server -> device -> mapper, queue, lifecycle -> pmem,
//! pool, window -> units` and `run -> listen, sandbox -> privileges`; `pool` uses `launch::memory`; `launch` uses
//! `pool`, `listen`, `units`, and the appliance's protocol; both, and `doctor`, use `host_memory`; `launch` and
//! `cluster` use `bounded_log`; `cluster`, `ublk` and `ends` use `pidfd`; `run` and `cluster` use `ends`.
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
pub mod durability;
pub mod ends;
pub mod host_memory;
pub mod launch;
pub mod lifecycle;
pub mod listen;
pub mod mapper;
pub mod pidfd;
pub mod pmem;
pub mod pool;
mod privileges;
pub mod queue;
pub mod ring;
pub mod run;
pub mod sandbox;
pub mod server;
pub mod signals;
pub mod sys;
mod throttle;
pub mod ublk;
pub mod units;
pub mod window;
