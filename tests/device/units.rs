// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs the units of `up --emit systemd` under the systemd of a VM. A script stands in for QEMU:
//! what is tested is what systemd does with the units.

use std::fs;

use anyhow::{Context, Result};
use vhost_famfs::vm::Command;
use vm_tests::{Artifacts, BOOT, Cluster, Member, Pool, Session, View, mount_disk, pack_disk};

use super::{MEMORY, POOL, SHORT};

/// The serial number of the disk with the programs, and where the guest has them.
const DISK: &str = "programs";
const PROGRAMS: &str = "/run/programs";

/// Code before each script.
const LIBRARY: &str = include_str!("units/lib.sh");

/// The checks: each has a description, and a script that fails if it does not hold. They are one
/// life of a cluster, so each depends on those before.
const CHECKS: [(&str, &str); 5] = [
    ("a pool that others can change starts nothing", include_str!("units/refused.sh")),
    ("pool, back-end and VM start in this order", include_str!("units/order.sh")),
    (
        "a back-end that is killed stays so until its VM is started again",
        include_str!("units/again.sh"),
    ),
    ("a stopped target leaves nothing but the pool and the logs", include_str!("units/stop.sh")),
    ("a VM that `up` starts is kept to its limits", include_str!("units/limits.sh")),
];

pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let programs = dir.path().join("programs");
    fs::create_dir(&programs).context("cannot make a directory")?;
    for name in ["vhost-famfs", "famfs"] {
        fs::copy(artifacts.programs.join(name), programs.join(name)).context("cannot copy")?;
    }
    let disk = pack_disk(artifacts, &programs, dir.path().join("programs.erofs"), DISK)?;
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    let member = Member::new("systemd", false).with_transport(None).with_disk(disk);
    let cluster = Cluster::start(artifacts, &pool, MEMORY, vec![member])?;
    cluster.wait_ready(BOOT)?;
    let node = cluster.node("systemd")?;
    mount_disk(node, DISK, PROGRAMS)?;
    for (name, script) in CHECKS {
        session.check(name, || {
            node.run(&Command::shell(&format!("{LIBRARY}\n{script}")), SHORT).map(drop)
        });
    }
    session.check("the systemd VM shuts down in order", || cluster.end());
    Ok(())
}
