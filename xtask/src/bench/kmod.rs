// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reading through famfs.ko, against tmpfs in the same guest.

use std::time::{Duration, Instant};

use anyhow::Result;
use vhost_famfs::launch::Command;
use vm_tests::{BOOT, Cluster, Member, Pool, View};

use super::Measurement;
use super::measurement::Better;
use super::sample::medians;
use crate::{image, paths};

/// Bytes that are read.
const FILE: u64 = 128 << 20;

/// The pool and the VM's memory.
const POOL: u64 = 256 << 20;
const MEMORY: u64 = 1 << 30;

/// How long anything in the guest may take.
const DEADLINE: Duration = Duration::from_secs(240);

/// Reads a file with large reads, from famfs and from tmpfs.
pub fn run() -> Result<Vec<Measurement>> {
    let artifacts = image::run()?.artifacts(&paths::target().join("vm/bench-kmod"))?;
    let pool = Pool::create(&artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    pool.famfs(["creat", "--size", &FILE.to_string(), "--seed", "1", "/file"])?;
    let cluster = Cluster::start(&artifacts, &pool, MEMORY, vec![Member::new("vm", true)])?;
    cluster.wait_ready(BOOT)?;
    let node = cluster.node("vm")?;
    node.run(&Command::new(["cp", "/mnt/famfs/file", "/tmp/file"]), DEADLINE)?;
    let read = |path: &str| -> Result<f64> {
        let input = format!("if={path}");
        let dd = Command::new(["dd", &input, "of=/dev/null", "bs=2M", "status=none"]);
        let start = Instant::now();
        node.run(&dd, DEADLINE)?;
        Ok((FILE >> 20) as f64 / start.elapsed().as_secs_f64())
    };
    let (value, peer) = medians(|| read("/mnt/famfs/file"), || read("/tmp/file"))?;
    cluster.end()?;
    Ok(vec![Measurement::new(
        "kmod.read",
        "read(2) of a file, 2 MiB at a time",
        "MiB/s",
        value,
        ("tmpfs in the same guest", peer),
        (Better::Higher, 0.9),
    )])
}
