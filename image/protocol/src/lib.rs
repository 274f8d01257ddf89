// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The messages between the host and the agent in a guest.
//!
//! ```text
//!  host (vhost-famfs)                               guest (appliance-agent)
//!  Credentials             ---- SMBIOS ---------->  where to mount the pool, and as what
//!  Request, one JSON line  ---- virtio-serial --->  run a command, power off
//!  Reply, one JSON line    <--- ports exec::port -  output, exit status, state of the pool
//! ```
//!
//! This crate defines messages and names only; it opens no file. The guest trusts its host. The
//! host does not trust the guest: replies are input like any other, limited and checked before use.

pub mod attach;
pub mod credentials;
pub mod exec;
pub mod line;
pub mod network;
