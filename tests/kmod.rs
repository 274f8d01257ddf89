// SPDX-License-Identifier: Apache-2.0 OR MIT
//! famfs.ko in a guest: runs its test programs on /dev/dax and on /dev/pmem.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use vhost_famfs::vm::{Command, Disk, Output};
use vm_tests::{
    Artifacts, BOOT, Cluster, Member, Node, Pool, Session, Transport, View, mount_disk, pack_disk,
};

const POOL: u64 = 512 << 20;
const MEMORY: u64 = 1 << 30;

/// KASAN keeps shadow memory, and freed memory for a while.
const DEBUG_MEMORY: u64 = 2 << 30;

/// How long a test program may take under emulation, and how long if it is given an amount of work
/// or the kernel checks each access.
const PROGRAM: Duration = Duration::from_secs(600);
const LONG_PROGRAM: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_secs(180);

/// The serial number of the disk with the test programs.
const DISK: &str = "kmod-tests";

/// Prints numbers for another test; has no test points of its own.
const NO_TEST: &str = "uapi_probe";

/// The VMs in which the programs run on two processors at the same time.
const IN_THREADS: [&str; 2] = ["devdax", "pmem"];

/// The VM for programs that rewrite running code, emulated by one thread.
const ONE_THREAD: &str = "one-thread";

/// The VM whose kernel searches for memory that nothing points to, and the programs that run in it.
const KMEMLEAK: &str = "kmemleak";
const LEAKERS: [&str; 8] =
    ["fuzz", "map_create", "mount", "poison", "rw", "strict", "umount_busy", "unlink_mapped"];

fn main() -> Result<ExitCode> {
    let artifacts = Artifacts::from_env()?;
    let mut session = Session::from_args()?;
    for (name, view, device) in
        [("devdax", View::Devdax, "/dev/dax0.0"), ("pmem", View::Raw, "/dev/pmem0")]
    {
        session.scenario(name, |s| run_programs(s, &artifacts, name, view, device));
    }
    if artifacts.all {
        session.scenario(ONE_THREAD, |s| {
            run_programs(s, &artifacts, ONE_THREAD, View::Devdax, "/dev/dax0.0")
        });
    }
    if artifacts.debug_kernel {
        session.scenario(KMEMLEAK, |s| {
            run_programs(s, &artifacts, KMEMLEAK, View::Devdax, "/dev/dax0.0")
        });
    }
    session.scenario("two-vms", |s| run_two_vms(s, &artifacts));
    if let Some(image) = artifacts.oldest_image.clone() {
        // This checks that the module works with this kernel; how much it can do shows on the
        // newest one.
        let oldest = Artifacts { image, all: false, ..artifacts.clone() };
        session.scenario("oldest-devdax", |s| {
            run_programs(s, &oldest, "oldest-devdax", View::Devdax, "/dev/dax0.0")
        });
    }
    if let Some(image) = artifacts.lts_image.clone() {
        let lts = Artifacts { image, ..artifacts };
        session
            .scenario("lts-pmem", |s| run_programs(s, &lts, "lts-pmem", View::Raw, "/dev/pmem0"));
        session.scenario("lts-devdax", |s| refuse_devdax(s, &lts));
    }
    Ok(session.finish())
}

/// The long-term kernel has no fsdev_dax, so a devdax device must be refused, with the reason and a
/// way out.
fn refuse_devdax(session: &mut Session, lts: &Artifacts) -> Result<()> {
    let pool = Pool::create(lts, POOL, POOL, View::Devdax)?;
    let member = Member::new("lts-devdax", true)
        .with_transport(Some(Transport::Pmem { readonly: false }))
        .without_attach();
    let cluster = Cluster::start(lts, &pool, MEMORY, vec![member])?;
    cluster.wait_ready(BOOT)?;
    let node = cluster.node("lts-devdax")?;
    node.run(&Command::shell("modprobe -a nd_pmem dax_pmem famfs"), SHORT)?;
    node.wait_for("test -c /dev/dax0.0")?;
    let mount = Command::new(["mount", "-t", "famfs", "/dev/dax0.0", "/mnt/famfs"]);
    let output = node.vm.exec(&mount, SHORT)?;
    session.check("lts-devdax: a devdax device is refused", || {
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = "/dev/dax0.0: devdax needs fsdev_dax of Linux 7.2, use pmem";
        ensure!(said.contains(reason), "{said}");
        ensure!(!output.status.success(), "mount succeeds");
        Ok(())
    });
    session.check("lts-devdax: shuts down in order", || cluster.end());
    Ok(())
}

/// Boots VMs with the test programs, and unmounts the pool in each.
fn boot(artifacts: &Artifacts, names: &[&str], view: View) -> Result<(Cluster, Pool, TempDir)> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let disk = test_disk(artifacts, dir.path())?;
    let pool = Pool::create(artifacts, POOL, POOL, view)?;
    pool.mkfs(&[])?;
    let members = names.iter().enumerate().map(|(index, name)| {
        let member = Member::new(name, index == 0)
            .with_transport(Some(Transport::Pmem { readonly: false }))
            .with_disk(disk.clone());
        match *name {
            KMEMLEAK => member.with_kernel_arg("kmemleak=on"),
            name if IN_THREADS.contains(&name) => member.in_threads(),
            _ => member,
        }
    });
    let memory = if artifacts.debug_kernel { DEBUG_MEMORY } else { MEMORY };
    let cluster = Cluster::start(artifacts, &pool, memory, members.collect())?;
    cluster.wait_ready(BOOT)?;
    for node in cluster.nodes() {
        // A watch that starts late would hold a mount made by a program.
        node.wait_watch()?;
        let umount = "systemctl stop famfs-watch && famfs umount /mnt/famfs";
        node.run(&Command::shell(umount), SHORT)?;
        mount_disk(node, DISK, "/run/tests")?;
        node.run(&Command::new(["insmod", "/run/tests/hwpoison-inject.ko"]), SHORT)?;
    }
    Ok((cluster, pool, dir))
}

/// Boots a VM, unmounts the pool, and runs every program on its device.
fn run_programs(
    session: &mut Session,
    artifacts: &Artifacts,
    name: &str,
    view: View,
    device: &str,
) -> Result<()> {
    let (cluster, _pool, _disk) = boot(artifacts, &[name], view)?;
    let node = cluster.node(name)?;

    for program in programs(artifacts)? {
        let label = format!("{name}/{program}");
        let Some(arguments) = arguments(&label, artifacts) else { continue };
        if !session.wants(&label) {
            continue;
        }
        let path = format!("/run/tests/{program}");
        let short = arguments.is_empty() && !artifacts.debug_kernel;
        let limit = if short { PROGRAM } else { LONG_PROGRAM };
        let words = [path.as_str(), device, "/mnt/famfs"].into_iter().chain(arguments);
        let start = Instant::now();
        let output = node.vm.exec(&Command::new(words), limit)?;
        report(session, node, &label, &output);
        println!("-- {label}: {:.1} s", start.elapsed().as_secs_f64());
    }
    if name == "devdax" {
        session.check(&format!("{name}: a device with another driver is refused"), || {
            other_driver(node)
        });
    }
    if name == KMEMLEAK {
        session.check(&format!("{name}: no memory of the module is lost"), || find_leaks(node));
    }
    session.check(&format!("{name}: nothing holds the module"), || {
        node.run(&Command::new(["rmmod", "famfs"]), SHORT).map(|_| ())
    });
    session.check(&format!("{name}: shuts down in order"), || cluster.end());
    Ok(())
}

/// Lets kmemleak search for allocated memory without references. It reports an object once it is 5
/// s old (mm/kmemleak.c), and only if its contents do not change between two scans.
fn find_leaks(node: &Node) -> Result<()> {
    let script = "
        set -e
        kmemleak=/sys/kernel/debug/kmemleak
        [[ -e $kmemleak ]] || mount -t debugfs debugfs /sys/kernel/debug
        for scan in 1 2 3; do sleep 6; echo scan >$kmemleak; done
        cat $kmemleak";
    let output = node.run(&Command::shell(script), LONG_PROGRAM)?;
    let report = String::from_utf8_lossy(&output.stdout);
    println!("# kmemleak: {} objects of the whole kernel", report.matches("unreferenced").count());
    ensure!(!report.contains("famfs"), "{report}");
    Ok(())
}

/// A devdax device that is bound to device_dax must be refused with instructions, and must work
/// once they have been followed. device_dax stays loaded: see "Known problems of kernels" in
/// docs/reference/kernel-module.md.
fn other_driver(node: &Node) -> Result<()> {
    let script = "
        set -e
        drivers=/sys/bus/dax/drivers
        echo dax0.0 >$drivers/fsdev_dax/unbind
        insmod /run/tests/device_dax.ko
        [[ -e $drivers/device_dax/dax0.0 ]] || echo dax0.0 >$drivers/device_dax/bind
        if mount -i -t famfs /dev/dax0.0 /mnt/famfs; then exit 1; fi
        echo dax0.0 >$drivers/device_dax/unbind
        echo dax0.0 >$drivers/fsdev_dax/bind
        mount -i -t famfs /dev/dax0.0 /mnt/famfs
        umount /mnt/famfs";
    let output = node.run(&Command::shell(script), SHORT)?;
    let mount = String::from_utf8_lossy(&output.stderr);
    ensure!(mount.contains("/dev/dax0.0: bind it to the driver fsdev_dax first"), "{mount}");
    clean(node)
}

/// A disk with the test programs and the kernel modules that only they need.
fn test_disk(artifacts: &Artifacts, dir: &Path) -> Result<Disk> {
    let tree = dir.join("tests");
    fs::create_dir(&tree).context("cannot make a directory for the test programs")?;
    for from in [&artifacts.module_tests, &artifacts.image.join("test-modules")] {
        for entry in from.read_dir().with_context(|| format!("cannot list {}", from.display()))? {
            let path = entry.with_context(|| format!("cannot list {}", from.display()))?.path();
            fs::copy(&path, tree.join(path.file_name().unwrap_or_default()))
                .with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    pack_disk(artifacts, &tree, dir.join("tests.erofs"), DISK)
}

/// The names of the test programs.
fn programs(artifacts: &Artifacts) -> Result<Vec<String>> {
    let dir = &artifacts.module_tests;
    let mut names: Vec<String> = fs::read_dir(dir)
        .with_context(|| format!("cannot list {}", dir.display()))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name != NO_TEST)
        .collect();
    names.sort();
    ensure!(!names.is_empty(), "no test programs in {}", dir.display());
    Ok(names)
}

/// The arguments for `SCENARIO/PROGRAM` in addition to device and mount point; `None` if it does
/// not run here.
fn arguments(label: &str, artifacts: &Artifacts) -> Option<Vec<&'static str>> {
    let Artifacts { all, debug_kernel, .. } = *artifacts;
    let (scenario, program) = label.split_once('/').unwrap_or(("", label));
    if (scenario == ONE_THREAD) != (program == "counters_race") {
        return None;
    }
    if scenario == KMEMLEAK && !LEAKERS.contains(&program) {
        return None;
    }
    match program {
        // Needs fault injection, which distributions do not enable.
        "failslab" => debug_kernel.then(Vec::new),
        "storm" if debug_kernel && (all || label == "devdax/storm") => Some(vec!["600"]),
        "storm" if debug_kernel || all => Some(vec!["60"]),
        "fuzz" | "fsx" if all => Some(vec!["1000000"]),
        _ => Some(Vec::new()),
    }
}

/// Takes over a program's results, and checks the kernel log.
fn report(session: &mut Session, node: &Node, label: &str, output: &Output) {
    session.tap(label, &String::from_utf8_lossy(&output.stdout));
    session.check(&format!("{label}: exits with success"), || {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{}: {stderr}", output.status);
        Ok(())
    });
    session.check(&format!("{label}: the kernel log stays clean"), || clean(node));
}

/// One VM reads, writes and maps two files at random; another VM, with its own mount, must see the
/// same bytes at every stop.
fn run_two_vms(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let (cluster, _pool, _disk) = boot(artifacts, &["writer", "verifier"], View::Devdax)?;
    let count = if artifacts.all { "1000000" } else { "10000" };
    let outputs = cluster.in_all(|node| {
        let role = if node.member.master { "write" } else { "verify" };
        let words = ["/run/tests/fsx", "/dev/dax0.0", "/mnt/famfs", count, "1", role];
        Ok(node.vm.exec(&Command::new(words), LONG_PROGRAM)?)
    })?;
    for (node, output) in cluster.nodes().iter().zip(&outputs) {
        report(session, node, &format!("two-vms/{}", node.member.name), output);
    }
    session.check("two-vms: both shut down in order", || cluster.end());
    Ok(())
}

fn clean(node: &Node) -> Result<()> {
    let faults = node.kernel_faults()?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}
