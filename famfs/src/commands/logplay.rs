// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs logplay`

use famfs::args::Logplay;
use famfs::mount::Mounted;
use famfs::mounts;
use famfs::role::Role;
use famfs::sys::dax::Access;

use super::play::{play, summary, system_or_client};
use crate::output::{FAILED, OK, Outcome, say};

pub fn run(args: &Logplay) -> Outcome {
    let found = mounts::locate(&args.mount_point)?;
    let mounted = Mounted::at(&found.mount.mount_point, &found.mount.source)?;
    let volume = mounted.open(Access::Read, system_or_client())?;
    let role = if args.client { Role::Client } else { volume.role() };
    let played = play(&volume, role, args.dry_run, args.verbose)?;
    say!("{}: {}", found.mount.mount_point.display(), summary(&played.applied))?;
    Ok(if played.damaged { FAILED } else { OK })
}
