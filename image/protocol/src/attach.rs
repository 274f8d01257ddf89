// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What became of the pool in this guest.

use serde::{Deserialize, Serialize};

/// What became of the pool, as the guest reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Attach {
    /// The guest was started without a pool ([`NO_POOL`](crate::credentials::NO_POOL)).
    Off,
    /// It is being looked for, or mounted.
    Pending,
    /// The pool is mounted.
    Mounted {
        /// Guest uptime when it was, milliseconds.
        uptime_ms: u64,
        /// How long that took, with the wait for the pool's device, milliseconds.
        took_ms: u64,
    },
    /// It could not be mounted; the reason is on the console.
    Failed {
        /// How the program that mounts it ended, in systemd's words (`$SERVICE_RESULT`):
        /// `exit-code` or `signal`.
        result: String,
        /// Its exit status; empty after a signal.
        status: String,
        /// Guest uptime then, milliseconds.
        uptime_ms: u64,
    },
}
