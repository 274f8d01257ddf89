// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands that look at a file system and its files.

use std::path::PathBuf;

use clap::Args;

/// Options of `ls`.
#[derive(Args, Debug)]
pub struct Ls {
    /// File or directory; with --pool a path in the pool [default: the root]
    pub path: Option<PathBuf>,
    /// Print the list as JSON, with extents
    #[arg(long)]
    pub json: bool,
}

/// Options of `fsck`.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "\
Exit codes: 0 clean; 1 damaged; 2 no such device or path; 16 the device is mounted (check the \
mount point instead)."
)]
pub struct Fsck {
    /// Device that is not mounted, or a path in a mounted famfs; not with --pool
    #[arg(value_name = "DEV|PATH")]
    pub path: Option<PathBuf>,
    /// Print sizes with units
    #[arg(short = 'h', long)]
    pub human: bool,
    /// Print UUIDs and the map's limits too
    #[arg(short, long)]
    pub verbose: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
}

/// Options of `cat`.
#[derive(Args, Debug)]
pub struct Cat {
    /// Files of a mounted famfs; with --pool paths in the pool
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

/// Options of `stat`.
#[derive(Args, Debug)]
#[command(after_help = "\
It shows what the log says. The list in JSON is that of `ls --json`.")]
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
#[command(after_help = "\
Files take whole units of 2 MiB, and every file and directory one log slot. A new file needs one \
free piece as large as itself. Exit code 1 also if the file system is damaged: the figures may \
then be wrong.")]
pub struct Df {
    /// A path in a mounted famfs; not needed with --pool
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Print sizes with units
    #[arg(long)]
    pub human: bool,
    /// Print the sizes as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `du`.
#[derive(Args, Debug)]
#[command(after_help = "\
A line for each directory: bytes that its files take in units of 2 MiB, bytes that are in them, \
path. Exit code 1 also if files are left out because the log is damaged.")]
pub struct Du {
    /// File or directory; with --pool a path in the pool [default: the root]
    pub path: Option<PathBuf>,
    /// Only the sum of PATH
    #[arg(short, long)]
    pub summarize: bool,
    /// Print sizes with units
    #[arg(long)]
    pub human: bool,
    /// Print the sums as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `tree`.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit code 1 also if files are left out because the log is damaged.")]
pub struct Tree {
    /// File or directory; with --pool a path in the pool [default: the root]
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

Exit code 1 also if files are left out because the log is damaged.")]
pub struct Map {
    /// A path in a mounted famfs; not needed with --pool
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Write an SVG picture to this file instead, whose name must end in .svg
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `dump`.
#[derive(Args, Debug)]
#[command(after_help = "\
Damaged media are shown like whole ones; what has only one right value and another one on the media \
is marked WRONG. Whether files can be used is told by fsck.

Exit codes: 0 everything is shown, whatever it is; 1 some bytes could not be read.")]
pub struct Dump {
    /// A path in a mounted famfs; not with --pool
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Print fields as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `getmap`.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes: 0 success; 1 not on a famfs; 2 the file has no map; 9 no such file; 21 no regular file.")]
pub struct Getmap {
    /// Files of a mounted famfs
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Print nothing, only tell by the exit code
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the maps as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `verify`.
#[derive(Args, Debug)]
pub struct Verify {
    /// Seed that the file was made with
    #[arg(short = 'S', long)]
    pub seed: u32,
    /// File to check
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub path: PathBuf,
    /// Print nothing, only tell by the exit code
    #[arg(short, long)]
    pub quiet: bool,
}

/// Options of `chkread`.
#[derive(Args, Debug)]
#[command(after_help = "\
Both must give the same bytes, on famfs as on any file system. Exit code 1 if they differ.")]
pub struct Chkread {
    /// File to read in both ways
    pub file: PathBuf,
}

/// Options of `sum`.
#[derive(Args, Debug)]
#[command(after_help = "\
The format is that of sha256sum, with names relative to PATH, so a list made from a source \
directory checks its copy. Files that are no regular files are left out.")]
pub struct Sum {
    /// File or directory, on any file system; with --pool a path in the pool [default: the root]
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
