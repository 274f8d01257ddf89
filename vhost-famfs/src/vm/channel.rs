// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the host reaches a guest's agent.

use serde::{Deserialize, Serialize};

/// How the host reaches a guest's agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// By virtio-serial ports, each with a socket of its own.
    #[default]
    Ports,
    /// By vsock: one socket of the VMM leads to all ports of the guest.
    Vsock,
}
