// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Power-on to a mounted pool, against the same VM without a pool.

use anyhow::Result;
use vm_tests::{Artifacts, BOOT, Cluster, Member, Pool, Transport, View};

use super::Measurement;
use super::measurement::Better;
use super::sample::medians;
use crate::{image, paths};

/// The pool and the VM's memory.
const POOL: u64 = 512 << 20;
const MEMORY: u64 = 1 << 30;

/// Boots VMs one after the other.
pub fn run() -> Result<Vec<Measurement>> {
    let artifacts = image::run()?.artifacts(&paths::target().join("vm/bench-boot"))?;
    let pool = Pool::create(&artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    let boot = |transport| boot(&artifacts, &pool, transport);
    let (value, peer) = medians(|| boot(Some(Transport::Shmem)), || boot(None))?;
    Ok(vec![Measurement::new(
        "boot.mounted",
        "power-on to mounted pool",
        "s",
        value,
        ("the same VM without a pool, to its agent", peer),
        (Better::Lower, 1.4),
    )])
}

/// Seconds from the start of QEMU until the VM is ready.
fn boot(artifacts: &Artifacts, pool: &Pool, transport: Option<Transport>) -> Result<f64> {
    let member = Member::new("vm", true).with_transport(transport);
    let cluster = Cluster::start(artifacts, pool, MEMORY, vec![member])?;
    let ready = cluster.wait_ready(BOOT)?;
    cluster.end()?;
    Ok(ready[0].boot.as_secs_f64())
}
