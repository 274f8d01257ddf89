// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs mkmeta`

use anyhow::{Context, anyhow};
use famfs::args::Mkmeta;
use famfs::mount::Mounted;
use famfs::mounts;
use famfs::sys::dax::Access;

use super::play::system_or_client;
use crate::output::{OK, Outcome, say};

pub fn run(args: &Mkmeta) -> Outcome {
    let name = args.device.display();
    let device = args.device.canonicalize().with_context(|| format!("cannot find {name}"))?;
    let mount = mounts::read()?
        .into_iter()
        .find(|mount| {
            mount.fs_type == "famfs" && mount.source.canonicalize().is_ok_and(|path| path == device)
        })
        .ok_or_else(|| anyhow!("{name} is not mounted; mount it with `famfs mount`"))?;
    let mount_point = mount.mount_point.display();
    if args.dry_run {
        say!("would make the files of superblock and log below {mount_point}/.meta, if missing")?;
        return Ok(OK);
    }
    Mounted::at(&mount.mount_point, &mount.source)?.open(Access::Read, system_or_client())?;
    if args.verbose {
        say!("{mount_point}/.meta/.superblock and {mount_point}/.meta/.log are there")?;
    }
    Ok(OK)
}
