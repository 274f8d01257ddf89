// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands that delete files and give their space back.

use std::path::PathBuf;

use clap::Args;

/// Options of `rm`.
#[derive(Args, Debug)]
#[command(after_help = "\
Only the master deletes. A deletion is an entry of the log: other systems see it with their next \
`logplay`, at once with `watch`. Whoever has the file open or mapped keeps it. Its space and its \
log slots are free only after `famfs compact`. The reference's tools do not know deletions and go \
on to show the file; make no new file of the same name while they are in use.

Examples:
  famfs rm /mnt/famfs/old              delete a file
  famfs --pool pool rm -r dataset      delete a tree in a pool file

Exit codes: 0 success; 1 failure, and what was deleted before it stays deleted; 2 wrong usage.")]
pub struct Rm {
    /// Files and directories to delete, all of one famfs
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Delete directories with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    /// No error for what does not exist
    #[arg(short, long)]
    pub force: bool,
    /// Check everything, and print what would be deleted
    #[arg(long, visible_alias = "dryrun")]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Name what is deleted
    #[arg(short, long, overrides_with = "verbose")]
    pub verbose: bool,
}

/// Options of `compact`.
#[derive(Args, Debug)]
#[command(after_help = "\
The entries of deleted files, and their deletions, become void entries, which all readers skip, \
also those of the reference. Void entries at the end of the log are given back; others keep their \
slots, which only a new file system has back: `export`, `mkfs --force`, `import`. A deletion needs a \
free slot, so a full log takes none. Each step is one atomic store, so an interruption does no harm: run it again.

It works with --pool only, on a pool that nobody holds: it takes the pool's lock and the master's \
lease, and refuses if another process has the pool open or mapped. Of processes of other users \
only root sees that, and of other hosts that share the memory nobody: stop their users first.

Examples:
  famfs --pool pool compact --dry-run   say what would be freed
  famfs --pool pool compact             free it

Exit codes: 0 success; 1 failure, nothing is lost; 2 wrong usage.")]
pub struct Compact {
    /// Print what would be freed
    #[arg(long, visible_alias = "dryrun")]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}
