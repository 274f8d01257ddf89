// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands that add files.

use std::path::PathBuf;

use clap::Args;

use super::{OwnerArgs, parse_size, parse_threads};

/// Options of `mkdir`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  famfs mkdir /mnt/famfs/models
  famfs mkdir -p -m 2775 -g 100 /mnt/famfs/data/2026
  famfs --pool /dev/shm/pool mkdir -p /data/2026

Exit codes: 0 success; 1 failure; 2 wrong usage.")]
pub struct Mkdir {
    /// Directory to make
    #[arg(value_name = "DIR")]
    pub path: PathBuf,
    /// Make missing parents too; no error if the directory exists
    #[arg(short, long)]
    pub parents: bool,
    /// Owner and permissions.
    #[command(flatten)]
    pub owner: OwnerArgs,
    /// Check everything, and print what would be made
    #[arg(long, visible_alias = "dryrun")]
    pub dry_run: bool,
    /// Name what is made
    #[arg(short, long)]
    pub verbose: bool,
}

/// Options of `creat`.
#[derive(Args, Debug)]
pub struct Creat {
    /// File to make; a file of the same size is kept, and filled again with --seed or --randomize,
    /// in place
    #[arg(value_name = "FILE")]
    pub path: PathBuf,
    /// Size, with k, m, g or t for KiB to TiB
    #[arg(short, long, value_parser = parse_size)]
    pub size: u64,
    /// Fill with the data of this seed, which `verify` knows; 0 takes a random one [default: zeros]
    #[arg(short = 'S', long)]
    pub seed: Option<u32>,
    /// Fill with the data of --seed, or without it of a random seed
    #[arg(short, long)]
    pub randomize: bool,
    /// Owner and permissions.
    #[command(flatten)]
    pub owner: OwnerArgs,
    /// Name what is made
    #[arg(short, long)]
    pub verbose: bool,
}

/// Options of `cp`.
#[derive(Args, Debug)]
#[command(override_usage = "famfs cp [OPTIONS] <SRC>... <DEST>")]
#[command(after_help = "\
All sources are looked at first: what famfs cannot hold (empty files, symbolic links, special \
files, paths of more than 79 bytes), too little space or a full log stop the copy before anything \
is written. Holes of sparse files become zeros, and take space. `DIR/.` copies what is in DIR.

A new file appears only when its data is complete and written back. A file that is there with the \
same size is compared with its source, and what differs is replaced in place: others see it \
change. So the same command, run again after an interruption, goes on where the first run ended. \
Owner and mode of what is there stay.

With --out a file appears under its name only when it is complete, and replaces one that is there. \
Modes are kept, but never set-user-ID and set-group-ID bits; owners only for root.

Examples:
  famfs cp -r dataset /mnt/famfs               copy a tree into a mounted famfs
  famfs --pool pool cp -r -m 444 dataset/. /   copy what is in it into a pool file
  famfs --pool pool cp --dry-run -r dataset /  say what would be copied
  famfs --pool pool cp --out -r /data out      copy a tree out of a pool file

Exit codes: 0 success; 1 failure; 2 wrong usage; 130 interrupted.")]
pub struct Cp {
    /// Files and directories to copy, and last the target: a directory, or a new name for one file
    #[arg(value_name = "SRC", required = true, num_args = 2..)]
    pub paths: Vec<PathBuf>,
    /// Copy directories with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    /// Copy out of the pool of --pool: SRC are its paths, DEST is one of the host
    #[arg(short, long)]
    pub out: bool,
    /// Number of threads; 0 takes one per processor, at most 8
    #[arg(short, long, visible_alias = "threadct", value_name = "N", default_value_t = 0,
        value_parser = parse_threads())]
    pub threads: u16,
    /// Read back what was written, and compare it with the source before it appears
    #[arg(short = 'c', long, visible_alias = "compare")]
    pub verify: bool,
    /// Leave out what famfs cannot hold, and say so
    #[arg(long)]
    pub skip_unsupported: bool,
    /// Check everything, and print what would be done
    #[arg(long, visible_alias = "dryrun")]
    pub dry_run: bool,
    /// Owner and permissions.
    #[command(flatten)]
    pub owner: OwnerArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Print a summary even if nothing was left out
    #[arg(short, long)]
    pub verbose: bool,
}

/// Options of `clone`.
#[derive(Args, Debug)]
#[command(after_help = "\
The log then has two files with the same memory, which fsck reports as damage, and which nothing \
but mkfs mends. It is for tests of fsck only.

Examples:
  famfs clone /mnt/famfs/data /mnt/famfs/crossed

Exit codes: 0 success; 1 failure; 2 wrong usage.")]
pub struct CloneFile {
    /// File whose memory is to be shared; with --pool a path in the pool
    #[arg(value_name = "SRC")]
    pub source: PathBuf,
    /// New file
    #[arg(value_name = "DST")]
    pub target: PathBuf,
    /// Name what is made
    #[arg(short, long)]
    pub verbose: bool,
    /// Check everything, and print what would be made
    #[arg(long, visible_alias = "dryrun")]
    pub dry_run: bool,
}
