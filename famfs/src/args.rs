// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line. Options that the reference tools have too mean the same here.

use std::path::PathBuf;

use clap::builder::RangedI64ValueParser;
use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

/// Make, fill, mount, check and read famfs file systems
///
/// famfs puts files into memory that several systems share. A file is a list of 2 MiB units of
/// that memory; a log in the memory says which. Every system plays the log to see the files, and
/// maps them without copying. One system, the master, adds files.
///
/// Most commands work on a mounted famfs, and with --pool FILE on a pool file of the host, which
/// needs neither a kernel module nor a mount.
#[derive(Debug, Parser)]
#[command(name = "famfs", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// Work on a pool file instead of a mounted file system; paths are then paths in the pool
    ///
    /// The view is recognised: with a devdax info block famfs starts at 2 MiB, else at 0.
    /// Commands that write take an exclusive lock on the file.
    #[arg(long, global = true, value_name = "FILE")]
    pub pool: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 success; 1 failure; 2 wrong usage; 130 interrupted. Further ones stand in the \
command's own help.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an empty file system
    Mkfs(Mkfs),
    /// Mount a device and play its log
    Mount(Mount),
    /// Unmount a famfs
    Umount(Umount),
    /// Make the files appear that were added since the mount or the last logplay
    Logplay(Logplay),
    /// Make a directory
    Mkdir(Mkdir),
    /// Make a file of a given size
    Creat(Creat),
    /// Copy files and directory trees into a famfs
    Cp(Cp),
    /// List files and directories
    Ls(Ls),
    /// Check a file system without changing it
    Fsck(Fsck),
    /// Print the contents of files
    Cat(Cat),
    /// Show a file's owner, log slot and place on the device
    Stat(Stat),
    /// Show how much space and how many log slots are left
    Df(Df),
    /// Show how much space directories take
    Du(Du),
    /// Draw the tree of files and directories
    Tree(Tree),
    /// Show every byte of superblock and log
    Dump(Dump),
    /// Show where files lie on the device
    Getmap(Getmap),
    /// Compare a file with the data that `creat --seed` wrote
    Verify(Verify),
    /// Compare what read(2) and mmap(2) give of a file
    Chkread(Chkread),
    /// Print or check SHA-256 sums of files read through mmap
    Sum(Sum),
    /// Find this guest's pool, mount it and play its log
    Attach(Attach),
}

/// Owner options of the commands that add files.
#[derive(Args, Clone, Copy, Debug)]
pub struct OwnerArgs {
    /// Permission bits in octal, less the umask except for mkdir [default: the source's for cp,
    /// else 0644, for mkdir 0755]
    #[arg(short, long, value_name = "MODE", value_parser = parse_mode)]
    pub mode: Option<u32>,
    /// User number [default: the source's for cp, else the caller's]
    #[arg(short, long, value_parser = parse_id())]
    pub uid: Option<u32>,
    /// Group number [default: as for --uid]
    #[arg(short, long, value_parser = parse_id())]
    pub gid: Option<u32>,
}

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

/// Reads a size with a binary unit: `4096`, `8k`, `16M`, `1GiB`, `2t`. `GB` and its like are
/// refused, because programs differ about what they mean.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() || unit.starts_with('.') {
        return Err("expected a whole number and a unit, as in 8m or 512MiB".to_owned());
    }
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => {
            return Err(format!(
                "unknown unit \"{unit}\": expected k, m, g or t, or the same with iB (powers of 1024)"
            ));
        }
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "more bytes than fit into 64 bits".to_owned())
}

/// User and group numbers; the highest is chown(2)'s "leave it as it is".
fn parse_id() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(..i64::from(u32::MAX))
}

fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err("expected octal permission bits, as in 0644".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_binary() {
        for (text, size) in
            [("0", 0), ("4096", 4096), ("8k", 8192), ("1GiB", 1 << 30), ("2T", 2 << 40)]
        {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "k", "8x", "8kb", "-1", "1.5g", "99999999999t"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode("0644"), Ok(0o644));
        assert!(parse_mode("888").is_err() && parse_mode("10000").is_err());
    }
}
