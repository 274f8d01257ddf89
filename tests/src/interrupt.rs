// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ctrl-C while a test program boots VMs: what it started ends, so that whoever waits for it fails and cleans up as
//! after any failure, and no other scenario begins.

use std::fs;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::process::{pidfd_open, pidfd_send_signal, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The exit code after Ctrl-C, as of a shell: 128 and the number of SIGINT.
pub const INTERRUPTED: u8 = 130;

static SEEN: AtomicBool = AtomicBool::new(false);

/// Starts to listen for SIGINT, SIGTERM and SIGHUP, and for the end of whoever started this program: `cargo test` does
/// not pass a signal on. A further SIGINT ends the program at once.
pub fn listen() -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot follow the parent")?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if !SEEN.swap(true, Ordering::Relaxed) {
                eprintln!("\ninterrupted: ending what was started (Ctrl-C again to stop at once)");
                end_children();
            } else if signal == SIGINT {
                process::exit(128 + signal);
            }
        }
    });
    Ok(())
}

/// Whether somebody asked to stop. What fails after that is no news.
pub fn seen() -> bool {
    SEEN.load(Ordering::Relaxed)
}

/// An error once somebody asked to stop.
pub fn check() -> Result<()> {
    ensure!(!seen(), "interrupted");
    Ok(())
}

fn end_children() {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids.filter(|pid| parent(*pid) == Some(process::id())) {
        let child = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let child = child.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // Its number may have been given to another one before it was opened.
        if let Some(child) = child.filter(|_| parent(pid) == Some(process::id())) {
            // One that has ended needs no signal.
            let _ = pidfd_send_signal(child, Signal::TERM);
        }
    }
}

/// The parent of a process (`PPid` of proc_pid_status(5)).
fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    fn children_know_their_parent() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let parent = super::parent(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(parent, Some(std::process::id()));
    }
}
