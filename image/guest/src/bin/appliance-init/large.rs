// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Prepares large files of a root in memory, so that one page fault maps 2 MiB of them.
//!
//! For each 2 MiB range of such a file, Linux keeps either one huge page or small pages, whichever
//! the first mapping needed (fs/dax.c), and never changes small pages back. Programs are rarely
//! mapped at a multiple of 2 MiB. Therefore each file is mapped here once, with that alignment,
//! before any program runs.

use std::fs::{self, File};

use anyhow::{Context, Result};

use crate::sys;

/// In a root in memory, the list of its large files, one name per line.
const LIST: &str = "usr/lib/appliance/large-files";

/// The size that one page fault maps.
const HUGE: u64 = 2 << 20;

/// Maps the large files of the root mounted at `root`. A root without a list has none.
pub fn map(root: &str) -> Result<()> {
    let list = fs::read_to_string(format!("{root}/{LIST}")).unwrap_or_default();
    for name in list.lines() {
        let path = format!("{root}{name}");
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        let size = file.metadata().with_context(|| format!("cannot examine {path}"))?.len();
        // The rest after the last whole huge page is mapped with small pages in any case.
        let whole = usize::try_from(size - size % HUGE).context("the file is too large to map")?;
        sys::populate(&file, whole).with_context(|| format!("cannot map {path}"))?;
    }
    Ok(())
}
