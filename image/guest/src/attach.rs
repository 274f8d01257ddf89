// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What became of the pool in this guest.

use serde::{Deserialize, Serialize};

/// Name of the credential that tells a guest that it has no pool: nothing is attached.
pub const NO_POOL_CREDENTIAL: &str = "famfs.no-pool";

/// Name of the credential that opens a root shell on the serial console.
pub const CONSOLE_CREDENTIAL: &str = "famfs.console";

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
