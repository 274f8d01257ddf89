// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How long it takes until a new file of the master is visible in another VM that follows the log.

use anyhow::{Context, Result};
use vm_tests::{BOOT, Cluster, Member, Pool, View, watch_latency};

use super::Measurement;
use super::measurement::Better;
use crate::{image, paths};

/// Size of the pool and of the VMs' memory.
const POOL: u64 = 512 << 20;
const MEMORY: u64 = 768 << 20;

/// The goal in milliseconds; there is no other program to compare with.
const WANTED: f64 = 10.0;

/// Creates files in one VM and waits for them in the other.
pub fn run() -> Result<Vec<Measurement>> {
    let artifacts = image::run()?.artifacts(&paths::target().join("vm/bench-watch"))?;
    let pool = Pool::create(&artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    let members =
        vec![Member::new("master", true).in_threads(), Member::new("reader", false).in_threads()];
    let cluster = Cluster::start(&artifacts, &pool, MEMORY, members)?;
    cluster.wait_ready(BOOT)?;
    let times = watch_latency(&pool, cluster.node("master")?, cluster.node("reader")?)?;
    cluster.end()?;
    let median = times.get(times.len() / 2).copied().context("nothing was measured")?;
    Ok(vec![Measurement::new(
        "watch.visible",
        "new file visible in another VM (median)",
        "ms",
        median,
        ("the goal", WANTED),
        (Better::Lower, 1.0),
    )])
}
