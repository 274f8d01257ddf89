// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices of `vhost-famfs ublk` compared with the usual alternatives: the loop driver for an
//! image, a qcow2 file behind qemu-nbd for an overlay. All run in one VM, on files in its memory.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use vhost_famfs::vm::Command;
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, View, mount_disk, pack_disk};

use super::Measurement;
use super::measurement::Better;
use super::sample::medians_of;
use crate::{guest_programs, image, paths};

const POOL: u64 = 64 << 20;
const MEMORY: u64 = 1536 << 20;
const DISK: &str = "ublk-bench";
/// How long creating, measuring and removing a device may take, under emulation.
const LIMIT: Duration = Duration::from_secs(180);
/// Under emulation, single values differ by a third.
const ROUNDS: usize = 5;

/// The directory of the files, and functions for all scripts.
const PRELUDE: &str = r#"
set -euo pipefail
PATH=/run/tests/bin:$PATH
cd /run/scratch
measure() {
    fio --name=bench --filename="$1" --direct=1 --ioengine=io_uring --time_based --runtime=4 \
        --ramp_time=1 --output-format=json "${@:2}"
}
serve() {
    : >out
    setsid vhost-famfs ublk add "$@" >out 2>err </dev/null &
    for _ in {1..300}; do
        device=$(<out)
        [[ $device ]] && return
        sleep 0.1
    done
    cat err >&2
    exit 1
}
"#;

const SET_UP: &str = r#"
modprobe loop
insmod /run/tests/ublk_drv.ko
insmod /run/tests/nbd.ko nbds_max=1
head -c 192M /dev/urandom >image
"#;

const READ: [&str; 2] = ["--rw=read --bs=1M --iodepth=4", "/jobs/0/read/bw_bytes"];
const WRITE: [&str; 2] = ["--rw=randwrite --bs=4k --iodepth=16", "/jobs/0/write/iops"];

const UBLK_IMAGE: &str = r#"
serve --image image --read-only
measure "$device" $options
vhost-famfs ublk del "$device" >/dev/null
"#;

const LOOP: &str = r#"
device=$(losetup --find --show --read-only image)
measure "$device" $options
losetup --detach "$device"
"#;

const UBLK_OVERLAY: &str = r#"
serve --image image --overlay overlay
measure "$device" $options
vhost-famfs ublk del "$device" >/dev/null
rm overlay
"#;

const QEMU_NBD: &str = r#"
qemu-img create -q -f qcow2 -b image -F raw overlay.qcow2
qemu-nbd --connect=/dev/nbd0 --socket="$PWD/nbd.sock" --format=qcow2 --cache=writeback \
    --discard=unmap overlay.qcow2 >&2
for _ in {1..100}; do
    [[ $(</sys/block/nbd0/size) != 0 ]] && break
    sleep 0.1
done
measure /dev/nbd0 $options
qemu-nbd --disconnect /dev/nbd0 >&2
while [[ -e /sys/block/nbd0/pid ]]; do sleep 0.1; done
rm overlay.qcow2
"#;

/// Boots one VM and measures in turns.
pub fn run() -> Result<Vec<Measurement>> {
    let imaged = image::run()?;
    let artifacts = imaged.artifacts(&paths::target().join("vm/bench-ublk"))?;
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let tree = dir.path().join("tree");
    let program = artifacts.programs.join("vhost-famfs");
    let programs = [&program, Path::new("fio"), Path::new("qemu-img"), Path::new("qemu-nbd")];
    guest_programs::collect(&imaged.built.tools, &tree, Artifacts::GUEST_PROGRAMS, &programs)?;
    for module in ["ublk_drv.ko", "nbd.ko"] {
        fs::copy(artifacts.image.join("test-modules").join(module), tree.join(module))
            .with_context(|| format!("module {module} is missing from the image's directory"))?;
    }
    let disk = pack_disk(&artifacts, &tree, dir.path().join("disk.erofs"), DISK)?;
    let pool = Pool::create(&artifacts, POOL, POOL, View::Devdax)?;
    let member = Member::new("bench", false).with_transport(None).with_disk(disk).in_threads();
    let cluster = Cluster::start(&artifacts, &pool, MEMORY, vec![member])?;
    cluster.wait_ready(BOOT)?;
    let node = cluster.node("bench")?;
    mount_disk(node, DISK, Artifacts::GUEST_PROGRAMS)?;
    let scratch = "mkdir /run/scratch && mount -t tmpfs -o size=900M scratch /run/scratch";
    node.run(&Command::shell(scratch), LIMIT)?;
    shell(node, SET_UP)?;
    let measures = [(UBLK_IMAGE, READ), (LOOP, READ), (UBLK_OVERLAY, WRITE), (QEMU_NBD, WRITE)];
    let values = medians_of(ROUNDS, || {
        measures.iter().map(|(script, kind)| measure(node, script, *kind)).collect()
    })?;
    cluster.end()?;
    let mib = f64::from(1 << 20);
    Ok(vec![
        Measurement::new(
            "ublk.read",
            "image read in order, by 1 MiB",
            "MiB/s",
            values[0] / mib,
            ("the loop driver, same file, same VM", values[1] / mib),
            (Better::Higher, 0.8),
        ),
        Measurement::new(
            "ublk.write",
            "overlay written at random, by 4 KiB",
            "1/s",
            values[2],
            ("qcow2 over the same image, qemu-nbd", values[3]),
            (Better::Higher, 0.8),
        ),
    ])
}

fn shell(node: &Node, script: &str) -> Result<String> {
    let output = node.run(&Command::shell(&format!("{PRELUDE}{script}")), LIMIT)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One value of fio's report.
fn measure(node: &Node, script: &str, [options, field]: [&str; 2]) -> Result<f64> {
    let report = shell(node, &format!("options='{options}'\n{script}"))?;
    // The JSON may be preceded by notes.
    let json = report.find('{').map_or("", |start| &report[start..]);
    let report: Value = serde_json::from_str(json).context("cannot parse fio's report")?;
    let error = report.pointer("/jobs/0/error").and_then(Value::as_i64);
    anyhow::ensure!(error == Some(0), "fio reports an error: {report}");
    let value = report.pointer(field).and_then(Value::as_f64);
    value.filter(|value| *value > 0.0).with_context(|| format!("fio reports no {field}"))
}
