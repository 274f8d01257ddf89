// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The state of the pool in a guest.

use serde::{Deserialize, Serialize};

/// The state of the pool, as the guest reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Attach {
    /// The guest was started without a pool ([`NO_POOL`](crate::credentials::NO_POOL)).
    Off,
    /// The guest is searching for it or mounting it.
    Pending,
    /// The pool is mounted.
    Mounted {
        /// Guest uptime at that moment, in milliseconds.
        uptime_ms: u64,
        /// How long it took, including the wait for the pool's device, in milliseconds.
        took_ms: u64,
    },
    /// It could not be mounted; see the console for the reason.
    Failed {
        /// How the program that mounts it ended, in systemd's terms (`$SERVICE_RESULT`):
        /// `exit-code` or `signal`.
        result: String,
        /// Its exit status; empty after a signal.
        status: String,
        /// Guest uptime at that moment, in milliseconds.
        uptime_ms: u64,
    },
}
