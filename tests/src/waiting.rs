// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Waits for what a guest does in its own time: units start, and console output reaches the log on
//! the host.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use vhost_famfs::vm::Command;

use crate::{Node, interrupt};

/// How long anything in a guest may take, under emulation on a busy host.
const LIMIT: Duration = Duration::from_secs(300);

/// Pause between two checks in a guest, or of a file on the host.
const GUEST_PAUSE: Duration = Duration::from_millis(100);
const HOST_PAUSE: Duration = Duration::from_millis(20);

impl Node {
    /// Waits until a shell command succeeds in the guest.
    pub fn wait_for(&self, command: &str) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while !self.vm.exec(&Command::shell(command), LIMIT)?.status.success() {
            if Instant::now() > end {
                bail!("VM {}: not within {LIMIT:?}: {command}", self.vm.name());
            }
            thread::sleep(GUEST_PAUSE);
        }
        Ok(())
    }

    /// Waits until the guest follows the pool's log: a VM is already ready when the pool is
    /// mounted. The unit is active once the watch itself reports so (`Type=notify`).
    pub fn wait_watch(&self) -> Result<()> {
        self.wait_for("systemctl is-active --quiet famfs-watch")
    }

    /// Waits until the console's log contains a text, and returns the whole log. Output of a
    /// program may arrive there after the program has continued.
    pub fn wait_console(&self, text: &str) -> Result<String> {
        let end = Instant::now() + LIMIT;
        loop {
            let console = fs::read(self.console_log()).context("cannot read the console")?;
            let console = String::from_utf8_lossy(&console).into_owned();
            if console.contains(text) {
                return Ok(console);
            }
            interrupt::check()?;
            if Instant::now() > end {
                bail!("VM {}: {text:?} is not on the console:\n{console}", self.vm.name());
            }
            thread::sleep(HOST_PAUSE);
        }
    }
}
