// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Block devices of images and pools, in one VM: the appliance exports its own root, writes to it
//! through overlays, and kills the server during work.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vhost_famfs::vm::{Command, Disk};
use vm_tests::{
    Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View, mount_disk, pack_disk,
};

const POOL: u64 = 64 << 20;
const MEMORY: u64 = 1 << 30;
/// A script, under emulation on a busy host.
const LIMIT: Duration = Duration::from_secs(600);
/// How many consecutive kills and recoveries `--all` runs.
const LONG_LIMIT: Duration = Duration::from_secs(1800);
/// The serial number of the disk with programs.
const DISK: &str = "ublk-tests";

/// Code that all scripts share.
const LIBRARY: &str = include_str!("ublk/lib.sh");

/// The checks: each has a description, and a script that fails if it does not hold. No script
/// depends on earlier ones.
const CHECKS: &[(&str, &str)] = &[
    ("without a driver it says so and makes nothing", include_str!("ublk/no_driver.sh")),
    ("the image is shown as it is", include_str!("ublk/image.sh")),
    ("changes are kept in the overlay, and the image stays", include_str!("ublk/overlay.sh")),
    (
        "fio verifies what it wrote and what it trimmed",
        concat!("options= zero_copy=true\n", include_str!("ublk/verify.sh")),
    ),
    (
        "and with data copied through the server",
        concat!("options=--copy zero_copy=false\n", include_str!("ublk/verify.sh")),
    ),
    ("what is in memory is read from there, and holes stay holes", include_str!("ublk/memory.sh")),
    ("a pool is shown from where its view begins", include_str!("ublk/pool.sh")),
    ("what cannot be is refused, and nothing is left", include_str!("ublk/refusals.sh")),
    ("a full disk below an overlay fails writes, and no more", include_str!("ublk/full.sh")),
    ("a socket unit makes the device when it is asked for", include_str!("ublk/activation.sh")),
    ("VMs of a cluster have root devices, and leave none", include_str!("ublk/cluster.sh")),
    ("a user without privileges can have a device", include_str!("ublk/unprivileged.sh")),
];

fn main() -> Result<ExitCode> {
    let artifacts = Artifacts::from_env()?;
    let mut session = Session::from_args()?;
    session.scenario("ublk", |s| scenario(s, &artifacts));
    Ok(session.finish())
}

fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let disk = programs_disk(artifacts, dir.path())?;
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    let member = Member::new("ublk", false).with_transport(None).with_disk(disk);
    let cluster = Cluster::start(artifacts, &pool, MEMORY, vec![member])?;
    cluster.wait_ready(BOOT)?;
    let node = cluster.node("ublk")?;
    mount_disk(node, DISK, Artifacts::GUEST_PROGRAMS)?;
    shell(node, "mkdir $scratch && mount -t tmpfs -o size=700M scratch $scratch", LIMIT)?;
    for (name, script) in CHECKS {
        if session.wants(&format!("ublk/{name}")) {
            session.check(name, || shell(node, script, LIMIT).map(drop));
        }
    }
    let kills = if artifacts.all { 20 } else { 2 };
    session.check(&format!("{kills} kills in the middle of fio lose nothing"), || {
        let script = format!("kills={kills}\n{}", include_str!("ublk/kill.sh"));
        println!("{}", shell(node, &script, LONG_LIMIT)?.trim_end());
        Ok(())
    });
    session.check("nothing is left: no device, record, process or file", || {
        let left = shell(node, include_str!("ublk/left.sh"), LIMIT)?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    });
    session.check("shuts down in order", || cluster.end());
    Ok(())
}

/// Runs a script in the guest and returns what it printed.
fn shell(node: &Node, script: &str, limit: Duration) -> Result<String> {
    let output = node.run(&Command::shell(&format!("{LIBRARY}\n{script}")), limit)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A disk with the programs, the driver and the units.
fn programs_disk(artifacts: &Artifacts, dir: &Path) -> Result<Disk> {
    let programs = artifacts.guest_programs.as_ref().context("no programs for the guest")?;
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vhost-famfs/units");
    let copies = [
        (artifacts.image.join("test-modules/ublk_drv.ko"), "ublk_drv.ko"),
        (units.join("vhost-famfs-ublk@.service"), "vhost-famfs-ublk@.service"),
        (units.join("vhost-famfs-ublk@.socket"), "vhost-famfs-ublk@.socket"),
    ];
    for (from, name) in copies {
        fs::copy(&from, programs.join(name))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    pack_disk(artifacts, programs, dir.join("programs.erofs"), DISK)
}
