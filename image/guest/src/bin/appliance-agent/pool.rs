// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The state of the pool, as reported by the program that mounts it, and announced to the host.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use guest::given;
use guest::report::{self, DIR};
use protocol::attach::Attach;
use protocol::credentials::NO_POOL;
use protocol::exec::Reply;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::outlet::Outlet;

/// Exists once a pool is mounted; a condition of famfs-watch.service.
const FOLLOWED: &str = "followed";

/// Pause between two checks for a report.
const STEP: Duration = Duration::from_millis(50);

/// The state of the pool, kept up to date by a thread.
#[derive(Clone)]
pub struct Pool {
    attach: Arc<Mutex<Attach>>,
}

impl Pool {
    /// Starts watching; changes are announced.
    pub fn watch(outlet: Outlet) -> Result<Self> {
        if given::has(NO_POOL) {
            return Ok(Self::none());
        }
        let inotify = inotify::init(CreateFlags::CLOEXEC).context("cannot use inotify")?;
        inotify::add_watch(&inotify, DIR, WatchFlags::MOVED_TO)
            .with_context(|| format!("cannot watch {DIR}"))?;
        // Read after the watch is set, so that no report is missed in between.
        let pool = Self { attach: Arc::new(Mutex::new(report::read().unwrap_or(Attach::Pending))) };
        let watched = pool.clone();
        thread::spawn(move || watched.follow(File::from(inotify), &outlet));
        Ok(pool)
    }

    /// No pool.
    pub fn none() -> Self {
        Self { attach: Arc::new(Mutex::new(Attach::Off)) }
    }

    /// The current state.
    pub fn attach(&self) -> Attach {
        self.state().clone()
    }

    fn follow(&self, mut inotify: File, outlet: &Outlet) {
        let mut events = [0; 4096];
        // Only the report is moved here, so the events themselves need no check.
        while inotify.read(&mut events).is_ok() {
            if let Some(attach) = report::read() {
                *self.state() = attach.clone();
                // A host that is not connected yet will ask.
                let _ = outlet.announce(&Reply::Attach { attach });
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, Attach> {
        self.attach.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Allows famfs-watch.service to start.
pub fn mark_followed() -> Result<()> {
    let mark = Path::new(DIR).join(FOLLOWED);
    fs::write(&mark, "").with_context(|| format!("cannot write {}", mark.display()))
}

/// Reports that the unit that mounts the pool has failed; systemd tells how (systemd.exec(5),
/// `$SERVICE_RESULT`). Does nothing if it has not.
pub fn report_failure() -> Result<()> {
    let variable = |name| env::var(name).unwrap_or_default();
    let uptime_ms = report::uptime_ms().context("cannot read the time")?;
    match failure(&variable("SERVICE_RESULT"), &variable("EXIT_STATUS"), uptime_ms) {
        Some(attach) => report::leave(&attach).context("cannot report the failure"),
        None => Ok(()),
    }
}

fn failure(result: &str, status: &str, uptime_ms: u64) -> Option<Attach> {
    let failed = !["", "success"].contains(&result);
    failed.then(|| Attach::Failed { result: result.into(), status: status.into(), uptime_ms })
}

/// Waits for the first report; fails if the pool is not mounted. This is famfs-attach.service,
/// which has a time limit.
pub fn wait_attached() -> Result<()> {
    loop {
        match report::read() {
            Some(Attach::Failed { result, status, .. }) => {
                bail!("the pool is not mounted ({result} {status}); see the console for the reason")
            }
            Some(Attach::Mounted { .. } | Attach::Off) => return Ok(()),
            Some(Attach::Pending) | None => thread::sleep(STEP),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_unit_that_failed_is_reported() {
        assert_eq!(failure("success", "0", 7), None);
        assert_eq!(failure("", "", 7), None);
        let (result, status) = ("exit-code".to_owned(), "1".to_owned());
        let expected = Attach::Failed { result, status, uptime_ms: 7 };
        assert_eq!(failure("exit-code", "1", 7), Some(expected));
    }
}
