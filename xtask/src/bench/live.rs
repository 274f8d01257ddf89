// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A pool in use: what running VMs cost the host that writes, how soon all of them have what it
//! publishes, and what they take while nothing happens.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use vm_tests::{
    Artifacts, BOOT, Cluster, Idle, Member, Node, Pool, View, interrupt, memory_dir,
    processor_time, watch_latency,
};

use super::Measurement;
use super::measurement::Better;
use super::sample::median;
use crate::{image, paths};

/// Size of the pool that the host copies into, and of what it copies, in bytes.
const POOL: u64 = 3 << 30;
const COPIED: u64 = 1 << 30;
/// Memory of each of the VMs that read it.
const MEMORY: u64 = 768 << 20;
const READERS: [&str; 3] = ["master", "reader", "other"];
/// How often to copy with the VMs, and how often before they start and after they have ended.
const COPIES: usize = 5;
const COPIES_WITHOUT: usize = 3;
/// How often to publish.
const PUBLISHED: usize = 100;

/// VMs that do nothing: how many, the memory of each, their pool, and how many seconds to wait
/// until they have come to rest, and to observe them.
const IDLE_VMS: usize = 16;
/// How many of them boot at the same time, so that none waits too long for its devices.
const AT_ONCE: usize = 4;
const IDLE_MEMORY: u64 = 384 << 20;
const IDLE_POOL: u64 = 64 << 20;
const REST: Duration = Duration::from_secs(30);
const OBSERVED: Duration = Duration::from_secs(20);
const OBSERVED_SECONDS: u32 = 20;

/// The goals: of the rate without VMs; times a wake-up; per cent of a processor.
const RATE: f64 = 0.9;
const WAKE_UPS: f64 = 20.0;
const IDLE_WATCH: f64 = 0.2;
const IDLE_ALL: f64 = 20.0;

/// Copies, publishes and waits.
pub fn run() -> Result<Vec<Measurement>> {
    let artifacts = image::run()?.artifacts(&paths::target().join("vm/bench-live"))?;
    let mut measurements = busy(&artifacts)?;
    measurements.push(idle(&artifacts)?);
    Ok(measurements)
}

/// The host writes into a pool that three VMs follow.
fn busy(artifacts: &Artifacts) -> Result<Vec<Measurement>> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    let dir = memory_dir(COPIED)?;
    let source = dir.path().join("source");
    fill(&source)?;
    // Not measured: the first copy takes the pool's memory from the kernel.
    copy(&pool, &source)?;
    let mut without = copies(&pool, &source, COPIES_WITHOUT)?;
    let members = READERS.map(|name| Member::new(name, name == READERS[0]).in_threads());
    let cluster = Cluster::start(artifacts, &pool, MEMORY, members.into())?;
    cluster.wait_ready(BOOT)?;
    cluster.in_all(Node::wait_watch)?;
    let (master, reader) = (cluster.node(READERS[0])?, cluster.node(READERS[1])?);
    let visible = watch_latency(&pool, master, reader)?;
    let mut published = publish(&pool)?;
    let with = copies(&pool, &source, COPIES)?;
    let idle = Idle::of(reader, OBSERVED_SECONDS)?;
    cluster.end()?;
    without.extend(copies(&pool, &source, COPIES_WITHOUT - 1)?);
    published.sort_by(f64::total_cmp);
    let rate = |seconds: &[f64]| COPIED as f64 / f64::from(1 << 20) / median(seconds);
    let late = published[(published.len() - 1) * 99 / 100];
    Ok(vec![
        Measurement::new(
            "live.copy",
            "cp of 1 GiB on the host, with 3 VMs",
            "MiB/s",
            rate(&with),
            ("without VMs, before and after", rate(&without)),
            (Better::Higher, RATE),
        ),
        Measurement::new(
            "live.publish",
            "publish --wait-all of 3 VMs (99 %)",
            "ms",
            late,
            ("visible in one of them (median)", visible[visible.len() / 2]),
            (Better::Lower, WAKE_UPS),
        ),
        Measurement::new(
            "live.idle-watch",
            "processor of an idle watch, of 3 VMs",
            "%",
            idle.watch,
            ("the goal", IDLE_WATCH),
            (Better::Lower, 1.0),
        ),
    ])
}

/// Bytes to copy: no zeros, and no page like another.
fn fill(path: &Path) -> Result<()> {
    let mut file =
        File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut page = [0xa5; 4096];
    for number in 0..COPIED / page.len() as u64 {
        page[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Seconds that each of some copies takes.
fn copies(pool: &Pool, source: &Path, count: usize) -> Result<Vec<f64>> {
    (0..count).map(|_| copy(pool, source)).collect()
}

/// Seconds that a copy takes. Its memory is free again afterwards.
fn copy(pool: &Pool, source: &Path) -> Result<f64> {
    interrupt::check()?;
    let source = source.to_str().context("a path that is not text")?;
    let start = Instant::now();
    pool.famfs(["cp", source, "/copied"])?;
    let seconds = start.elapsed().as_secs_f64();
    pool.famfs(["rm", "/copied"])?;
    pool.famfs(["reclaim", "--wait", "60"])?;
    Ok(seconds)
}

/// Milliseconds of each `publish --wait-all`, directly after something was published.
fn publish(pool: &Pool) -> Result<Vec<f64>> {
    let members = READERS.len().to_string();
    let one = |number: usize| {
        pool.famfs(["mkdir", &format!("/published{number}")])?;
        let start = Instant::now();
        pool.famfs(["publish", "--wait-all", "--members", &members, "--timeout", "100"])?;
        Ok(start.elapsed().as_secs_f64() * 1000.0)
    };
    (0..PUBLISHED).map(one).collect()
}

/// Many VMs that follow a pool in which nothing happens.
fn idle(artifacts: &Artifacts) -> Result<Measurement> {
    let pool = Pool::create(artifacts, IDLE_POOL, IDLE_POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    let members = (0..IDLE_VMS).map(|n| Member::new(&format!("vm{n}"), n == 0).in_threads());
    let members: Vec<Member> = members.collect();
    let mut clusters = Vec::new();
    for group in members.chunks(AT_ONCE) {
        let cluster = Cluster::start(artifacts, &pool, IDLE_MEMORY, group.to_vec())?;
        cluster.wait_ready(BOOT)?;
        cluster.in_all(Node::wait_watch)?;
        clusters.push(cluster);
    }
    thread::sleep(REST);
    let nodes = clusters.iter().flat_map(Cluster::nodes);
    let pids: Vec<u32> = nodes.map(|node| node.vm.pid()).collect();
    let used = || pids.iter().map(|pid| processor_time(*pid)).sum::<Result<f64>>();
    let (start, before) = (Instant::now(), used()?);
    thread::sleep(OBSERVED);
    let per_cent = (used()? - before) / start.elapsed().as_secs_f64() * 100.0;
    clusters.into_iter().try_for_each(Cluster::end)?;
    Ok(Measurement::new(
        "live.idle-vms",
        "processor of the QEMUs of 16 idle VMs",
        "%",
        per_cent,
        ("the goal", IDLE_ALL),
        (Better::Lower, 1.0),
    ))
}
