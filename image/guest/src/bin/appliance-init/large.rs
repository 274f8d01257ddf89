// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Large files of a root in memory: 2 MiB of them are mapped by one page fault.
//!
//! Linux keeps, for each range of 2 MiB of such a file, either one huge page or small ones, as the
//! first mapping needed it (fs/dax.c), and stays with small ones. Programs are rarely mapped at a
//! multiple of 2 MiB. So each file is mapped here, so aligned, before any program runs.

use std::fs::{self, File};

use anyhow::{Context, Result};

use crate::sys;

/// In a root in memory, the names of its large files, one a line.
const LIST: &str = "usr/lib/appliance/large-files";

/// What one fault maps.
const HUGE: u64 = 2 << 20;

/// Maps the large files of the root that is mounted at `root`. A root without a list has none.
pub fn map(root: &str) -> Result<()> {
    let list = fs::read_to_string(format!("{root}/{LIST}")).unwrap_or_default();
    for name in list.lines() {
        let path = format!("{root}{name}");
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        let size = file.metadata().with_context(|| format!("cannot look at {path}"))?.len();
        // The rest behind the last whole huge page is mapped by small ones in any case.
        let whole = usize::try_from(size - size % HUGE).context("a file too large to map")?;
        sys::populate(&file, whole).with_context(|| format!("cannot map {path}"))?;
    }
    Ok(())
}
