// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands about who is the master.

use std::path::PathBuf;

use clap::Args;
use uuid::Uuid;

/// Options of `role`.
#[derive(Args, Debug)]
#[command(after_help = "\
The system whose UUID is in the superblock is the master. A clone of its disk image has the same \
UUID, so a writer also holds a lease, which names the running kernel and has a heartbeat. The \
command watches the heartbeat for up to 5 seconds to see whether the holder is alive.

Examples:
  famfs role /mnt/famfs         whether this guest is the master
  famfs --pool pool role        which system is the master, and whether it is alive

Exit codes: 0 whatever the role is; 1 failure; 2 wrong usage.")]
pub struct Role {
    /// A path in a mounted famfs; not needed with --pool, nor if only one famfs is mounted
    pub path: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `takeover`.
#[derive(Args, Debug)]
#[command(after_help = "\
Writes the UUID of this system, or that of --system-uuid, into the superblock as the master's. The \
former master becomes a client: it must play the log again, and a command that is still running \
there ends with an error before it publishes anything more. A master whose lease is alive is \
replaced only with --force. Use --force only if you know that this master is cut off or stopped: \
otherwise both write for a moment.

Examples:
  famfs takeover --yes /mnt/famfs      make this guest the master
  famfs --pool pool takeover --yes --system-uuid 33333333-3333-4333-8333-333333333333

To make another guest the master, pass its system UUID: `famfs role` in that guest shows it.

Exit codes: 0 success, or nothing to do; 1 failure, or not confirmed; 2 wrong usage; 3 the current \
master is alive.")]
pub struct Takeover {
    /// A path in a mounted famfs; not needed with --pool, nor if only one famfs is mounted
    pub path: Option<PathBuf>,
    /// UUID of the new master [default: this system's]
    #[arg(long, value_name = "UUID")]
    pub system_uuid: Option<Uuid>,
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,
    /// Take the role from a master that is alive
    #[arg(short, long)]
    pub force: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}
