// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ctrl-C and its relatives: take down what was started, in order, then report.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The exit code after Ctrl-C, as of a shell: 128 and the number of SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Notices that the user asked to stop.
///
/// A signal ends the processes that were handed in. Whoever waits for them sees them go, fails,
/// and its clean-up runs as after any failure. A second signal ends this program at once.
pub struct Interrupt {
    seen: Arc<AtomicBool>,
    processes: Arc<Mutex<Vec<Pid>>>,
}

impl Interrupt {
    /// Starts to listen for SIGINT, SIGTERM and SIGHUP.
    pub fn listen() -> Result<Self> {
        let interrupt = Self {
            seen: Arc::new(AtomicBool::new(false)),
            processes: Arc::new(Mutex::new(Vec::new())),
        };
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
        let (seen, processes) = (Arc::clone(&interrupt.seen), Arc::clone(&interrupt.processes));
        thread::spawn(move || {
            for signal in signals.forever() {
                if seen.swap(true, Ordering::Relaxed) {
                    std::process::exit(128 + signal);
                }
                eprintln!("\ninterrupted: shutting down (again to stop at once)");
                for pid in processes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    // It may have ended by itself.
                    let _ = kill_process(*pid, Signal::TERM);
                }
            }
        });
        Ok(interrupt)
    }

    /// Processes to end on a signal.
    pub fn ends(&self, pids: impl IntoIterator<Item = Pid>) -> Result<()> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).extend(pids);
        self.check()
    }

    /// Processes that ended in order: their ids may be given to others.
    pub fn forget(&self) {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// An error once the user asked to stop.
    pub fn check(&self) -> Result<()> {
        anyhow::ensure!(!self.seen(), "interrupted");
        Ok(())
    }

    /// Whether the user asked to stop. What fails after that is no news.
    pub fn seen(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }
}
