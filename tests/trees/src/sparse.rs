// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files with holes.

use anyhow::Result;

use crate::plant::Plant;

const PAGE: usize = 4096;
const MIB: u64 = 1 << 20;

/// Holes of every place and size.
pub fn sparse(plant: &Plant) -> Result<()> {
    let scattered = [0, 700 * MIB, 2048 * MIB + 4096, 4095 * MIB].map(|offset| (offset, PAGE));
    plant.sparse("four GiB", 4096 * MIB, scattered)?;
    let pieces = (0..40).map(|number| (number * 3 * 4096, PAGE));
    plant.sparse("forty pieces", 40 * 3 * 4096, pieces)?;
    let units = (0..9).map(|number| (number * 4 * MIB + 4096, 2 * PAGE));
    plant.sparse("nine pieces in nine units", 36 * MIB, units)?;
    plant.sparse("a hole of 2 MiB", 6 * MIB, [(0, 2 << 20), (4 * MIB, 2 << 20)])?;
    plant.sparse("a hole of one page", 3 * 4096, [(0, PAGE), (8192, PAGE)])?;
    plant.sparse("a hole that is not aligned", 8 * MIB, [(0, 3 << 20), (5 * MIB, 3 << 20)])?;
    plant.sparse("only a hole", 5 * MIB + 3, [])?;
    plant.sparse("only a hole of one byte", 1, [])?;
    plant.sparse("ends in a hole", 3 * MIB + 100, [(0, PAGE)])?;
    plant.sparse("begins with a hole", 3 * MIB + 100, [(3 * MIB, 100)])?;
    plant.sparse("a few bytes", 9 * MIB, [(5 * MIB + 1234, 10)])?;
    plant.sparse("a unit and its tail", 2 * MIB + 5000, [(0, 2 << 20), (2 * MIB + 4096, 904)])?;
    plant.sparse("nearly full", 4 * MIB, [(0, (2 << 20) - PAGE), (2 * MIB, 2 << 20)])?;
    plant.link("linked/only a hole", "only a hole")
}
