// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands about who is the master.

use std::path::PathBuf;

use clap::Args;
use uuid::Uuid;

/// Options of `role`.
#[derive(Args, Debug)]
#[command(after_help = "\
The superblock's system UUID says which system is the master. A clone of its disk image has the same \
UUID, so who writes also holds a lease with a heartbeat, which names the running kernel. It is \
looked at for up to 5 seconds, to see whether the heart beats.

Examples:
  famfs role /mnt/famfs         whether this guest is the master
  famfs --pool pool role        who is the master, and whether it is alive

Exit codes: 0 whatever the role is; 1 failure; 2 wrong usage.")]
pub struct Role {
    /// A path in a mounted famfs; not needed with --pool, or if only one is mounted
    pub path: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `takeover`.
#[derive(Args, Debug)]
#[command(after_help = "\
The master's UUID in the superblock becomes that of this system, or with --system-uuid of another \
one. The former master becomes a client: it must play the log again, and a command that is at work \
there ends with an error before it publishes anything more. A master whose lease is alive is not \
replaced without --force. Do that only if you know that it is cut off or stopped: both would write \
for a moment.

Examples:
  famfs takeover --yes /mnt/famfs      make this guest the master
  famfs --pool pool takeover --yes --system-uuid 33333333-3333-4333-8333-333333333333

The second makes the guest of that system UUID the master; `famfs role` says a guest's own.

Exit codes: 0 success, or nothing to do; 1 failure, or not confirmed; 2 wrong usage; 3 the present \
master is alive.")]
pub struct Takeover {
    /// A path in a mounted famfs; not needed with --pool, or if only one is mounted
    pub path: Option<PathBuf>,
    /// UUID of the new master [default: this system's]
    #[arg(long, value_name = "UUID")]
    pub system_uuid: Option<Uuid>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Take the role from a master that is alive
    #[arg(short, long)]
    pub force: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}
