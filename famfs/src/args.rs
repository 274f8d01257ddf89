// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line. Options that the reference tools have too mean the same here.

mod archives;
mod deleting;
mod following;
mod mounting;
mod reading;
mod roles;
mod writing;

use std::path::PathBuf;

use clap::builder::{FalseyValueParser, RangedI64ValueParser};
use clap::{Args, Parser, Subcommand};

pub use self::archives::*;
pub use self::deleting::*;
pub use self::following::*;
pub use self::mounting::*;
pub use self::reading::*;
pub use self::roles::*;
pub use self::writing::*;

/// The environment variable that stands for `--coherent`; empty, `0`, `no`, `off` and `false` do not.
pub const COHERENT: &str = "FAMFS_COHERENT";

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

    /// Leave the CPU's caches alone: all systems that use the memory see it coherently
    ///
    /// That is so for virtual machines on one host. Without it cache lines are written back after
    /// writing and dropped before reading, for memory that several hosts share.
    #[arg(long, global = true, env = COHERENT, hide_env_values = true)]
    #[arg(value_parser = FalseyValueParser::new())]
    pub coherent: bool,

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
    /// Follow the log, and make new files appear at once
    Watch(Watch),
    /// Make a directory
    Mkdir(Mkdir),
    /// Make a file of a given size
    Creat(Creat),
    /// Copy files and directory trees into a famfs
    Cp(Cp),
    /// Write a tar archive of files and directories
    Export(Export),
    /// Unpack a tar archive
    Import(Import),
    /// Delete files and directories
    Rm(Rm),
    /// Give back what deleted files hold
    Compact(Compact),
    /// Show who is the master, and whether it is alive
    Role(Role),
    /// Make this or another system the master
    Takeover(Takeover),
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
    /// Draw where files and free space are
    Map(Map),
    /// Show every byte of superblock and log
    Dump(Dump),
    /// Show where files lie on the device
    Getmap(Getmap),
    /// Make superblock and log appear as files of a mounted famfs
    Mkmeta(Mkmeta),
    /// Check that every file of a mounted famfs has its memory
    Check(Check),
    /// Write the CPU's caches of files back to memory, and forget them
    Flush(Flush),
    /// Make a second file of a file's memory, to test fsck
    #[command(hide = true)]
    Clone(CloneFile),
    /// Compare a file with the data that `creat --seed` wrote
    Verify(Verify),
    /// Compare what read(2) and mmap(2) give of a file
    Chkread(Chkread),
    /// Print or check SHA-256 sums of files read through mmap
    Sum(Sum),
    /// Find out what is wrong, and name the command that mends it
    Doctor(Doctor),
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

/// Reads a file and the seed of its data: `FILE,SEED`.
fn parse_file_and_seed(text: &str) -> Result<(PathBuf, u32), String> {
    let (file, seed) = text.rsplit_once(',').ok_or("expected FILE,SEED")?;
    let seed =
        seed.parse().map_err(|_| format!("seed \"{seed}\": expected a number of 32 bits"))?;
    match file.is_empty() {
        true => Err("expected a file before the comma".to_owned()),
        false => Ok((file.into(), seed)),
    }
}

/// Numbers of threads, as many as the reference takes.
fn parse_threads() -> RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(..=256)
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
