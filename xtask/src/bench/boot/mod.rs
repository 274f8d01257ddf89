// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The cost of the appliance: time from power-on to a mounted pool, bytes shipped, memory per VM.
//!
//! ```text
//! timing: the profiles against the floor, in turn      floor: the least that boots
//! memory: one to four VMs, disk root against root in memory      plot: the same as a picture
//! ```

mod floor;
mod memory;
mod plot;
mod timing;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Measurement;
use super::measurement::Better;
use crate::{image, paths};

/// The files shipped for a profile, and how large they may be in total: 10^6 bytes, as in "45 MB".
const SHIPPED: [(&str, &[&str], f64); 2] = [
    ("default", &["vmlinuz", "initrd.img", "root.erofs"], 45.0),
    ("diskless", &["vmlinuz", "initrd-diskless.img"], 18.0),
];

/// Boots VMs of one kind after the other.
pub fn run() -> Result<Vec<Measurement>> {
    let imaged = image::run()?;
    let artifacts = imaged.artifacts(&paths::target().join("vm/bench-boot"))?;
    let mut measurements = timing::run(&artifacts, &floor::make(&imaged.built.tools, &artifacts)?)?;
    for (profile, files, limit) in SHIPPED {
        measurements.push(Measurement::new(
            &format!("boot.{profile}.shipped"),
            &format!("{profile}: bytes shipped"),
            "MB",
            megabytes(&artifacts.image, files)?,
            ("limit", limit),
            (Better::Lower, 1.0),
        ));
    }
    measurements.extend(memory::run(&artifacts)?);
    Ok(measurements)
}

/// The total size of some files of an image, in 10^6 bytes.
fn megabytes(image: &Path, files: &[&str]) -> Result<f64> {
    let size = |name: &&str| {
        let path = image.join(name);
        let metadata =
            fs::metadata(&path).with_context(|| format!("cannot examine {}", path.display()))?;
        Ok(metadata.len())
    };
    let bytes = files.iter().map(size).sum::<Result<u64>>()?;
    Ok(bytes as f64 / 1e6)
}
