// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Mapping a famfs file, compared with mapping the same range of the device through device_dax.

use anyhow::Result;
use vm_tests::View;

use super::disk::Bench;
use super::guest::{Clock, Guest, Scale};
use crate::bench::measurement::Measurement;
use crate::bench::sample::least_of;

/// Size of the pool, and of the guest's memory.
const POOL: u64 = 512 << 20;
const MEMORY: u64 = 1 << 30;

/// The range of the device that is mapped.
const OFFSET: u64 = 64 << 20;
const LENGTH: u64 = 128 << 20;

/// The range as part of the device, and as a file.
const DEVICE: &str = "/dev/dax0.0";
const FILE: &str = "/mnt/famfs/file";

const SET_UP: &str = "
    modprobe -a virtio_pmem nd_pmem dax_pmem fsdev_dax famfs
    modprobe --dirname /run/bench/kernel device_dax
    for _ in {1..100}; do
        [[ -e /sys/bus/dax/devices/dax0.0 ]] && break
        sleep 0.1
    done
    mkdir -p /mnt/famfs";

const TO_DEVICE_DAX: &str = "
    cd /sys/bus/dax/drivers
    if [[ -e fsdev_dax/dax0.0 ]]; then echo dax0.0 >fsdev_dax/unbind; fi
    if [[ ! -e device_dax/dax0.0 ]]; then echo dax0.0 >device_dax/bind; fi";

const TO_FSDEV_DAX: &str = "
    cd /sys/bus/dax/drivers
    echo dax0.0 >device_dax/unbind
    echo dax0.0 >fsdev_dax/new_id";

/// Measures page faults and loads.
pub fn run(bench: &Bench, clock: Clock) -> Result<Vec<Measurement>> {
    let guest = Guest::start(bench, clock, View::Devdax, (POOL, POOL), MEMORY)?;
    guest.shell(SET_UP)?;
    let values = least_of(clock.rounds(), || in_turn(&guest))?;
    guest.end()?;
    let rows = [
        ("fault.first", "2 MiB fault, range not mapped before", Scale::One, None),
        ("fault.read", "2 MiB fault, for reading", Scale::One, Some(1.1)),
        ("fault.write", "2 MiB fault, for writing", Scale::One, Some(1.1)),
        ("mmap.seq", "loads through mmap, 128 MiB in order", Scale::Million, Some(1.0 / 0.98)),
        ("mmap.random", "loads through mmap, 524,288 at random", Scale::Million, Some(1.0 / 0.98)),
    ];
    let (peers, values) = values.split_at(rows.len());
    let measurements = rows.into_iter().zip(values).zip(peers);
    Ok(measurements
        .map(|(((id, what, scale, goal), value), peer)| {
            clock.measurement((id, what), scale, *value, ("the device itself", *peer), goal)
        })
        .collect())
}

/// Takes all values from the device, then all from a file at the same place.
fn in_turn(guest: &Guest) -> Result<Vec<f64>> {
    guest.shell(TO_DEVICE_DAX)?;
    let mut values = take(guest, DEVICE, OFFSET)?;
    guest.shell(TO_FSDEV_DAX)?;
    guest.shell(&format!(
        "mount -i -t famfs -o noatime {DEVICE} /mnt/famfs
         place extents {FILE} {LENGTH} {OFFSET} 1"
    ))?;
    values.extend(take(guest, FILE, 0)?);
    guest.shell("umount /mnt/famfs")?;
    Ok(values)
}

/// In this order, because the first fault must come first.
fn take(guest: &Guest, path: &str, offset: u64) -> Result<Vec<f64>> {
    let (offset, length) = (offset.to_string(), LENGTH.to_string());
    let measure = |program, what| guest.measure(program, &[what, path, &offset, &length]);
    Ok(vec![
        measure("fault", "first")?,
        measure("fault", "read")?,
        measure("fault", "write")?,
        measure("load", "seq")?,
        measure("load", "random")?,
    ])
}
