// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds the device of this machine that holds a famfs, when it appears.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::guest::arrivals::{Arrivals, DEV};
use crate::guest::{self, Finding};
use crate::kernel::mount::Mounted;
use crate::text::error_report::one_line;

/// Modules that a guest with a virtio-pmem pool needs and that nothing else loads.
const MODULES: [&str; 5] = ["virtio_pmem", "nd_pmem", "dax_pmem", "fsdev_dax", "famfs"];
/// First and longest pause between two looks.
const SHORT_PAUSE: Duration = Duration::from_millis(10);
const LONG_PAUSE: Duration = Duration::from_millis(500);
/// Time for the drivers of other memory devices after a famfs was found: there may be a second one.
const SETTLE: Duration = Duration::from_secs(2);

/// Why no device was found.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// There is more than one.
    #[error("several devices hold a famfs: {}", names(devices))]
    Several {
        /// The devices.
        devices: Vec<PathBuf>,
    },
    /// There is none.
    #[error("no famfs found within {} seconds{}", limit.as_secs(), explain(*named, reasons))]
    None {
        /// How long the search waited.
        limit: Duration,
        /// Whether only a named device was examined.
        named: bool,
        /// What each device holds instead.
        reasons: BTreeMap<PathBuf, String>,
    },
}

/// A search that notices what appears from its beginning on.
pub struct Search<'a> {
    device: Option<&'a Path>,
    limit: Duration,
    arrivals: Arrivals,
}

impl<'a> Search<'a> {
    /// Begins to search for a famfs on any device, or on a named one.
    pub fn begin(device: Option<&'a Path>, limit: Duration) -> Self {
        Self { device, limit, arrivals: Arrivals::watch(Path::new(DEV)) }
    }

    /// Waits until a device holds a famfs, and makes a file system for it without a mount point.
    ///
    /// # Errors
    /// There is none in time, or more than one.
    pub fn find(&self) -> Result<(PathBuf, Mounted), SearchError> {
        let deadline = Instant::now() + self.limit;
        let mut pause = SHORT_PAUSE;
        let mut settled = None;
        loop {
            // Before the look: what appears after it has not been examined.
            let all_there = self.device.is_some() || guest::awaited_windows().is_empty();
            let Look { mut found, reasons, clear } = look(self.device);
            match found.len() {
                0 => {}
                1 => {
                    let settled =
                        *settled.get_or_insert_with(|| (Instant::now() + SETTLE).min(deadline));
                    if all_there && clear || Instant::now() >= settled {
                        return Ok(found.remove(0));
                    }
                }
                _ => {
                    let devices = found.into_iter().map(|(device, _)| device).collect();
                    return Err(SearchError::Several { devices });
                }
            }
            if Instant::now() >= deadline {
                let named = self.device.is_some();
                return Err(SearchError::None { limit: self.limit, named, reasons });
            }
            // A pool that is mapped late, or a driver that is loaded late, makes no new device.
            // Those of a device that has just appeared come soon.
            pause = match self.arrivals.wait(pause) {
                true => SHORT_PAUSE,
                false => (pause + SHORT_PAUSE).min(LONG_PAUSE),
            };
        }
    }
}

/// Modules that are needed here but not loaded; some may be built in.
pub fn missing_modules() -> Vec<&'static str> {
    MODULES.into_iter().filter(|name| !Path::new("/sys/module").join(name).exists()).collect()
}

/// The devices there are.
struct Look {
    /// Devices that hold a famfs.
    found: Vec<(PathBuf, Mounted)>,
    /// The others, and why not.
    reasons: BTreeMap<PathBuf, String>,
    /// Whether another look would see the same, because no driver is still working.
    clear: bool,
}

/// Examines every device, or the named one.
fn look(named: Option<&Path>) -> Look {
    let mut look = Look { found: Vec::new(), reasons: BTreeMap::new(), clear: true };
    let dax = guest::dax_devices();
    let pmem = guest::pmem_devices();
    let dax = dax.iter().map(|name| (name, true));
    for (name, is_dax) in dax.chain(pmem.iter().map(|name| (name, false))) {
        let device = Path::new("/dev").join(name);
        if named.is_some_and(|named| named != device) {
            continue;
        }
        let finding = if is_dax {
            guest::bind_fsdev(name, named.is_some()).map(|()| guest::look_at_dax(name))
        } else {
            guest::look_at_pmem(name)
        };
        let reason = match finding {
            Ok(Finding::Famfs(mounted)) => {
                look.found.push((device, mounted));
                continue;
            }
            Ok(Finding::Not(reason)) => reason,
            Ok(Finding::NotYet(reason)) => {
                look.clear = false;
                reason
            }
            Err(err) => one_line(&err),
        };
        look.reasons.insert(device, reason);
    }
    look
}

fn names(devices: &[PathBuf]) -> String {
    let names: Vec<String> = devices.iter().map(|device| device.display().to_string()).collect();
    names.join(", ")
}

/// What was found instead of a famfs, a line each, and the way out.
fn explain(named: bool, reasons: &BTreeMap<PathBuf, String>) -> String {
    let mut text: String = reasons
        .iter()
        .map(|(device, reason)| format!("\n  {}: {reason}", device.display()))
        .collect();
    text.push_str(match (reasons.is_empty(), named) {
        (true, true) => "\nthe named device does not exist; without --device, all are examined",
        (true, false) => {
            "\nthere is no dax or pmem device: does this VM have a virtio-pmem device?"
        }
        (false, _) => "\non the host, `vhost-famfs pool inspect POOL` shows what the pool holds",
    });
    let missing = missing_modules();
    if !missing.is_empty() {
        text.push_str(&format!("\nnot loaded, unless built in: {}", missing.join(", ")));
    }
    text
}
