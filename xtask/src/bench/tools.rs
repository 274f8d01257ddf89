// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The famfs tools on pool files, measured by the crate's own benchmark.

use anyhow::Result;

use super::{Measurement, native};

/// Runs it.
pub fn run() -> Result<Vec<Measurement>> {
    native::run("famfs-cli", "tools")
}
