// SPDX-License-Identifier: Apache-2.0 OR MIT
//! famfs compared with xfs and ext4 with DAX, one after the other on the same pmem device.

use anyhow::Result;
use vm_tests::View;

use super::disk::Bench;
use super::file_system::FileSystem;
use super::guest::{Clock, Guest, Scale};
use super::{files, fio};
use crate::bench::measurement::Measurement;
use crate::bench::sample::least_of;

/// The pool has room for 10,000 files of 2 MiB; this much of it is written. The guest's memory must
/// hold the page structures.
const POOL: u64 = 21 << 30;
const CONTENT: u64 = 3 << 30;
const MEMORY: u64 = 2 << 30;

/// The file to read and write, and the bytes per call.
const FILE: u64 = 128 << 20;
const BLOCK: u64 = 2 << 20;
const PATH: &str = "/run/mnt/file";

const SET_UP: &str = "
    modprobe -a virtio_pmem nd_pmem famfs
    for type in xfs ext4; do
        grep -qw $type /proc/filesystems || modprobe --dirname /run/bench/kernel $type
    done
    for _ in {1..100}; do
        [[ -b /dev/pmem0 ]] && break
        sleep 0.1
    done
    mkdir -p /run/mnt";

/// Everything that is measured on a pmem device.
pub fn run(bench: &Bench, clock: Clock) -> Result<Vec<Measurement>> {
    let guest = Guest::start(bench, clock, View::Raw, (POOL, CONTENT), MEMORY)?;
    guest.shell(SET_UP)?;
    let mut measurements = uses(&guest, clock)?;
    measurements.extend(files::run(&guest, clock)?);
    if clock == Clock::Time {
        measurements.extend(fio::run(&guest)?);
    }
    guest.end()?;
    Ok(measurements)
}

/// The operations on a preallocated file: the id of the measurement, its description, and the unit
/// of its values. Writing comes first: before that, the peers treat the file's space as empty.
const USES: [(&str, &str, Scale); 4] = [
    ("write", "write(2) of 128 MiB, 2 MiB at a time", Scale::Million),
    ("read", "read(2) of 128 MiB, 2 MiB at a time", Scale::Million),
    ("fault.read", "2 MiB fault, for reading", Scale::One),
    ("fault.write", "2 MiB fault, for writing", Scale::One),
];

/// The same file on each file system in turn.
fn uses(guest: &Guest, clock: Clock) -> Result<Vec<Measurement>> {
    let (block, size) = (BLOCK.to_string(), FILE.to_string());
    let least = least_of(clock.rounds(), || {
        let mut values = Vec::new();
        for file_system in FileSystem::ALL {
            file_system.mount(guest)?;
            file_system.allocate(guest, &["file".to_owned()], FILE)?;
            values.push(guest.measure("stream", &["write", PATH, &block])?);
            values.push(guest.measure("stream", &["read", PATH, &block])?);
            values.push(guest.measure("fault", &["read", PATH, "0", &size])?);
            values.push(guest.measure("fault", &["write", PATH, "0", &size])?);
            guest.shell("umount /run/mnt")?;
        }
        Ok(values)
    })?;
    let (famfs, peers) = least.split_at(USES.len());
    let mut measurements = Vec::new();
    for (peer, values) in FileSystem::ALL[1..].iter().zip(peers.chunks(USES.len())) {
        for ((row, value), peer_value) in USES.into_iter().zip(famfs).zip(values) {
            let (id, what, scale) = row;
            let id = format!("{id}.{}", peer.id());
            let peer = (peer.name(), *peer_value);
            measurements.push(clock.measurement((&id, what), scale, *value, peer, Some(1.0)));
        }
    }
    Ok(measurements)
}
