// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Trees of small files in famfs and in tmpfs: making them as a log is played, the kernel memory
//! for a name, reading them, a Python that imports its library from them, and a mount of them by
//! the tools.

use anyhow::Result;
use vhost_famfs::vm::Command;
use vm_tests::View;

use super::disk::{Bench, PROGRAMS};
use super::file_system::OFFSET;
use super::guest::{Clock, Guest, Scale};
use crate::bench::measurement::{Better, Measurement};
use crate::bench::sample::least_of;

/// Size of the pool, and of the guest's memory: it holds the tree in tmpfs.
const POOL: u64 = 2 << 30;
const CONTENT: u64 = 1 << 30;
const MEMORY: u64 = 3 << 30;

/// How many names and files to make, 100 in each directory.
const COUNT: &str = "100000";

const SET_UP: &str = "
    modprobe -a virtio_pmem nd_pmem dax_pmem fsdev_dax famfs
    for _ in {1..100}; do
        [[ -e /sys/bus/dax/devices/dax0.0 ]] && break
        sleep 0.1
    done
    cd /sys/bus/dax/drivers/fsdev_dax
    if [[ ! -e dax0.0 ]]; then echo dax0.0 >new_id; fi
    mkdir -p /run/mnt /run/peer";

/// Mounts famfs as the tools do, and its peer.
const MOUNT: &str = "
    mount -i -t famfs -o noatime,nosuid,nodev,strict /dev/dax0.0 /run/mnt
    mount -t tmpfs -o noatime,nosuid,nodev,size=90% tmpfs /run/peer";

/// A pool with the names that are in the peer, which is empty in the end. Each step is a script,
/// because emulation takes long for all of them.
const POOL_OF_NAMES: [&str; 3] = [
    "
    famfs mkfs --force --entries $((2 * COUNT)) /dev/dax0.0
    famfs mount /dev/dax0.0 /run/mnt
    mount -t tmpfs -o noatime,nosuid,nodev,size=90% tmpfs /run/peer
    tree keep /run/peer $COUNT",
    "famfs cp -r /run/peer/. /run/mnt",
    "
    famfs umount /run/mnt
    umount /run/peer
    mount -t tmpfs -o noatime,nosuid,nodev,size=90% tmpfs /run/peer",
];

/// Mounts and plays its log, and prints how long that took in nanoseconds.
const MOUNT_WITH_TOOLS: &str = "
    start=${EPOCHREALTIME/[.,]/}
    famfs mount /dev/dax0.0 /run/mnt >/dev/null
    end=${EPOCHREALTIME/[.,]/}
    [[ $(find /run/mnt -name .meta -prune -o -print | wc -l) == $((COUNT + COUNT / 100 + 1)) ]]
    famfs umount /run/mnt
    echo $(((end - start) * 1000))";

const UNMOUNT: &str = "umount /run/mnt /run/peer";

/// Everything on one guest for each clock.
pub fn run(bench: &Bench) -> Result<Vec<Measurement>> {
    let mut measurements = Vec::new();
    for clock in [Clock::Instructions, Clock::Time] {
        eprintln!("Measuring trees by {clock} ...");
        let guest = Guest::start(bench, clock, View::Devdax, (POOL, CONTENT), MEMORY)?;
        guest.shell(SET_UP)?;
        measurements.push(make(&guest, clock)?);
        if clock == Clock::Instructions {
            measurements.push(memory(&guest)?);
        }
        measurements.push(read(&guest, clock)?);
        measurements.push(import(&guest, clock)?);
        measurements.push(mount(&guest, clock)?);
        guest.end()?;
    }
    Ok(measurements)
}

/// The arguments of `tree WHAT` for famfs and for its peer.
fn arguments<'a>(what: &'a str, offset: &'a str) -> (Vec<&'a str>, Vec<&'a str>) {
    (vec![what, "/run/mnt", COUNT, offset], vec![what, "/run/peer", COUNT])
}

/// Files, links and directories.
fn make(guest: &Guest, clock: Clock) -> Result<Measurement> {
    let offset = OFFSET.to_string();
    let (ours, peers) = arguments("make", &offset);
    guest.shell(MOUNT)?;
    let values = least_of(clock.rounds(), || {
        Ok(vec![guest.measure("tree", &ours)?, guest.measure("tree", &peers)?])
    })?;
    guest.shell(UNMOUNT)?;
    Ok(clock.measurement(
        ("tree.make", "100,000 names: 80,000 files with a piece each, links"),
        Scale::Million,
        values[0],
        ("empty files and links on tmpfs", values[1]),
        Some(1.5),
    ))
}

/// The tools: a mount of a pool with as many names, from the command's start to its end.
fn mount(guest: &Guest, clock: Clock) -> Result<Measurement> {
    let with_count = |script: &str| format!("COUNT={COUNT}\n{script}");
    for step in POOL_OF_NAMES {
        guest.shell(&with_count(step))?;
    }
    let command = Command::shell(&with_count(MOUNT_WITH_TOOLS));
    let values = least_of(clock.rounds(), || {
        let peers = arguments("make", "").1;
        Ok(vec![guest.measure_command(&command)?, guest.measure("tree", &peers)?])
    })?;
    guest.shell("umount /run/peer")?;
    Ok(clock.measurement(
        ("tree.mount", "`famfs mount` of a pool with such names"),
        Scale::Million,
        values[0],
        ("empty files and links on tmpfs, made by one program", values[1]),
        Some(1.5),
    ))
}

/// Kernel memory for a name.
fn memory(guest: &Guest) -> Result<Measurement> {
    let offset = OFFSET.to_string();
    let (ours, peers) = arguments("memory", &offset);
    guest.shell(MOUNT)?;
    let (ours, peers) = (guest.number("tree", &ours)?, guest.number("tree", &peers)?);
    guest.shell(UNMOUNT)?;
    let peer = ("the same on tmpfs", peers);
    let what = "kernel memory for one of these names";
    Ok(Measurement::new("kmod.tree.memory", what, "bytes", ours, peer, (Better::Lower, 1.5)))
}

/// Reading files that are in memory.
fn read(guest: &Guest, clock: Clock) -> Result<Measurement> {
    let offset = OFFSET.to_string();
    let (ours, peers) = arguments("read", &offset);
    guest.shell(MOUNT)?;
    guest.number("tree", &arguments("fill", &offset).0)?;
    guest.number("tree", &arguments("fill", &offset).1)?;
    let values = least_of(clock.rounds(), || {
        Ok(vec![guest.measure("tree", &ours[..3])?, guest.measure("tree", &peers)?])
    })?;
    guest.shell(UNMOUNT)?;
    Ok(clock.measurement(
        ("tree.read", "100,000 files of 1 to 4,096 bytes: open, read(2), close"),
        Scale::Million,
        values[0],
        ("the same on tmpfs", values[1]),
        Some(1.0),
    ))
}

/// Python's library: the tree on tmpfs gets the compiled modules, and famfs a copy of it.
fn import(guest: &Guest, clock: Clock) -> Result<Measurement> {
    let offset = OFFSET.to_string();
    guest.shell(MOUNT)?;
    guest.shell(
        "cp -r /run/bench/python /run/peer/
         PYTHONHOME=/run/peer/python python3 -sS /run/bench/bin/import.py compile",
    )?;
    guest.number("tree", &["copy", "/run/peer/python", "/run/mnt", &offset])?;
    let time = |home| {
        let import = format!(
            "PYTHONHOME={home} PYTHONHASHSEED=0 {PROGRAMS}/bin/python3 -sS \
             {PROGRAMS}/bin/import.py"
        );
        // The first time is for the caches.
        guest.shell(&import)?;
        guest.measure_command(&Command::shell(&import))
    };
    let values =
        least_of(clock.rounds(), || Ok(vec![time("/run/mnt/python")?, time("/run/peer/python")?]))?;
    guest.shell(UNMOUNT)?;
    Ok(clock.measurement(
        ("tree.import", "import of 60 modules of Python, and what they import"),
        Scale::Million,
        values[0],
        ("from tmpfs", values[1]),
        Some(1.0),
    ))
}
