// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Creating many files, and finding the data of files with many extents.

use anyhow::Result;

use super::file_system::{FileSystem, OFFSET};
use super::guest::{Clock, Guest, Scale};
use crate::bench::measurement::Measurement;
use crate::bench::sample::least_of;

/// How many files to create.
const FILES: &str = "10000";

/// The size of a file with several extents or strips.
const SIZE: u64 = 64 << 20;

/// A layout of a file: its name in the program `place`, the name of one part, and the limit for the
/// ratio of lookups with 16 parts to lookups with one.
const LAYOUTS: [(&str, &str, f64); 2] = [("extents", "extent", 1.05), ("strips", "strip", 1.01)];

/// Runs both on a famfs of their own.
pub fn run(guest: &Guest, clock: Clock) -> Result<Vec<Measurement>> {
    FileSystem::Famfs.mount(guest)?;
    let mut measurements = vec![create(guest, clock)?];
    if clock == Clock::Instructions {
        measurements.extend(look_up(guest, clock)?);
    }
    guest.shell("umount /run/mnt")?;
    Ok(measurements)
}

/// Files with a map, compared with empty files.
fn create(guest: &Guest, clock: Clock) -> Result<Measurement> {
    guest.shell("mkdir -p /run/empty && mount -t tmpfs -o noatime tmpfs /run/empty")?;
    let offset = OFFSET.to_string();
    let values = least_of(clock.rounds(), || {
        Ok(vec![
            guest.measure("create", &["/run/mnt/many", FILES, &offset])?,
            guest.measure("create", &["/run/empty/many", FILES])?,
        ])
    })?;
    guest.shell("umount /run/empty")?;
    Ok(clock.measurement(
        ("create", "10,000 files: open, MAP_CREATE, close"),
        Scale::Million,
        values[0],
        ("empty files on tmpfs", values[1]),
        Some(2.0),
    ))
}

/// A file in 16 parts, compared with one in a single part.
fn look_up(guest: &Guest, clock: Clock) -> Result<Vec<Measurement>> {
    let mut measurements = Vec::new();
    for (layout, part, goal) in LAYOUTS {
        let mut values = Vec::new();
        for (index, parts) in (0..).zip([1, 16]) {
            let path = format!("/run/mnt/{layout}-{parts}");
            let offset = OFFSET + index * SIZE;
            guest.shell(&format!("place {layout} {path} {SIZE} {offset} {parts}"))?;
            values.push(guest.measure("lookup", &[&path])?);
            guest.shell(&format!("rm {path}"))?;
        }
        measurements.push(clock.measurement(
            (&format!("lookup.{layout}"), &format!("read(2) of 64 bytes, file of 16 {layout}")),
            Scale::One,
            values[1],
            (&format!("file of one {part}"), values[0]),
            Some(goal),
        ));
    }
    Ok(measurements)
}
