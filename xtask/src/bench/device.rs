// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The back-end on the host, with a front-end that only maps (measured by the crate's own
//! benchmark). Then the mapping of the window in QEMU, for a large and a small pool. The work is
//! one mmap, so the size of the pool must not matter.

use std::fs;

use anyhow::{Context, Result};
use vm_tests::{Artifacts, BOOT, Cluster, Member, Pool, View};

use super::measurement::Better;
use super::sample::medians;
use super::{Measurement, native};
use crate::{image, paths};

/// The sizes of the pools, and enough memory for the page structures of the large one.
const LARGE: u64 = 16 << 30;
const SMALL: u64 = 64 << 20;
const MEMORY: u64 = 1 << 30;

/// Runs both parts.
pub fn run() -> Result<Vec<Measurement>> {
    // First, before any VM has run: back-ends must be measured on an idle host.
    let mut measurements = native::run("vhost-famfs", "device")?;
    measurements.push(in_qemu()?);
    Ok(measurements)
}

/// Boots a VM on each pool and reads from the back-end's log how long the map took.
fn in_qemu() -> Result<Measurement> {
    let artifacts = image::run()?.artifacts(&paths::target().join("vm/bench-device"))?;
    let make = |size| {
        // Only superblock and log take memory; the rest of the pool remains a hole.
        let pool = Pool::create(&artifacts, size, SMALL, View::Devdax)?;
        pool.mkfs(&[]).map(|()| pool)
    };
    let (large, small) = (make(LARGE)?, make(SMALL)?);
    let (value, peer) = medians(|| map(&artifacts, &large), || map(&artifacts, &small))?;
    Ok(Measurement::new(
        "device.map",
        "SHMEM_MAP of a 16 GiB pool, request to ack",
        "us",
        value,
        ("a 64 MiB pool", peer),
        (Better::Lower, 1.5),
    ))
}

/// How long QEMU took to map the window, in microseconds.
fn map(artifacts: &Artifacts, pool: &Pool) -> Result<f64> {
    let cluster =
        Cluster::start(artifacts, pool, MEMORY, vec![Member::new("vm", true).in_threads()])?;
    cluster.wait_ready(BOOT)?;
    let path = cluster.node("vm")?.vm.config().paths.backend_log.clone();
    cluster.end()?;
    let log =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    log.lines()
        .filter(|line| line.contains("window mapped"))
        .find_map(|line| line.rsplit_once(" us=")?.1.trim().parse().ok())
        .with_context(|| format!("{}: no line 'window mapped' with its time", path.display()))
}
