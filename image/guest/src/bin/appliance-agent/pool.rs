// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What became of the pool: reported by who mounts it, told to the host.

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

/// Exists once a pool is mounted: famfs-watch.service asks for it.
const FOLLOWED: &str = "followed";

/// Pause between two looks for a report.
const STEP: Duration = Duration::from_millis(50);

/// The state of the pool, kept up to date by a thread.
#[derive(Clone)]
pub struct Pool {
    attach: Arc<Mutex<Attach>>,
}

impl Pool {
    /// Starts to watch; changes are announced.
    pub fn watch(outlet: Outlet) -> Result<Self> {
        if given::has(NO_POOL) {
            return Ok(Self { attach: Arc::new(Mutex::new(Attach::Off)) });
        }
        let inotify = inotify::init(CreateFlags::CLOEXEC).context("cannot use inotify")?;
        inotify::add_watch(&inotify, DIR, WatchFlags::MOVED_TO)
            .with_context(|| format!("cannot watch {DIR}"))?;
        // Read after the watch is set: no report falls in between.
        let pool = Self { attach: Arc::new(Mutex::new(report::read().unwrap_or(Attach::Pending))) };
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
            if let Some(attach) = report::read() {
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

/// Lets famfs-watch.service start.
pub fn mark_followed() -> Result<()> {
    let mark = Path::new(DIR).join(FOLLOWED);
    fs::write(&mark, "").with_context(|| format!("cannot write {}", mark.display()))
}

/// Waits for the first report; an error if the pool is not mounted. This is famfs-attach.service,
/// which has a limit for it.
pub fn wait_attached() -> Result<()> {
    loop {
        match report::read() {
            Some(Attach::Failed { result, status, .. }) => {
                bail!("the pool is not mounted ({result} {status}); the console has the reason")
            }
            Some(Attach::Mounted { .. } | Attach::Off) => return Ok(()),
            Some(Attach::Pending) | None => thread::sleep(STEP),
        }
    }
}
