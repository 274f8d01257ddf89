// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask demo`: shares one directory through one pool between several VMs, and shows the
//! cost.

mod guest;
mod report;
mod share;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use famfs::system::output_file;
use serde::Deserialize;
use vhost_famfs::host::residency::{self, MappedFile};
use vhost_famfs::vm::Attach;
use vm_tests::{Artifacts, Cluster, Member, Pool, View, interrupt};

use crate::args::DemoArgs;
use crate::{image, paths, setup};
use guest::Checked;
use report::{HostMemory, Report, Shared, VmRow};
use share::Share;

/// Guest memory that a pool costs: a 64-byte `struct page` for each 4 KiB page.
const PAGE_STRUCTS: u64 = 64;

/// Memory that a guest's kernel and programs use in the end, to check that the host has enough.
const GUEST_NEEDS: u64 = 400 << 20;

/// What `famfs cp --json` reports as left out.
#[derive(Deserialize)]
struct Copied {
    skipped: Vec<Skipped>,
}

/// A file that famfs cannot store, and the reason.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
struct Skipped {
    path: PathBuf,
    reason: String,
}

/// Runs the demo; it succeeds if every check passed.
pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    let report = demo(args)?;
    println!("{report}");
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report).context("cannot write JSON")?;
        output_file::write(path, (text + "\n").as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let problems = report.problems();
    for problem in &problems {
        eprintln!("demo: {problem}");
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn demo(args: &DemoArgs) -> Result<Report> {
    // Check the user's input before anything slow begins.
    let share = Share::scan(&share_dir(args)?)?;
    let needed = share.pool_size();
    let size = args.pool_size.map_or(needed, |mib| mib << 20);
    if size < needed {
        bail!(
            "{} needs a pool of {} MiB, but --pool-size is {} MiB: omit it, or share less",
            share.dir.display(),
            needed >> 20,
            size >> 20
        );
    }
    setup::run()?;
    let artifacts = prepare()?;

    let shmem_before = shmem()?;
    let vms = u64::from(args.vms);
    let content = share.memory() + share.log_size(size) + vms * GUEST_NEEDS;
    let pool = Pool::create(&artifacts, size, content, View::Devdax)?;
    eprintln!("Pool: {} MiB at {}", size >> 20, pool.path().display());
    let skipped = fill(&pool, size, &share)?;
    interrupt::check()?;
    let left_out: HashSet<PathBuf> = skipped.iter().map(|s| s.path.clone()).collect();
    let (manifest, files) = share.manifest(&left_out)?;

    let ram = (args.memory << 20) + (size / PAGE_STRUCTS).next_multiple_of(2 << 20);
    let cluster = Cluster::start(&artifacts, &pool, ram, members(args.vms))?;
    eprintln!("Booting {} VMs ...", args.vms);
    let ready = cluster.wait_ready(Duration::from_secs(args.deadline))?;
    eprintln!("Checking {files} files in every VM ...");
    let checked = guest::check_files(&cluster, &manifest)?;
    eprintln!("Creating a file in one VM and reading it in the others ...");
    let seen = guest::share_new_file(&cluster)?;

    let file = MappedFile::of(pool.path())?;
    let mut rows = Vec::new();
    for (index, node) in cluster.nodes().iter().enumerate() {
        let held = residency::of_process(node.vm.pid(), &file)?;
        let Checked { verified, bytes, faults, page_cache } = checked[index].clone();
        rows.push(VmRow {
            name: node.member.name.clone(),
            role: if node.member.master { "master" } else { "client" },
            boot_s: ready[index].boot.as_secs_f64(),
            attach_ms: took(&ready[index].attach)?,
            verified,
            bytes,
            faults,
            new_file: seen[index],
            ram,
            ram_used: held.ram.rss,
            page_cache,
            pool_mapped: held.pool.rss,
            pool_share: held.pool.pss,
        });
    }
    let growth = shmem()?.saturating_sub(shmem_before);
    let host = HostMemory::account(pool.allocated()?, &rows, growth);
    eprintln!("Shutting down ...");
    cluster.end()?;
    Ok(Report {
        shared: Shared {
            dir: share.dir,
            files,
            bytes: rows.first().map_or(0, |row| row.bytes),
            skipped,
            pool: size,
        },
        vms: rows,
        host,
    })
}

/// The directory to share: the requested one, else the toolchain's libraries.
fn share_dir(args: &DemoArgs) -> Result<PathBuf> {
    if let Some(dir) = &args.share {
        if !dir.is_dir() {
            bail!("--share {}: no such directory", dir.display());
        }
        return Ok(dir.clone());
    }
    share::default_dir()
}

/// Builds what the demo needs.
fn prepare() -> Result<Artifacts> {
    let imaged = image::run()?;
    imaged.artifacts(&paths::target().join("vm/demo"))
}

/// Creates the file system and copies the directory into it, on the host.
fn fill(pool: &Pool, size: u64, share: &Share) -> Result<Vec<Skipped>> {
    pool.mkfs(&["--loglen", &share.log_size(size).to_string()])?;
    eprintln!("Copying {} MiB from {} ...", share.bytes() >> 20, share.dir.display());
    let source = share.dir.join(".");
    let options = ["cp", "--recursive", "--skip-unsupported", "--json"].map(Into::into);
    let output = pool.famfs(options.into_iter().chain([source.into_os_string(), "/".into()]))?;
    let copied: Copied =
        serde_json::from_slice(&output).context("cannot parse the output of 'famfs cp --json'")?;
    pool.famfs(["fsck"]).context("the pool is not clean after the copy")?;
    // Relative to the directory, as in the report and the list of checksums.
    let relative = |Skipped { path, reason }| {
        let path = path.strip_prefix(&share.dir).map(Path::to_path_buf).unwrap_or(path);
        Skipped { path, reason }
    };
    Ok(copied.skipped.into_iter().map(relative).collect())
}

/// The kernel's counter for all shared memory of the host.
fn shmem() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    meminfo(&text, "Shmem").context("no line 'Shmem' in /proc/meminfo")
}

/// The value of a line of /proc/meminfo in bytes (proc(5)).
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// One master and clients.
fn members(count: u32) -> Vec<Member> {
    (1..=count).map(|n| Member::new(&format!("vm{n}"), n == 1)).collect()
}

/// How long a guest took to mount the pool, in milliseconds.
fn took(attach: &Attach) -> Result<u64> {
    match attach {
        Attach::Mounted { took_ms, .. } => Ok(*took_ms),
        other => bail!("a VM is ready, but its pool is not mounted: {other:?}"),
    }
}
