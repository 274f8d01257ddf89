// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands that follow and diagnose a guest's pool.

use std::path::PathBuf;

use clap::Args;

use super::MountedOnly;
use famfs::text::number::number;

/// Options of `watch`.
#[derive(Args, Debug)]
#[command(after_help = "\
Plays the log, then makes new files appear at once. In a VM of `vhost-famfs up` it waits until \
somebody says that there is something new, and looks at the log's header only twice a second \
by itself. Elsewhere it polls the header less and less often, up to --interval. In both it looks \
every millisecond after a change. Each mounted famfs takes one watch. It ends when the famfs is unmounted (`famfs umount` stops it first), on \
SIGINT and on SIGTERM. Under systemd it reports when it is ready (Type=notify).

On the master it also holds the master's lease, so that no clone of this system can add files, and \
lends it to commands of the host. It takes a place among the members (`famfs members`), if the \
memory can be written. There it tells how far its mount is, and of which deleted files no program \
here has any open or mapped, so that `famfs reclaim` can give their memory back. In a VM that was \
resumed from a snapshot it leaves lease and place to the VM that was saved, and takes new ones; \
for that, QEMU must give it a generation, as `vhost-famfs` does.

Each error is reported once. A file or directory that cannot be made or removed is tried again \
after a second, then less and less often, but at least every 30 seconds. So is a log that cannot \
be followed because another system damaged it: once it is correct again, the watch continues.

With --json each event is one line: `ready`, `directory`, `file`, `error`, `recovered`, `resumed`, \
`end`.

Examples:
  famfs watch /mnt/famfs

Exit codes: 0 stopped or unmounted; 1 failure, such as memory that can no longer be read; 3 the \
file system was formatted again: unmount it and mount it again.")]
pub struct Watch {
    /// Mount point, or any path in the mounted famfs
    #[arg(value_name = "MPT")]
    pub mount_point: PathBuf,
    /// Longest pause between two polls, in milliseconds; at least 250 where others wake the watch
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = number::<u64>(1..=60_000))]
    pub interval: u64,
    /// Follow as a client, even on the master: take no lease
    #[arg(short, long)]
    pub client: bool,
    /// Print the name of every file and directory that appears
    #[arg(short, long, overrides_with = "verbose")]
    pub verbose: bool,
    /// Print events as JSON, one per line
    #[arg(long)]
    pub json: bool,
    /// No pool file.
    #[command(flatten)]
    pub mounted: MountedOnly,
}

/// Options of `members`.
#[derive(Args, Debug)]
#[command(after_help = "\
A member is a running system whose `famfs watch` follows the log. It has a place in a table in the \
memory, where it says how far its mount is. A system that cannot write the memory has one if its \
host writes for it, as for read-only VMs of `vhost-famfs up`; else it is not listed. The command looks for up to 5 seconds whether each \
heartbeat changes; a member that is silent has ended, or is stopped. One that says it has applied \
more than is published is shown as wrong.

APPLIED is the log slot below which its mount shows all entries, BEHIND the number of entries that \
are missing there. No program there uses a file that an entry below RELEASED deleted; `famfs \
reclaim` names the file that entry deleted.

Examples:
  famfs members /mnt/famfs
  famfs --pool pool members --json

Exit codes: 0 whoever follows; 1 failure; 2 wrong usage.")]
pub struct Members {
    /// A path in a mounted famfs; not needed with --pool, nor if only one famfs is mounted
    pub path: Option<PathBuf>,
    /// Free the places of silent members; one that is alive after all takes a new one
    #[arg(long)]
    pub drop_silent: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `publish`.
#[derive(Args, Debug)]
#[command(after_help = "\
Other systems show a change a few milliseconds after the command that made it. This command waits \
until every member (see `famfs members`) shows all that was published when it started. Systems \
that are no members, such as read-only VMs of others than `vhost-famfs up`, are not waited for. Use --members so that a \
system that does not follow at all is noticed. A member whose heartbeat stands still does not count: \
after 5 seconds of silence it is named, even if it had applied everything.

Examples:
  famfs publish --wait-all --members 1 /mnt/famfs
  famfs --pool pool publish --wait-all --timeout 10

Exit codes: 0 every member has everything; 1 failure; 2 wrong usage; 3 not all have it in time; \
130 interrupted.")]
pub struct Publish {
    /// A path in a mounted famfs; not needed with --pool, nor if only one famfs is mounted
    pub path: Option<PathBuf>,
    /// Wait for all members
    #[arg(long, required = true)]
    pub wait_all: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = number::<u64>(0..=86_400))]
    pub timeout: u64,
    /// Fail unless there are at least so many members
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = number::<u64>(0..=1024))]
    pub members: u64,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `doctor`.
#[derive(Args, Debug)]
#[command(after_help = "\
In a guest it checks the kernel, the module, the memory devices and their drivers, the mount, the \
media, the role, the files and the watch, and touches a file to see whether it is mapped by 2 MiB \
pages. With --pool it checks a pool file on the host. For each problem it names the command that \
fixes it. It changes nothing.

Examples:
  famfs doctor
  famfs --pool /dev/shm/pool doctor --json

Exit codes: 0 nothing failed; 1 something failed. Warnings do not count.")]
pub struct Doctor {
    /// A path in a mounted famfs; not needed with --pool [default: the first mounted one]
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
}
