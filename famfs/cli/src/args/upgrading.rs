// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the command that turns extensions on.

use std::path::PathBuf;

use clap::Args;

/// Options of `upgrade`.
#[derive(Args, Debug)]
#[command(after_help = "\
File systems that `famfs mkfs` makes have extensions, except with --reference. This command turns \
them on in one that was made with --reference, by the reference or by older tools. The files stay as \
they are. There is no way back.

First update the tools of everyone who uses the pool. The reference's tools, and older versions of \
these, skip what uses the extensions: a VM that has them shows a part of the files, and by other \
names where files were moved. VMs with present tools need not remount.

With extensions the name `.famfs` is reserved, so nothing may have it now. The log must not be \
damaged. An interruption does no harm: run the command again.

If the mark of extensions of a file system that has them was lost or damaged, this command restores \
it, and changes nothing else.

Examples:
  famfs --pool pool upgrade --dry-run   check whether it is possible
  famfs --pool pool upgrade             turn extensions on
  famfs upgrade /mnt/famfs              the same, on the master

Exit codes: 0 success, or nothing to do; 1 failure; 2 wrong usage.")]
pub struct Upgrade {
    /// A path in a mounted famfs; not needed with --pool, nor if only one famfs is mounted
    pub path: Option<PathBuf>,
    /// Check everything and change nothing
    #[arg(long, visible_alias = "dryrun")]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}
