// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes that tests watch.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Waits until a process has ended; a zombie has.
pub fn wait_for_end(pid: u32) {
    let start = Instant::now();
    while is_running(pid) {
        assert!(start.elapsed() < LIMIT, "process {pid} is still running");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process runs.
pub fn is_running(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:\t"));
    state.is_some_and(|state| !state.starts_with(['Z', 'X']))
}
