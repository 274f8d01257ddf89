// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs logplay`

use std::path::PathBuf;

use anyhow::{Result, bail};
use famfs::kernel::mount::Mounted;
use famfs::kernel::player::Task;
use famfs::store::role::Role;
use famfs::sys::dax::Access;
use famfs::system::mounts;
use famfs_cli::args::Logplay;

use super::mkfs::refuse_mounted;
use super::mode;
use super::play::{PlayReport, play, system_or_client};
use crate::output::{FAILED, OK, Outcome, notice};

pub fn run(args: &Logplay) -> Outcome {
    mode::check(args.mode, args.shadowtest)?;
    mode::refuse_shadow(args.shadow.as_deref())?;
    let (mounted, place) = open(args)?;
    let mounted = mounted.telling(|text| notice!("{text}"));
    let volume = mounted.open(Access::Read, system_or_client())?;
    let role = if args.client { Role::Client } else { volume.role() };
    let task = Task { dry_run: args.dry_run, whole: true, ..Task::default() };
    let played = play(&volume, task, args.verbose && !args.json)?;
    let report = PlayReport::new(&played, role, args.dry_run);
    report.print(args.json, &place.display().to_string())?;
    Ok(if played.damaged() { FAILED } else { OK })
}

/// The file system, and the name to report it by.
fn open(args: &Logplay) -> Result<(Mounted, PathBuf)> {
    match (&args.mount_point, &args.daxdev) {
        (Some(path), _) => {
            let mount = mounts::locate(path)?.mount;
            mode::set_daxmode(args.mode, &mount.source)?;
            Ok((Mounted::for_play(&mount.mount_point, &mount.source)?, mount.mount_point))
        }
        (None, Some(device)) => {
            mode::set_daxmode(args.mode, device)?;
            refuse_mounted(device)?;
            Ok((Mounted::detached(device)?, device.clone()))
        }
        (None, None) => bail!("name a mount point, or a device with --daxdev"),
    }
}
