// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands that make, mount and play file systems.

use std::path::PathBuf;

use clap::Args;
use uuid::Uuid;

use super::parse_size;

/// Options of `mkfs`.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 success, 2 any failure.")]
pub struct Mkfs {
    /// Device (/dev/dax0.0 or /dev/pmem0); not with --pool
    #[arg(value_name = "DEV")]
    pub device: Option<PathBuf>,
    /// Destroy the file system or other data that is there
    #[arg(short, long)]
    pub force: bool,
    /// Only wipe the superblock, so that the device counts as unformatted (needs --force)
    #[arg(short, long, requires = "force", conflicts_with = "json")]
    pub kill: bool,
    /// Length of the log, a power of two from 2 MiB [default: 8m, less on pools below 128 MiB]
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size)]
    pub loglen: Option<u64>,
    /// UUID of the system that will be the master, for a VM its SMBIOS UUID [default: this one]
    #[arg(long, value_name = "UUID")]
    pub system_uuid: Option<Uuid>,
    /// UUID of the file system [default: random]
    #[arg(long, value_name = "UUID")]
    pub fs_uuid: Option<Uuid>,
    /// UUID of the device [default: random]
    #[arg(long, value_name = "UUID")]
    pub dev_uuid: Option<Uuid>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `mount`.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes: 0 success; 1 failure; 19 not a device that famfs can use. If only some log entries \
cannot be played, the file system stays mounted with all others, and the exit code is 1.")]
pub struct Mount {
    /// Device (/dev/dax0.0 or /dev/pmem0)
    #[arg(value_name = "DEV")]
    pub device: PathBuf,
    /// Directory to mount on
    #[arg(value_name = "MPT")]
    pub mount_point: PathBuf,
    /// Change the flags of a mount that is there, and play its log
    #[arg(short = 'R', long)]
    pub remount: bool,
    /// Load the kernel module first
    #[arg(short = 'L', long)]
    pub load_module: bool,
    /// Name every file and directory that appears
    #[arg(short, long)]
    pub verbose: bool,
    /// Options of mount(8): `remount`; `defaults`, `noatime`, `dax=always` change nothing
    #[arg(short, value_name = "OPTIONS", value_delimiter = ',')]
    pub options: Vec<String>,
    /// Options without effect.
    #[command(flatten)]
    pub compat: LogplayCompat,
}

/// Options that the reference's scripts pass and that change nothing here.
#[derive(Args, Debug)]
pub struct LogplayCompat {
    /// Accepted: the log is always read through mmap
    #[arg(short = 'm', long, hide = true)]
    pub mmap: bool,
    /// Accepted: the log is always read through mmap
    #[arg(short = 'r', long, hide = true)]
    pub read: bool,
    /// Accepted: there is no FUSE mode
    #[arg(short = 'F', long, hide = true)]
    pub nofuse: bool,
}

/// Options of `umount`.
#[derive(Args, Debug)]
pub struct Umount {
    /// Mount point
    #[arg(value_name = "MPT")]
    pub mount_point: PathBuf,
}

/// Options of `logplay`.
#[derive(Args, Debug)]
pub struct Logplay {
    /// Mount point, or any path in the mounted famfs
    #[arg(value_name = "MPT")]
    pub mount_point: PathBuf,
    /// Only count what would appear
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Name every file and directory that appears
    #[arg(short, long)]
    pub verbose: bool,
    /// Play as a client, even on the master: files lose their write bits
    #[arg(short, long)]
    pub client: bool,
    /// Options without effect.
    #[command(flatten)]
    pub compat: LogplayCompat,
}

/// Options of `attach`.
#[derive(Args, Debug)]
pub struct Attach {
    /// Directory to mount on, made if missing
    #[arg(long, value_name = "DIR", default_value = "/mnt/famfs")]
    pub mount_point: PathBuf,
    /// Device to use, if there are several [default: the one that holds a famfs]
    #[arg(long, value_name = "DEV")]
    pub device: Option<PathBuf>,
    /// Seconds to wait for the device
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u64,
    /// Print the steps and their times as JSON
    #[arg(long)]
    pub json: bool,
}
