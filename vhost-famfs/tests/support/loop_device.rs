// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files as block devices of the host, by the loop driver.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A loop device; dropping detaches it.
pub struct LoopDevice(PathBuf);

impl LoopDevice {
    /// A device of a file, which it cannot write; `None` if this user can make none.
    pub fn of(file: &Path) -> Option<Self> {
        let mut command = Command::new("losetup");
        command.args(["--find", "--show", "--read-only"]).arg(file);
        let output = command.output().ok().filter(|output| output.status.success())?;
        let device = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
        Some(Self(device))
    }

    /// The device.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}
