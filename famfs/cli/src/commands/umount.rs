// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs umount`

use anyhow::{Context, Result, anyhow};
use famfs::system::mounts::{self, MountEntry};
use famfs::system::watcher::Running;
use famfs_cli::args::Umount;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use serde::Serialize;

use crate::output::{OK, Outcome, print_json, say};

#[derive(Serialize)]
struct UmountReport {
    version: u32,
    dry_run: bool,
    device: String,
    mount_point: String,
    /// Whether a `famfs watch` was asked to end.
    watch_ended: bool,
}

pub fn run(args: &Umount) -> Outcome {
    let path = args.mount_point.display();
    let mount = mounts::locate(&args.mount_point)?;
    if !mount.inside.as_os_str().is_empty() {
        let found = mount.mount.mount_point.display();
        return Err(anyhow!("{path} is not a mount point; did you mean {found}?").into());
    }
    let mount_point = &mount.mount.mount_point;
    if args.dry_run {
        print_report(args, &mount.mount, false)?;
        return Ok(OK);
    }
    let mut flags = UnmountFlags::NOFOLLOW;
    // The watch of a detached mount notices that, and ends.
    flags.set(UnmountFlags::DETACH, args.lazy);
    let detach = || unmount(mount_point, flags);
    let watch = Running::find(mount_point)?;
    let mut result = detach();
    // A watch holds the log, and ends on request; other processes do not. The watch of a read-only
    // mount holds the device instead of the mount, and the device must be free after this.
    let watched = match &watch {
        Some(watch) if result.is_ok() || result == Err(Errno::BUSY) => {
            watch.end()?;
            true
        }
        _ => false,
    };
    if watched && result.is_err() {
        result = detach();
    }
    match result {
        Err(Errno::BUSY) => {
            let watch = if watched { "; `famfs watch` was stopped, start it again" } else { "" };
            Err(anyhow!(
                "{path} is busy: a process has open files, mappings or its working directory \
                 there{watch}"
            )
            .into())
        }
        result => {
            result.with_context(|| format!("cannot unmount {path}"))?;
            print_report(args, &mount.mount, watched)?;
            Ok(OK)
        }
    }
}

fn print_report(args: &Umount, mount: &MountEntry, watch_ended: bool) -> Result<()> {
    let (device, mount_point) = (mount.source.display(), mount.mount_point.display());
    if args.json {
        return print_json(&UmountReport {
            version: 1,
            dry_run: args.dry_run,
            device: device.to_string(),
            mount_point: mount_point.to_string(),
            watch_ended,
        });
    }
    if args.dry_run {
        say!("would unmount {device} from {mount_point}")?;
    }
    Ok(())
}
