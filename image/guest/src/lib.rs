// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the host and the appliance guest agree on.
//!
//! ```text
//!  host (vhost-famfs launch)                     guest (appliance-agent)
//!  Request, one JSON line  ---- virtio-serial --->  run a command, power off
//!  Reply, one JSON line    <--- port exec::PORT --  output, exit status, state of the pool
//! ```
//!
//! The two programs of the appliance, `appliance-init` and `appliance-agent`, are the binaries of this crate.
//! Nothing here is a security boundary for the host's benefit alone: the guest's replies are input like any
//! other, bounded and checked before use. The guest trusts its host.

pub mod attach;
pub mod credentials;
pub mod exec;
pub mod line;
pub mod report;
