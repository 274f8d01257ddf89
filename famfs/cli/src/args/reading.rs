// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands that read a file system and its files.

use std::path::PathBuf;

use clap::Args;

use famfs::text::number::number;

use super::number::{seed, threads};
use super::{ModeArgs, MountedOnly, parse_file_and_seed};

/// Options of `ls`.
#[derive(Args, Debug)]
#[command(after_help = "\
Lists what the log records. A directory is listed with everything below it. Of a symbolic link it \
lists the link itself, unless PATH ends with a slash.

Examples:
  famfs ls -l /mnt/famfs
  famfs --pool /dev/shm/pool ls --json /data

Exit codes: 0 success; 1 failure, or files are missing because the log is damaged; 2 \
wrong usage.")]
pub struct Ls {
    /// File or directory; with --pool a path in the pool [default: the root of the pool, or of the
    /// only mounted famfs]
    pub path: Option<PathBuf>,
    /// Also print the number of names, and the time of the last change in UTC
    #[arg(short, long)]
    pub long: bool,
    /// Print the list as JSON, with extents
    #[arg(long)]
    pub json: bool,
}

/// Options of `fsck`.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  famfs --pool /dev/shm/pool fsck            check a pool file
  famfs fsck -h /mnt/famfs                   check a mounted famfs
  famfs fsck --json /mnt/famfs               the report for a program

Exit codes: 0 clean; 1 damaged; 2 no such device or path, or wrong usage; 16 the device is mounted \
(check the mount point instead)."
)]
pub struct Fsck {
    /// Unmounted device, or a path in a mounted famfs; not with --pool
    #[arg(value_name = "DEV|PATH")]
    pub path: Option<PathBuf>,
    /// Print sizes with units
    #[arg(short = 'h', long)]
    pub human: bool,
    /// Also print UUIDs and the limits of the map
    #[arg(short, long, overrides_with = "verbose")]
    pub verbose: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Show the free space in each of N equal parts of the device, as interleaved files use it
    #[arg(short = 'B', long, value_name = "N", default_value_t = 0,
        value_parser = number::<u16>(0..=64))]
    pub nbuckets: u16,
    /// Load the kernel module first
    #[arg(short = 'L', long)]
    pub load_module: bool,
    /// Which implementation.
    #[command(flatten)]
    pub mode: ModeArgs,
    /// Accepted: fsck never changes anything
    #[arg(short = 'f', long, hide = true)]
    pub force: bool,
    /// Accepted: the log is always read through mmap
    #[arg(short = 'm', long, hide = true)]
    pub mmap: bool,
    /// Accepted: the log is always read through mmap
    #[arg(short = 'r', long, hide = true)]
    pub read: bool,
    /// Accepted: there is only one way to access the memory
    #[arg(short = 'D', long, hide = true)]
    pub nodax: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
}

/// Options of `cat`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  famfs --pool /dev/shm/pool cat /data/a

Exit codes: 0 success; 1 some file could not be printed; 2 wrong usage.")]
pub struct Cat {
    /// Files of a mounted famfs; with --pool paths in the pool
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

/// Options of `stat`.
#[derive(Args, Debug)]
#[command(after_help = "\
Shows what the log records. With --json it prints the same list as `ls --json`.

Examples:
  famfs stat /mnt/famfs/data
  famfs --pool /dev/shm/pool stat --json /data/a

Exit codes: 0 success; 1 some path does not exist, or failure; 2 wrong usage.")]
pub struct Stat {
    /// Files and directories of a mounted famfs; with --pool paths in the pool
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Print the list as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `df`.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "\
A file takes whole units of 2 MiB, and for what is left pages of 4 KiB in units that files share; \
with `mkfs --reference` it takes whole units. Holes take nothing. Every name takes at least one log \
slot.

Examples:
  famfs df -h /mnt/famfs
  famfs --pool /dev/shm/pool df --json

Exit codes: 0 success; 1 failure, or the file system is damaged and the figures may be wrong; 2 \
wrong usage."
)]
pub struct Df {
    /// A path in a mounted famfs; not needed with --pool, nor if only one famfs is mounted
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Print sizes with units
    #[arg(short = 'h', long)]
    pub human: bool,
    /// Print the sizes as JSON
    #[arg(long)]
    pub json: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
}

/// Options of `du`.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "\
Prints a line for each directory: the bytes of memory that its files occupy, the bytes of their \
contents, and the path. A file with several names is counted once.

Examples:
  famfs du -h -s /mnt/famfs/data
  famfs --pool /dev/shm/pool du

Exit codes: 0 success; 1 failure, or files are missing because the log is damaged; 2 wrong usage."
)]
pub struct Du {
    /// File or directory; with --pool a path in the pool [default: the root of the pool, or of the
    /// only mounted famfs]
    pub path: Option<PathBuf>,
    /// Print only the total of PATH
    #[arg(short, long)]
    pub summarize: bool,
    /// Print sizes with units
    #[arg(short = 'h', long)]
    pub human: bool,
    /// Print the totals as JSON
    #[arg(long)]
    pub json: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
}

/// Options of `tree`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  famfs tree /mnt/famfs
  famfs --pool /dev/shm/pool tree --json /data

Exit codes: 0 success; 1 failure, or files are missing because the log is damaged; 2 \
wrong usage.")]
pub struct Tree {
    /// File or directory; with --pool a path in the pool [default: the root of the pool, or of the
    /// only mounted famfs]
    pub path: Option<PathBuf>,
    /// Print the tree as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `map`.
#[derive(Args, Debug)]
#[command(after_help = "\
However many files there are, the picture stays of one size: a cell then stands for more memory. \
Letters and colours are the largest files. Colours are left out in a pipe, with NO_COLOR, and \
with TERM=dumb. The JSON report has the cells of the SVG picture.

Examples:
  famfs map /mnt/famfs                       a picture in the terminal
  famfs --pool /dev/shm/pool map -o map.svg  a picture in a file

Exit codes: 0 success; 1 failure, or files are missing because the log is damaged; 2 \
wrong usage.")]
pub struct Map {
    /// A path in a mounted famfs; not needed with --pool, nor if only one famfs is mounted
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Write an SVG picture to this file instead; its name must end in .svg, and `-` is standard
    /// output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `dump`.
#[derive(Args, Debug)]
#[command(after_help = "\
Damaged media are shown like intact ones. A field that has only one right value, and holds \
another, is marked WRONG. To see whether files can be used, run fsck.

Examples:
  famfs --pool /dev/shm/pool dump
  famfs dump --json /mnt/famfs

Exit codes: 0 every byte is shown, damaged or not; 1 some bytes could not be read.")]
pub struct Dump {
    /// A path in a mounted famfs; not with --pool
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Print the fields as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `getmap`.
#[derive(Args, Debug)]
#[command(after_help = "\
On a mounted famfs the map comes from the kernel, with --pool from the log.

Examples:
  famfs getmap /mnt/famfs/data               offset and length of every extent
  famfs --pool /dev/shm/pool getmap --json /data/a

Exit codes: 0 success; 1 not on a famfs; 2 the file has no map, or wrong usage; 9 no such file; 21 \
not a regular file.")]
pub struct Getmap {
    /// Files of a mounted famfs; with --pool paths in the pool
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Print nothing; report only by the exit code
    #[arg(short, long)]
    pub quiet: bool,
    /// Continue with the next file after an error; the exit code is that of the last error
    #[arg(short = 'c', long = "continue")]
    pub go_on: bool,
    /// Print the maps as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `verify`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  famfs verify -S 42 -f /mnt/famfs/new
  famfs verify --multi /mnt/famfs/a,1 --multi /mnt/famfs/b,2 --threads 2
  famfs --pool /dev/shm/pool verify -S 42 -f /new

Exit codes: 0 equal; 1 a file differs or cannot be read; 2 wrong usage; 130 interrupted.")]
pub struct Verify {
    /// Seed that the file was made with
    #[arg(short = 'S', long, requires = "path", required_unless_present = "multi",
        value_parser = seed())]
    pub seed: Option<u32>,
    /// File to check
    #[arg(
        short = 'f',
        long = "file",
        visible_alias = "filename",
        value_name = "FILE",
        requires = "seed"
    )]
    pub path: Option<PathBuf>,
    /// File and seed, separated by a comma; repeat for each file
    #[arg(short, long, value_name = "FILE,SEED", conflicts_with_all = ["seed", "path"],
        value_parser = parse_file_and_seed)]
    pub multi: Vec<(PathBuf, u32)>,
    /// Number of threads for --multi; 0 is one per processor, at most 8
    #[arg(short, long, visible_alias = "threadct", value_name = "N", default_value_t = 0,
        value_parser = threads())]
    pub threads: u16,
    /// Print nothing; report only by the exit code
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `chkread`.
#[derive(Args, Debug)]
#[command(after_help = "\
Both must return the same bytes, on famfs as on any file system.

Examples:
  famfs chkread /mnt/famfs/data
  famfs chkread -s /mnt/famfs/.meta/.superblock
  famfs chkread -l /mnt/famfs/.meta/.log

Exit codes: 0 the same; 1 they differ, or failure; 2 wrong usage.")]
pub struct Chkread {
    /// File to read both ways
    pub file: PathBuf,
    /// The file is a famfs superblock, which must be valid too
    #[arg(short, long)]
    pub superblock: bool,
    /// The file is a famfs log, whose header must be valid too
    #[arg(short, long, conflicts_with = "superblock")]
    pub log: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// No pool file.
    #[command(flatten)]
    pub mounted: MountedOnly,
}

/// Options of `check`.
#[derive(Args, Debug)]
#[command(after_help = "\
fsck checks the superblock and the log; check looks at every file of the mount. A file without a \
map has no memory: another program than the famfs tools made it, such as cp or touch. Files of the \
log that have not appeared yet are counted, but are no errors: logplay makes them appear.

Examples:
  famfs check /mnt/famfs

Exit codes: 0 all files are correct; 1 some are not, or failure; 2 wrong usage.")]
pub struct Check {
    /// Mount point
    #[arg(value_name = "MPT")]
    pub mount_point: PathBuf,
    /// Print the name of every file
    #[arg(short, long, overrides_with = "verbose")]
    pub verbose: bool,
    /// Print nothing on standard output; report only by the exit code
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// No pool file.
    #[command(flatten)]
    pub mounted: MountedOnly,
}

/// Options of `flush`.
#[derive(Args, Debug)]
#[command(after_help = "\
Only memory that is not coherent between hosts needs it: run it after a program has changed a file \
through mmap, and before a program reads what another host has changed. The famfs tools flush by \
themselves.

Examples:
  famfs flush /mnt/famfs/data

Exit codes: 0 success; 1 some file could not be flushed; 2 wrong usage.")]
pub struct Flush {
    /// Files of a mounted famfs
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Print the name of every file
    #[arg(short, long, overrides_with = "verbose")]
    pub verbose: bool,
    /// Print what would be flushed
    #[arg(long, visible_alias = "dryrun")]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// No pool file.
    #[command(flatten)]
    pub mounted: MountedOnly,
}

/// Options of `sum`.
#[derive(Args, Debug)]
#[command(after_help = "\
The output has the format of sha256sum, with names relative to PATH, so a list made from a source \
directory can check its copy. A symbolic link has a line with the sum of its target's text, which \
sha256sum skips as a comment.

Examples:
  famfs --pool /dev/shm/pool sum             sums of all files
  famfs sum --faults --json /mnt/famfs/data  and how the kernel mapped them

Exit codes: 0 success; 1 a sum is wrong, or failure; 2 wrong usage.")]
pub struct Sum {
    /// File or directory, on any file system; with --pool a path in the pool [default: the root of
    /// the pool, or of the only mounted famfs]
    pub path: Option<PathBuf>,
    /// Check the sums of this list (names relative to PATH; - is standard input)
    #[arg(short, long, value_name = "FILE")]
    pub check: Option<PathBuf>,
    /// Count the kernel's DAX page faults while the files are read (needs root)
    #[arg(long)]
    pub faults: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}
