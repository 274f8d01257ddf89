// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs attach`

mod arrivals;
mod preview;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use famfs::args::Attach;
use famfs::check::one_line;
use famfs::guest::{self, Finding};
use famfs::mount::{Mounted, MountedVolume};
use famfs::mounts;
use famfs::sys::dax::Access;
use serde::Serialize;

use self::arrivals::{Arrivals, DEV};
use super::play::{Played, play, summary, system_or_client};
use crate::output::{FAILED, OK, Outcome, print_json, say};

/// Modules that a guest with a virtio-pmem pool needs and that nothing loads by itself.
const MODULES: [&str; 5] = ["virtio_pmem", "nd_pmem", "dax_pmem", "fsdev_dax", "famfs"];
/// First and longest pause between two looks.
const SHORT_PAUSE: Duration = Duration::from_millis(10);
const LONG_PAUSE: Duration = Duration::from_millis(500);
/// Time for the drivers of other memory devices once a famfs was found: there may be a second one.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Report {
    version: u32,
    device: PathBuf,
    mount_point: PathBuf,
    role: &'static str,
    files: u64,
    directories: u64,
    existed: u64,
    errors: usize,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    name: &'static str,
    milliseconds: u128,
}

pub fn run(args: &Attach) -> Outcome {
    if args.dry_run {
        return preview::run(args);
    }
    let mut clock = Clock::start();
    fs::create_dir_all(&args.mount_point)
        .with_context(|| format!("cannot make {}", args.mount_point.display()))?;
    let mount_point = args.mount_point.canonicalize()?;
    let attached = mounts::read()?
        .into_iter()
        .find(|mount| mount.fs_type == "famfs" && mount.mount_point == mount_point);
    let (device, volume) = match &attached {
        Some(mount) => (mount.source.clone(), Mounted::at(&mount_point, &mount.source)?),
        None => {
            let arrivals = Arrivals::watch(Path::new(DEV));
            let loaded = if args.no_modules { Ok(()) } else { load_modules() };
            clock.step("modules");
            let found = find(args, &arrivals, loaded)?;
            clock.step("device");
            found
        }
    };
    let volume = volume.open(Access::Read, system_or_client())?;
    clock.step("open");
    let played = play(&volume, volume.role(), false, false)?;
    clock.step("logplay");
    if attached.is_none() {
        volume.mounted().attach(&mount_point)?;
        clock.step("mount");
    }
    report(args, device, mount_point, &volume, &played, clock.steps)?;
    Ok(if played.damaged { FAILED } else { OK })
}

/// Those of [`MODULES`] that are not loaded; some may be built in.
fn missing_modules() -> Vec<&'static str> {
    MODULES.into_iter().filter(|name| !Path::new("/sys/module").join(name).exists()).collect()
}

/// Loads what is missing, by one process; an error if that cannot be run. What stays missing may
/// be built in, or somebody else is about to load it; if not, no device will show up.
fn load_modules() -> io::Result<()> {
    let missing = missing_modules();
    if !missing.is_empty() {
        Command::new("modprobe").args(["-q", "-a"]).args(missing).stderr(Stdio::null()).status()?;
    }
    Ok(())
}

/// Waits until a device holds a famfs.
fn find(args: &Attach, arrivals: &Arrivals, loaded: io::Result<()>) -> Result<(PathBuf, Mounted)> {
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let mut pause = SHORT_PAUSE;
    let mut settled = None;
    loop {
        // Before the look: what appears after it was not looked at.
        let all_there = args.device.is_some() || guest::awaited_windows().is_empty();
        let Look { mut found, reasons, clear } = look(args.device.as_deref());
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
                let names: Vec<String> =
                    found.iter().map(|(device, _)| device.display().to_string()).collect();
                bail!("several devices hold a famfs: {}; choose with --device", names.join(", "));
            }
        }
        if Instant::now() >= deadline {
            return Err(not_found(args, &reasons, loaded));
        }
        // A pool that is mapped late, or a driver that is loaded late, makes no new device. Those of
        // a device that has just appeared are not far.
        pause = match arrivals.wait(pause) {
            true => SHORT_PAUSE,
            false => (pause + SHORT_PAUSE).min(LONG_PAUSE),
        };
    }
}

/// What there is.
struct Look {
    /// Devices that hold a famfs.
    found: Vec<(PathBuf, Mounted)>,
    /// The others, and why not.
    reasons: BTreeMap<PathBuf, String>,
    /// Whether another look would see the same, as no driver is at work.
    clear: bool,
}

/// Looks at every device, or the one that is named.
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

fn not_found(
    args: &Attach,
    reasons: &BTreeMap<PathBuf, String>,
    loaded: io::Result<()>,
) -> anyhow::Error {
    let mut text = format!("no famfs found within {} seconds", args.timeout);
    for (device, reason) in reasons {
        text.push_str(&format!("\n  {}: {reason}", device.display()));
    }
    if reasons.is_empty() {
        text.push_str(match &args.device {
            Some(_) => "\nthe named device is not there; without --device all are looked at",
            None => "\nthere is no dax or pmem device: does this VM have a virtio-pmem device?",
        });
    } else {
        text.push_str("\nformat one with `famfs mkfs`, or check the pool on the host");
    }
    let missing = missing_modules();
    if !missing.is_empty() {
        text.push_str(&format!("\nnot loaded, unless built in: {}", missing.join(", ")));
    }
    if let Err(err) = loaded {
        text.push_str(&format!("\nno modules were loaded: cannot run modprobe: {err}"));
    }
    anyhow!(text)
}

fn report(
    args: &Attach,
    device: PathBuf,
    mount_point: PathBuf,
    volume: &MountedVolume,
    played: &Played,
    steps: Vec<Step>,
) -> Result<()> {
    let role = volume.role().name();
    let applied = &played.applied;
    if args.json {
        return print_json(&Report {
            version: 1,
            device,
            mount_point,
            role,
            files: applied.files,
            directories: applied.directories,
            existed: applied.existed,
            errors: applied.errors.len(),
            steps,
        });
    }
    let (device, mount_point) = (device.display(), mount_point.display());
    say!("{device} on {mount_point}: {role}, {}", summary(applied))?;
    for step in steps {
        say!("  {:<8} {:>6} ms", step.name, step.milliseconds)?;
    }
    Ok(())
}

/// Times of the steps so far.
struct Clock {
    last: Instant,
    steps: Vec<Step>,
}

impl Clock {
    fn start() -> Self {
        Self { last: Instant::now(), steps: Vec::new() }
    }

    fn step(&mut self, name: &'static str) {
        self.steps.push(Step { name, milliseconds: self.last.elapsed().as_millis() });
        self.last = Instant::now();
    }
}
