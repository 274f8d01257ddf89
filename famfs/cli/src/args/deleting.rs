// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands that delete files and give their space back.

use std::path::PathBuf;

use clap::Args;

use super::ChangeArgs;
use famfs::text::number::number;

/// Options of `rm`.
#[derive(Args, Debug)]
#[command(after_help = "\
Only the master deletes. A deletion is an entry of the log: other systems see it at their next \
`logplay`, or at once with `watch`. Processes that have the file open or mapped keep it. Its space \
is free again when no program uses it any more: see `famfs reclaim`. `famfs compact` also frees its \
log slots. The reference's tools do not know \
deletions and keep showing the file: while they are in use, do not make a new file of the same \
name.

A symbolic link is deleted, not what it leads to. A file with several names is there until its last \
name is deleted. Several paths, or a tree, go at once: other systems see all of them or none. In a \
file system without extensions they go in steps, and what was deleted before a failure stays \
deleted.

Examples:
  famfs rm /mnt/famfs/old              delete a file
  famfs --pool pool rm -r dataset      delete a tree in a pool file
  famfs rm -r /mnt/famfs/shared /mnt/famfs/home

Exit codes: 0 success; 1 failure; 2 wrong usage; 130 interrupted.")]
pub struct Rm {
    /// Files, links and directories to delete, all of one famfs
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Delete directories and everything in them; an empty directory needs no -r
    #[arg(short, long)]
    pub recursive: bool,
    /// Ignore paths that do not exist
    #[arg(short, long)]
    pub force: bool,
    /// Output.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Options of `reclaim`.
#[derive(Args, Debug)]
#[command(after_help = "\
A deleted file keeps its space while a program in any VM has it open or mapped. Each VM's `famfs \
watch` tells how far it has released deleted files; this command gives back what all have \
released, while they go on. Commands of the host that change names do the same before they \
start, and `rm` at its end, so this one is needed only to wait, or to see who holds what.

The kernel says who has the pool. Whoever has it and is no member (see `famfs members`) may use \
any deleted file, and nothing is given back: a VM without `famfs watch` or with older tools, a \
read-only one that `vhost-famfs up` did not start, a block device, or another program. The command names it. Only root can see the \
processes of other users, and nobody those of other hosts: a pool on a file system that hosts \
share is refused.

The log slots of deleted files come back as well, once fewer than a quarter of the log is free: the \
other entries move together. For that, each VM that has the pool must be a member and show all that \
is published. Commands of the host that change names do the same before they start.

--fence ends a VM that hangs, or keeps a deleted file, as a power cut would: its QEMU is killed, \
and its place among the members freed, before the memory is given back. It must be one VM that has \
the pool and is in the way. With `vhost-famfs ps`, see which one holds what.

Examples:
  famfs --pool pool reclaim                give back what nobody uses
  famfs --pool pool reclaim --wait 60      wait for those who use it
  famfs --pool pool reclaim --slots        give back log slots, even if the log is not short
  famfs --pool pool reclaim --fence vm2    end a VM that does not let go
  famfs --pool pool reclaim --json

Exit codes: 0 all is given back; 1 failure, or not confirmed; 2 wrong usage; 3 something is still held, or log slots \
cannot be given back now; 130 interrupted.")]
pub struct Reclaim {
    /// How long to wait for those who hold deleted files, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = number::<u64>(0..=86_400))]
    pub wait: u64,
    /// Give back all log slots of deleted files, even if the log has many free ones
    #[arg(long)]
    pub slots: bool,
    /// End the VM with this name or machine UUID, if it does not let go within the time of --wait,
    /// and at least 5 seconds
    #[arg(long, value_name = "VM")]
    pub fence: Option<String>,
    /// Do not ask for confirmation
    #[arg(short, long, requires = "fence")]
    pub yes: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `compact`.
#[derive(Args, Debug)]
#[command(after_help = "\
Turns the entries of deleted files and those of their deletions into void entries, and moves all \
others into slots without gaps. A deletion itself needs a free slot, so nothing can be deleted while \
the log is full. An interruption does no harm: run the command again. What it left is read as if it \
had ended; the next command that writes with --pool ends it.

It works only with --pool, on a pool that is not in use: it takes the pool's lock and the master's \
lease, and refuses if another process has the pool open or mapped. Only root can see the processes \
of other users, and nobody can see those of other hosts that share the memory: stop them first.

Examples:
  famfs --pool pool compact --dry-run   print what would be freed
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
