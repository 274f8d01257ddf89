// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands that look after a guest's pool.

use std::path::PathBuf;

use clap::Args;

use super::MountedOnly;
use famfs::text::number::number;

/// Options of `watch`.
#[derive(Args, Debug)]
#[command(after_help = "\
It plays the log, then looks at its header again and again and makes new files appear at once. \
Looks come every millisecond after a change, and slow down to --interval when nothing happens. \
One watch per mounted famfs. It ends when the famfs is unmounted (`famfs umount` asks it to let \
go), on SIGINT and SIGTERM. Under systemd it tells when it is ready (Type=notify).

On the master it also keeps the master's lease, so that no clone of this system can add files.

Each error is told once. What cannot be made or removed is tried again after a second, then less \
and less often, at least every 30 seconds. The same holds for a log that cannot be followed because \
another system damaged it: once it is right again, the watch goes on.

With --json each event is a line: `ready`, `directory`, `file`, `error`, `recovered`, `end`.

Examples:
  famfs watch /mnt/famfs

Exit codes: 0 stopped or unmounted; 1 failure, such as memory that cannot be read any more; 3 the \
file system was made anew, so it must be unmounted and mounted again.")]
pub struct Watch {
    /// Mount point, or any path in the mounted famfs
    #[arg(value_name = "MPT")]
    pub mount_point: PathBuf,
    /// Longest pause between two looks, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = number::<u64>(1..=60_000))]
    pub interval: u64,
    /// Follow as a client, even on the master: no lease is taken
    #[arg(short, long)]
    pub client: bool,
    /// Name every file and directory that appears
    #[arg(short, long, overrides_with = "verbose")]
    pub verbose: bool,
    /// Print events as JSON, one a line
    #[arg(long)]
    pub json: bool,
    /// No pool file.
    #[command(flatten)]
    pub mounted: MountedOnly,
}

/// Options of `doctor`.
#[derive(Args, Debug)]
#[command(after_help = "\
In a guest it looks at the kernel, the module, the memory devices with their drivers, the mount, \
the media, the role, the files, the watch, and touches a file to see that it is mapped by 2 MiB \
pages. With --pool it looks at a pool file on the host. For each finding it names the command that \
mends it. Nothing is changed.

Examples:
  famfs doctor
  famfs --pool /dev/shm/pool doctor --json

Exit codes: 0 nothing failed; 1 something failed. Warnings do not count.")]
pub struct Doctor {
    /// A path in a mounted famfs; not needed with --pool [default: the first that is mounted]
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
}
