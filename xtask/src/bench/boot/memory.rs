// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much host memory one to four VMs use, with a root on disk and with a root in memory.
//!
//! For a VM, its RAM counts (QEMU's PSS for it); for the root's file, what is in the host's page
//! cache, once. QEMU's own memory does not count: under TCG, most of it is translated code.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::fs::Advice;
use vhost_famfs::host::residency;
use vhost_famfs::vm::Root;
use vm_tests::{Artifacts, BOOT, Cluster, Member, Pool, View, cached, read_root};

use super::plot;
use crate::bench::Measurement;
use crate::bench::measurement::Better;
use crate::{exec, paths};

/// Size of the pool and of the VMs' memory.
const POOL: u64 = 64 << 20;
const MEMORY: u64 = 512 << 20;

/// Maximum number of VMs at a time.
const MOST: usize = 4;

/// How much of a root in memory a guest may keep in its own page cache, in 10^6 bytes.
const MAX_CACHED: f64 = 2.0;

/// The memory of several VMs of one kind that have all read their whole root, in bytes.
struct Cost {
    /// The largest page cache of any guest.
    cached: u64,
    /// Host memory used by all of them.
    host: u64,
}

/// Measures both kinds and draws the picture.
pub fn run(artifacts: &Artifacts) -> Result<Vec<Measurement>> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    let image = &artifacts.image;
    let disk = grow(artifacts, &pool, Root::Disk, &image.join("root.erofs"))?;
    let dax = grow(artifacts, &pool, Root::Memory, &image.join("root-dax.erofs"))?;
    let host = |costs: &[Cost]| costs.iter().map(|cost| mebibytes(cost.host)).collect::<Vec<f64>>();
    let path = paths::target().join("bench/boot-memory.svg");
    fs::write(&path, plot::draw(&[("default", host(&disk)), ("dax", host(&dax))]))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let row = |id: &str, what: &str, n: usize, of: fn(&Cost) -> f64, unit| {
        let peer = ("default: the root on a virtio disk", of(&disk[n - 1]));
        let (id, what) = (format!("boot.dax.{id}.{n}"), format!("dax: {what}, VMs: {n}"));
        Measurement::new(&id, &what, unit, of(&dax[n - 1]), peer, (Better::Lower, None))
    };
    let cached = |cost: &Cost| cost.cached as f64 / 1e6;
    let mut rows: Vec<Measurement> =
        (1..=MOST).map(|n| row("cached", "page cache in a guest", n, cached, "MB")).collect();
    rows.extend(
        (1..=MOST).map(|n| row("host", "host memory", n, |cost| mebibytes(cost.host), "MiB")),
    );
    rows.push(Measurement::new(
        "boot.dax.cached",
        &format!("dax: most in a guest, VMs: 1 to {MOST}"),
        "MB",
        dax.iter().map(cached).fold(0.0, f64::max),
        ("limit", MAX_CACHED),
        (Better::Lower, 1.0),
    ));
    Ok(rows)
}

/// Starts one VM after the other, lets each read its root, and each time measures all of them.
fn grow(artifacts: &Artifacts, pool: &Pool, root: Root, file: &Path) -> Result<Vec<Cost>> {
    forget(file)?;
    let (mut clusters, mut costs) = (Vec::new(), Vec::new());
    for number in 1..=MOST {
        let name = format!("{}-{number}", root.profile());
        let member = Member::new(&name, number == 1).with_root(root);
        let cluster = Cluster::start(artifacts, pool, MEMORY, vec![member])?;
        cluster.wait_ready(BOOT)?;
        read_root(&cluster.nodes()[0])?;
        clusters.push(cluster);
        costs.push(look(&clusters, file)?);
    }
    clusters.into_iter().rev().try_for_each(Cluster::end)?;
    Ok(costs)
}

fn look(clusters: &[Cluster], file: &Path) -> Result<Cost> {
    let mapped = residency::MappedFile::of(file)?;
    let mut cost = Cost { cached: 0, host: in_page_cache(file)? };
    for node in clusters.iter().flat_map(Cluster::nodes) {
        cost.cached = cost.cached.max(cached(node)?);
        cost.host += residency::of_process(node.vm.pid(), &mapped)?.ram.pss;
    }
    Ok(cost)
}

/// Drops a file from the host's page cache, where building has left it.
fn forget(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| {
            file.sync_all()?;
            Ok(rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?)
        })
        .with_context(|| format!("cannot drop {} from the page cache", path.display()))
}

/// How many bytes of a file are in the host's page cache.
fn in_page_cache(path: &Path) -> Result<u64> {
    let mut fincore = Command::new("fincore");
    fincore.args(["--bytes", "--noheadings", "--output", "RES"]).arg(path);
    let text = exec::output(&mut fincore)?;
    text.trim().parse().with_context(|| format!("fincore {}: {text}", path.display()))
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
