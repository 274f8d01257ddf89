// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What became of the pool: reported by famfs-attach.service, told to the host.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use appliance::attach::{Attach, NO_POOL_CREDENTIAL};
use appliance::credentials::SYSTEM_DIR;
use appliance::exec::Reply;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::outlet::Outlet;

/// Holds the report, and the socket at which the pool changes hands.
pub const DIR: &str = "/run/appliance";

/// Exists once a pool is mounted that can be followed: famfs-watch.service asks for it.
const FOLLOWED: &str = "followed";

/// The report: an [`Attach`] in JSON.
const REPORT: &str = "attach.json";

/// The state of the pool, kept up to date by a thread.
#[derive(Clone)]
pub struct Pool {
    attach: Arc<Mutex<Attach>>,
}

impl Pool {
    /// Starts to watch; changes are announced.
    pub fn watch(outlet: Outlet) -> Result<Self> {
        if credential_exists(NO_POOL_CREDENTIAL) {
            return Ok(Self { attach: Arc::new(Mutex::new(Attach::Off)) });
        }
        make_dir()?;
        let inotify = inotify::init(CreateFlags::CLOEXEC).context("cannot use inotify")?;
        inotify::add_watch(&inotify, DIR, WatchFlags::MOVED_TO)
            .with_context(|| format!("cannot watch {DIR}"))?;
        // Read after the watch is set: no report falls in between.
        let pool = Self { attach: Arc::new(Mutex::new(read_report().unwrap_or(Attach::Pending))) };
        let watched = pool.clone();
        thread::spawn(move || watched.follow(File::from(inotify), &outlet));
        Ok(pool)
    }

    /// The state now.
    pub fn attach(&self) -> Attach {
        self.state().clone()
    }

    fn follow(&self, mut inotify: File, outlet: &Outlet) {
        let mut events = [0; 4096];
        // Only the report is moved here, so the events themselves do not matter.
        while inotify.read(&mut events).is_ok() {
            if let Some(attach) = read_report() {
                *self.state() = attach.clone();
                // A host that is not there yet will ask.
                let _ = outlet.announce(&Reply::Attach { attach });
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, Attach> {
        self.attach.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports how famfs-attach.service ended, unless it was stopped as planned; its `ExecStopPost=`.
pub fn report_failure() -> Result<()> {
    let variable = |name| env::var(name).unwrap_or_default();
    match failure(variable("SERVICE_RESULT"), variable("EXIT_STATUS"), uptime_ms()?) {
        Some(attach) => report(&attach),
        None => Ok(()),
    }
}

/// What systemd's variables say (systemd.exec(5)).
fn failure(result: String, status: String, uptime_ms: u64) -> Option<Attach> {
    (result != "success").then_some(Attach::Failed { result, status, uptime_ms })
}

/// Makes [`DIR`].
pub fn make_dir() -> Result<()> {
    fs::create_dir_all(DIR).with_context(|| format!("cannot make {DIR}"))
}

/// Lets famfs-watch.service start.
pub fn mark_followed() -> Result<()> {
    let mark = Path::new(DIR).join(FOLLOWED);
    make_dir()?;
    fs::write(&mark, "").with_context(|| format!("cannot write {}", mark.display()))
}

/// Leaves a report for the agent that serves the host.
pub fn report(attach: &Attach) -> Result<()> {
    make_dir()?;
    let (new, report) = (Path::new(DIR).join("new"), Path::new(DIR).join(REPORT));
    fs::write(&new, serde_json::to_vec(attach)?)
        .and_then(|()| fs::rename(&new, &report))
        .with_context(|| format!("cannot write {}", report.display()))
}

/// Time since the kernel started, in milliseconds.
pub fn uptime_ms() -> Result<u64> {
    let text = fs::read_to_string("/proc/uptime").context("cannot read /proc/uptime")?;
    parse_uptime(&text).with_context(|| format!("cannot understand /proc/uptime: {text:?}"))
}

/// Seconds with two decimals, then the idle time (proc(5)).
fn parse_uptime(text: &str) -> Option<u64> {
    let (seconds, hundredths) = text.split_ascii_whitespace().next()?.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1000 + hundredths.parse::<u64>().ok()? * 10)
}

fn read_report() -> Option<Attach> {
    serde_json::from_slice(&fs::read(Path::new(DIR).join(REPORT)).ok()?).ok()
}

fn credential_exists(name: &str) -> bool {
    Path::new(SYSTEM_DIR).join(name).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_is_reported_at_the_end() {
        let failed =
            Attach::Failed { result: "exit-code".into(), status: "1".into(), uptime_ms: 7 };
        assert_eq!(failure("exit-code".into(), "1".into(), 7), Some(failed));
        assert_eq!(failure("success".into(), "0".into(), 7), None);
    }

    #[test]
    fn uptime_is_read() {
        assert_eq!(parse_uptime("12.34 20.00\n"), Some(12_340));
        assert_eq!(parse_uptime("0.05 0.00\n"), Some(50));
        assert_eq!(parse_uptime("soon"), None);
        assert!(uptime_ms().unwrap() > 0);
    }
}
