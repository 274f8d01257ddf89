// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands that add files.

use std::path::PathBuf;

use clap::Args;

use super::{OwnerArgs, parse_size};

/// Options of `mkdir`.
#[derive(Args, Debug)]
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
    /// Fill with the data of a random seed
    #[arg(short, long, conflicts_with = "seed")]
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
is written. A new file appears only when its data is complete; a file that is there with the same \
size is overwritten in place, so others see it change, and an interrupted copy leaves it half new. \
`DIR/.` copies what is in DIR.")]
pub struct Cp {
    /// Files and directories to copy, and last the target: a directory, or a new name for one file
    #[arg(value_name = "SRC", required = true, num_args = 2..)]
    pub paths: Vec<PathBuf>,
    /// Copy directories with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    /// Leave out what famfs cannot hold, and say so
    #[arg(long)]
    pub skip_unsupported: bool,
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
