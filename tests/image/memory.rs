// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One root in the host's memory for several VMs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vhost_famfs::host::residency;
use vhost_famfs::vm::{Command, Root};
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View, cached, read_root};

use super::faults;

const POOL: u64 = 64 << 20;
const MEMORY: u64 = 512 << 20;
const LONG: Duration = Duration::from_secs(300);
const MIB: u64 = 1 << 20;

/// How much of its root a guest may keep in its own page cache.
const MAX_CACHED: u64 = 2 * MIB;

/// How much of its RAM a guest's kernel may use from the start: its code and data, a 64th for the
/// page structures, and those of the root and the pool.
const MAX_RESERVED: u64 = 80 * MIB;

pub fn shared_root(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    let member = |name, master| Member::new(name, master).with_root(Root::Memory);
    let scratch = tempfile::tempdir()?;
    let faults_disk = faults::disk(artifacts, scratch.path())?;
    let members = vec![
        member("first", true)
            .with_disk(faults_disk)
            .with_credential("famfs.mount-point", "/run/pool")
            .with_credential("famfs.role", "master"),
        member("second", false).with_credential("famfs.access", "read-only"),
    ];
    let cluster = Cluster::start(artifacts, &pool, MEMORY, members)?;
    cluster.wait_ready(BOOT)?;
    let first = cluster.node("first")?;
    session.check("the root is memory, the pool is found beside it", || {
        let source = says(first, "findmnt --noheadings --output SOURCE,OPTIONS /")?;
        ensure!(source.starts_with("/dev/pmem") && source.contains("dax=always"), "{source}");
        Ok(())
    });
    session.check("vsock is off unless the host asks for it", || {
        let modules = says(first, "ls /sys/module")?;
        let loaded: Vec<_> = modules.split_whitespace().filter(|m| m.contains("vsock")).collect();
        ensure!(modules.contains("erofs") && loaded.is_empty(), "{loaded:?} of {modules}");
        Ok(())
    });
    session.check("the pool is mounted and followed as the host says", || {
        let pool = says(first, "findmnt --noheadings --output FSTYPE /run/pool")?;
        ensure!(pool == "famfs", "{pool}");
        first.wait_watch()?;
        let watch = says(
            first,
            "tr '\\0' ' ' < /proc/$(systemctl show --value -p MainPID famfs-watch)/cmdline",
        )?;
        ensure!(watch == "/usr/bin/famfs watch /run/pool", "{watch}");
        let second = cluster.node("second")?;
        let options = says(second, "findmnt --noheadings --output VFS-OPTIONS /mnt/famfs")?;
        ensure!(options.split(',').any(|option| option == "ro"), "{options}");
        second.wait_watch()?;
        let problems = second.vm.self_check(LONG)?;
        ensure!(problems.is_empty(), "{problems:?}");
        Ok(())
    });
    session.check("reading every library and program caches under 2 MB", || {
        cluster.in_all(|node| {
            read_root(node)?;
            let cached = cached(node)?;
            println!("VM {}: {} KiB cached after reading its root", node.vm.name(), cached / 1024);
            ensure!(cached < MAX_CACHED, "VM {}: {cached} bytes cached", node.vm.name());
            Ok(())
        })?;
        Ok(())
    });
    session.check("the host has the root's pages once for both VMs", || {
        let (root, _) = first.vm.config().root_in_memory().context("no root in memory")?;
        let file = residency::MappedFile::of(&root)?;
        let usage: Vec<residency::Usage> = cluster
            .pids()
            .map(|pid| Ok(residency::of_process(pid, &file)?.pool))
            .collect::<Result<_>>()?;
        let largest = usage.iter().map(|usage| usage.rss).max().unwrap_or_default();
        let shared: u64 = usage.iter().map(|usage| usage.pss).sum();
        println!("root in memory: {} KiB each, {} KiB together", largest / 1024, shared / 1024);
        ensure!(usage.iter().all(|usage| usage.rss > 30 * MIB), "{usage:?}");
        ensure!(shared < largest + largest / 20, "{shared} bytes for both, {largest} for one");
        Ok(())
    });
    session.check("no RAM is set aside to copy for devices", || {
        let total = says(first, "sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")?;
        let reserved = MEMORY - total.parse::<u64>()? * 1024;
        ensure!(reserved < MAX_RESERVED, "{} KiB are gone from the start", reserved / 1024);
        Ok(())
    });
    session.check("large files of the root are mapped by 2 MiB, to the fault", || {
        faults::check(first)
    });
    session.check("both shut down in order", || cluster.end());
    Ok(())
}

fn says(node: &Node, script: &str) -> Result<String> {
    let output = node.run(&Command::shell(script), LONG)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
