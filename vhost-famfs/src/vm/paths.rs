// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The paths of a VM's files. Their names are defined only here.

use std::array;
use std::path::{Path, PathBuf};

use protocol::exec::PORTS;
use serde::{Deserialize, Serialize};

/// The sockets and logs of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmPaths {
    /// Directory for QEMU's sockets, created at the start of the VM and removed at its end.
    pub runtime_dir: PathBuf,
    /// The socket of the guest's agent for requests of the launcher: port 0 of the protocol.
    pub agent: PathBuf,
    /// The sockets for commands of users: the other ports. Beside each is the lock of the process
    /// that uses it.
    pub commands: [PathBuf; PORTS - 1],
    /// The VMM's socket for the vsock ports of the guest. Older versions of this program did not
    /// write it.
    #[serde(default)]
    pub vsock: PathBuf,
    /// The socket of the port through which guest and host wake each other.
    pub wake: PathBuf,
    /// QEMU's control socket.
    pub qmp: PathBuf,
    /// The socket of the serial console.
    pub console: PathBuf,
    /// The socket that the back-end creates.
    pub backend: PathBuf,
    /// What was written to the console.
    pub console_log: PathBuf,
    /// What QEMU said.
    pub qemu_log: PathBuf,
    /// What the back-end said.
    pub backend_log: PathBuf,
    /// What the process that serves the root device said. The device has this path as its owner.
    #[serde(default)]
    pub device_log: PathBuf,
    /// How QEMU and the back-end ended.
    pub ends: PathBuf,
}

impl VmPaths {
    /// What the name of a [`VmPaths::device_log`] ends with.
    pub const DEVICE_LOG: &str = "ublk";

    /// The paths of the VM with that name. Its sockets are in `run`, the files to be kept in
    /// `logs`.
    #[must_use]
    pub fn new(name: &str, run: &Path, logs: &Path) -> Self {
        let own = run.join(name);
        Self {
            agent: own.join("agent.sock"),
            commands: array::from_fn(|index| own.join(format!("exec{}.sock", index + 1))),
            vsock: own.join("vsock.sock"),
            wake: own.join("wake.sock"),
            qmp: own.join("qmp.sock"),
            console: own.join("console.sock"),
            runtime_dir: own,
            backend: run.join(format!("{name}.sock")),
            console_log: logs.join(format!("{name}.console")),
            qemu_log: logs.join(format!("{name}.qemu")),
            backend_log: logs.join(format!("{name}.backend")),
            device_log: logs.join(format!("{name}.{}", Self::DEVICE_LOG)),
            ends: logs.join(format!("{name}.ends")),
        }
    }

    /// The logs of the console, QEMU, the back-end and the root device.
    #[must_use]
    pub fn logs(self) -> [PathBuf; 4] {
        [self.console_log, self.qemu_log, self.backend_log, self.device_log]
    }
}
