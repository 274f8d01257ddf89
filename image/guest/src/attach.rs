// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What became of the pool in this guest.

use serde::{Deserialize, Serialize};

pub use crate::credentials::{CONSOLE as CONSOLE_CREDENTIAL, NO_POOL as NO_POOL_CREDENTIAL};

/// The state of `famfs-attach.service`, as the guest reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Attach {
    /// The guest was started without a pool ([`NO_POOL_CREDENTIAL`]).
    Off,
    /// The unit has not finished yet.
    Pending,
    /// The pool is mounted.
    Mounted {
        /// Guest uptime when the unit finished, milliseconds.
        uptime_ms: u64,
    },
    /// The unit failed; its messages are on the console.
    Failed {
        /// systemd's word for the reason (`$SERVICE_RESULT`): `exit-code`, `signal`, `timeout`, ...
        result: String,
        /// Exit status or signal name of the program (`$EXIT_STATUS`), empty if it never ran.
        status: String,
        /// Guest uptime when the unit failed, milliseconds.
        uptime_ms: u64,
    },
}
