// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reports what files lost on their way into a famfs.

use anyhow::Result;
use famfs::write::dropped::Dropped;

use crate::output::{notice, say};

/// Reports what was lost, unless it was only times; `verbose` names every file.
pub fn report_dropped(dropped: &Dropped, verbose: bool) -> Result<()> {
    let Some(summary) = dropped.summary() else { return Ok(()) };
    for (name, lost) in dropped.items.iter().filter(|_| verbose) {
        say!("not kept of {name}: {}", lost.name())?;
    }
    let hint = if verbose { "" } else { " (-v names the files)" };
    notice!("not kept: {summary}{hint}");
    Ok(())
}
