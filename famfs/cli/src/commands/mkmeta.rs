// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs mkmeta`

use anyhow::{Context, anyhow};
use famfs::format::path::META_DIR;
use famfs::kernel::mount::{LOG_FILE, Mounted, SUPERBLOCK_FILE};
use famfs::sys::dax::Access;
use famfs::system::mounts;
use famfs_cli::args::Mkmeta;
use serde::Serialize;

use super::play::system_or_client;
use crate::output::{OK, Outcome, print_json, say};

const FILES: [&str; 2] = [SUPERBLOCK_FILE, LOG_FILE];

#[derive(Serialize)]
struct MkmetaReport {
    version: u32,
    dry_run: bool,
    device: String,
    mount_point: String,
    /// Paths of the superblock and the log.
    files: [String; 2],
}

pub fn run(args: &Mkmeta) -> Outcome {
    let name = args.device.display();
    let device = args.device.canonicalize().with_context(|| format!("cannot find {name}"))?;
    let mount = mounts::of(&device)?
        .ok_or_else(|| anyhow!("{name} is not mounted; mount it with `famfs mount`"))?;
    if !args.dry_run {
        let mounted = Mounted::for_play(&mount.mount_point, &mount.source)?;
        mounted.open(Access::Read, system_or_client())?;
    }
    let mount_point = mount.mount_point.display();
    let files = FILES.map(|file| format!("{mount_point}/{META_DIR}/{file}"));
    if args.json {
        let (device, mount_point) = (name.to_string(), mount_point.to_string());
        print_json(&MkmetaReport {
            version: 1,
            dry_run: args.dry_run,
            device,
            mount_point,
            files,
        })?;
    } else if args.dry_run {
        say!("would make {}, if missing", files.join(" and "))?;
    } else if args.verbose {
        say!("{} exist", files.join(" and "))?;
    }
    Ok(OK)
}
