// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Handles Ctrl-C for the test programs and for xtask. The programs that they started end, so that
//! whoever waits for them fails and cleans up as after any failure, and no new ones are started.

use std::fs;
use std::process::{self, Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::process::{pidfd_open, pidfd_send_signal, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The exit code after Ctrl-C, as in a shell: 128 plus the number of SIGINT.
pub const INTERRUPTED: u8 = 130;

/// How long it may take until a signal is noticed here.
const LAG: Duration = Duration::from_millis(100);

static SEEN: AtomicBool = AtomicBool::new(false);

/// Starts to listen for SIGINT, SIGTERM and SIGHUP. A further SIGINT ends the program at once.
///
/// # Errors
/// Signals cannot be caught.
pub fn listen() -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if !SEEN.swap(true, Ordering::SeqCst) {
                eprintln!("\ninterrupted: ending what was started (Ctrl-C again to stop at once)");
                end_children();
            } else if signal == SIGINT {
                process::exit(128 + signal);
            }
        }
    });
    Ok(())
}

/// Treats the end of the program that started this one as a signal, because `cargo test` does not
/// pass signals on.
///
/// # Errors
/// The kernel refuses.
pub fn follow_parent() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot follow the parent")
}

/// Starts a program, unless a stop was requested; a later request ends the program.
///
/// # Errors
/// A stop was requested, or the program cannot be run.
pub fn spawn(command: &mut Command) -> Result<Child> {
    check()?;
    let child = command
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    // The signal may have come after the check, and children may have been searched before this one
    // existed.
    if seen() {
        end_children();
    }
    Ok(child)
}

/// Whether a stop was requested. Failures after that are expected.
#[must_use]
pub fn seen() -> bool {
    SEEN.load(Ordering::SeqCst)
}

/// Like [`seen`], after a failure: a signal from a terminal also ends children, and their
/// end may be noticed before the signal.
#[must_use]
pub fn seen_after_failure() -> bool {
    if !seen() {
        thread::sleep(LAG);
    }
    seen()
}

/// Fails if a stop was requested.
///
/// # Errors
/// A stop was requested.
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
        // Its id may have been reused before it was opened.
        if let Some(child) = child.filter(|_| parent(pid) == Some(process::id())) {
            // A process that has ended needs no signal.
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
