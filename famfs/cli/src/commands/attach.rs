// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs attach`

mod preview;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use famfs::guest::search::{Search, SearchError, missing_modules};
use famfs::kernel::mount::Mounted;
use famfs::kernel::play::Played;
use famfs::kernel::player::Task;
use famfs::kernel::volume::MountedVolume;
use famfs::sys::dax::Access;
use famfs::system::mounts;
use famfs_cli::args::Attach;
use serde::Serialize;

use super::mode;
use super::play::{play, summary, system_or_client};
use crate::output::{FAILED, OK, Outcome, notice, print_json, say};

#[derive(Serialize)]
struct AttachReport {
    version: u32,
    device: PathBuf,
    mount_point: PathBuf,
    role: &'static str,
    files: u64,
    directories: u64,
    symlinks: u64,
    links: u64,
    unsafe_links: usize,
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
    let attached = mounts::on(&mount_point)?;
    let (device, volume) = match &attached {
        Some(mount) => (mount.source.clone(), Mounted::for_play(&mount_point, &mount.source)?),
        None => {
            let search = Search::begin(args.device.as_deref(), Duration::from_secs(args.timeout));
            let loaded = load_modules();
            clock.step("modules");
            let found = search.find().map_err(|err| {
                if let Err(err) = loaded {
                    notice!("no modules were loaded: cannot run modprobe: {err}");
                }
                match err {
                    SearchError::Several { .. } => anyhow!("{err}; choose with --device"),
                    err => err.into(),
                }
            })?;
            clock.step("device");
            found
        }
    };
    let volume = volume.open(Access::Read, system_or_client())?;
    clock.step("open");
    let task = Task { safe_links: args.safe_links, ..Task::default() };
    let played = play(&volume, task, false)?;
    clock.step("logplay");
    match &attached {
        None => {
            if mode::read_only(args.read_only) {
                volume.mounted().set_read_only(true)?;
            }
            if mode::noexec(args.noexec) {
                volume.mounted().set_noexec(true)?;
            }
            volume.mounted().attach(&mount_point)?;
            clock.step("mount");
        }
        Some(mount) => {
            let mounted = Mounted::at(&mount_point, &mount.source)?;
            if args.read_only {
                mounted.set_read_only(true)?;
            }
            if args.noexec {
                mounted.set_noexec(true)?;
            }
        }
    }
    report(args, device, mount_point, &volume, &played, clock.steps)?;
    Ok(if played.damaged() { FAILED } else { OK })
}

/// Loads the missing modules with one process; fails if that cannot be run. A module that stays
/// missing may be built in, or somebody else is about to load it; if neither, no device will show
/// up.
fn load_modules() -> io::Result<()> {
    let missing = missing_modules();
    if !missing.is_empty() {
        Command::new("modprobe").args(["-q", "-a"]).args(missing).stderr(Stdio::null()).status()?;
    }
    Ok(())
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
        return print_json(&AttachReport {
            version: 1,
            device,
            mount_point,
            role,
            files: applied.files,
            directories: applied.directories,
            symlinks: applied.symlinks,
            links: applied.links,
            unsafe_links: applied.unsafe_links.len(),
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
