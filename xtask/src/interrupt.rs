// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ctrl-C and its relatives: take down what was started, in order, then report.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
pub use vm_tests::interrupt::INTERRUPTED;

/// The user asked to stop, and the clean-up has run: [`INTERRUPTED`] is the exit code.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; everything that was started is down")]
pub struct Interrupted;

/// Notices that the user asked to stop.
///
/// A signal ends the processes that were handed in. Whoever waits for them sees them go, fails,
/// and its clean-up runs as after any failure. A second signal ends this program at once, and so
/// does one that comes when this value is gone.
pub struct Interrupt {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    seen: AtomicBool,
    processes: Mutex<Vec<Pid>>,
}

impl State {
    fn processes(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_processes(&self) {
        for pid in self.processes().iter() {
            // It may have ended by itself.
            let _ = kill_process(*pid, Signal::TERM);
        }
    }
}

impl Interrupt {
    /// Starts to listen for SIGINT, SIGTERM and SIGHUP.
    pub fn listen() -> Result<Self> {
        let interrupt = Self { state: Arc::default() };
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
        let state = Arc::downgrade(&interrupt.state);
        thread::spawn(move || {
            for signal in signals.forever() {
                let Some(state) = state.upgrade() else {
                    // As if nobody had ever listened.
                    let _ = emulate_default_handler(signal);
                    continue;
                };
                if state.seen.swap(true, Ordering::Relaxed) {
                    std::process::exit(128 + signal);
                }
                eprintln!("\ninterrupted: shutting down (again to stop at once)");
                state.end_processes();
            }
        });
        Ok(interrupt)
    }

    /// Processes to end on a signal; at once if it came already.
    pub fn ends(&self, pids: impl IntoIterator<Item = Pid>) -> Result<(), Interrupted> {
        self.state.processes().extend(pids);
        self.check().inspect_err(|_| self.state.end_processes())
    }

    /// Processes that ended in order: their ids may be given to others.
    pub fn forget(&self) {
        self.state.processes().clear();
    }

    /// An error once the user asked to stop.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.seen() { Err(Interrupted) } else { Ok(()) }
    }

    /// Whether the user asked to stop. What fails after that is no news.
    pub fn seen(&self) -> bool {
        self.state.seen.load(Ordering::Relaxed)
    }
}
