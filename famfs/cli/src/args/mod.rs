// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line. Options that the reference tools have too mean the same here.

mod archives;
mod changing;
mod deleting;
mod following;
mod mounting;
mod number;
mod owner;
mod reading;
mod roles;
mod time;
mod upgrading;
mod writing;

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};

pub use self::archives::*;
pub use self::changing::*;
pub use self::deleting::*;
pub use self::following::*;
pub use self::mounting::*;
pub use self::owner::{Id, NewGroup, NewOwner};
pub use self::reading::*;
pub use self::roles::*;
pub use self::upgrading::*;
pub use self::writing::*;

/// Environment variable with the effect of `--coherent`; empty, `0`, `no`, `off` and `false` have
/// none.
pub const COHERENT: &str = "FAMFS_COHERENT";

/// Make, fill, mount, check and read famfs file systems
///
/// famfs keeps files in memory that several systems share. A file is a list of pieces of that
/// memory. A log in the same memory records which pieces belong to which file. Every system plays
/// the log to see the files, and maps them without copying. One system, the master, adds files; so
/// can the host of the pool file.
///
/// Most commands work on a mounted famfs. With --pool FILE they work on a pool file of the host
/// instead, which needs neither a kernel module nor a mount.
#[derive(Debug, Parser)]
#[command(name = "famfs", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// Work on a pool file instead of a mounted file system; paths are then paths in the pool
    ///
    /// The view is detected: famfs starts at 2 MiB if the pool has a devdax info block, else at 0.
    /// Commands that change names work while virtual machines use the pool, one command at a time;
    /// they ask the master for its lease. mkfs and compact need the pool for themselves.
    #[arg(long, global = true, value_name = "FILE")]
    pub pool: Option<PathBuf>,

    /// Also write to a pool file that another user owns or can change
    ///
    /// By default, commands that write accept only a pool file that belongs to this user or to
    /// root, has a single name and is not writable for group and others. Anyone who can change the
    /// file can see and replace what you put into it.
    #[arg(long, global = true)]
    pub foreign_pool: bool,

    /// Do not flush CPU caches; safe if all users of the memory are on one host, such as VMs
    ///
    /// By default, cache lines are written back after writing and dropped before reading, because
    /// several hosts may share the memory without seeing it coherently.
    #[arg(long, global = true, env = COHERENT, hide_env_values = true)]
    #[arg(value_parser = FalseyValueParser::new())]
    pub coherent: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 success; 1 failure; 2 wrong usage; 130 interrupted. Some commands have more: see \
their help.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an empty file system
    Mkfs(Mkfs),
    /// Mount a device and play its log
    Mount(Mount),
    /// Unmount a famfs
    Umount(Umount),
    /// Play the log: make files appear that were added since the mount or the last logplay
    Logplay(Logplay),
    /// Follow the log and make new files appear at once
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
    /// Give a file another name, or make a symbolic link
    Ln(Ln),
    /// Move or rename files and directories
    Mv(Mv),
    /// Change permissions
    Chmod(Chmod),
    /// Change user and group
    Chown(Chown),
    /// Change the time of files, or make empty files
    Touch(Touch),
    /// Delete files, links and directories
    Rm(Rm),
    /// Free the space of deleted files that nobody uses any more, while VMs run
    Reclaim(Reclaim),
    /// Free the space and log slots of deleted files, while nobody uses the pool
    Compact(Compact),
    /// Show which system is the master and whether it is alive
    Role(Role),
    /// Make this or another system the master
    Takeover(Takeover),
    /// Show which systems follow the log, and how far each has come
    Members(Members),
    /// Wait until every system that follows the log shows all that was published
    Publish(Publish),
    /// Turn on the extensions of an existing file system
    Upgrade(Upgrade),
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
    /// Check that every file of a mounted famfs is mapped to its memory
    Check(Check),
    /// Write cached data of files back to memory and drop it from the CPU's caches
    Flush(Flush),
    /// Make a second file with the memory of a file, to test fsck
    #[command(hide = true)]
    Clone(CloneFile),
    /// Compare a file with the data that `creat --seed` wrote
    Verify(Verify),
    /// Compare what read(2) and mmap(2) return for a file
    Chkread(Chkread),
    /// Print or check SHA-256 sums of files read through mmap
    Sum(Sum),
    /// Find problems and name the command that fixes each of them
    Doctor(Doctor),
    /// Find this guest's pool, mount it and play its log
    Attach(Attach),
}

/// Hidden options of the commands that work only on a mounted famfs: these refuse `--pool`.
#[derive(Args, Clone, Debug, Default)]
pub struct MountedOnly {
    /// Refused: the command works on a mounted famfs
    #[arg(long = "pool", hide = true, value_name = "FILE")]
    pub pool: Option<PathBuf>,
    /// No effect on a mounted famfs
    #[arg(long = "foreign-pool", hide = true)]
    pub foreign_pool: bool,
}

/// Owner options of the commands that add files.
#[derive(Args, Clone, Copy, Debug)]
pub struct OwnerArgs {
    /// Permission bits in octal, less the umask except for mkdir [default: 0644; mkdir: 0755; cp:
    /// the source's]
    #[arg(short, long, value_name = "MODE", value_parser = parse_mode)]
    pub mode: Option<u32>,
    /// Numeric user ID [default: the source's for cp, else the caller's]
    #[arg(short, long, value_parser = number::id())]
    pub uid: Option<u32>,
    /// Numeric group ID [default: as for --uid]
    #[arg(short, long, value_parser = number::id())]
    pub gid: Option<u32>,
}

/// Reads a file and the seed of its data: `FILE,SEED`.
fn parse_file_and_seed(text: &str) -> Result<(PathBuf, u32), String> {
    let (file, seed) = text.rsplit_once(',').ok_or("expected FILE,SEED")?;
    let seed = number::seed()(seed).map_err(|err| format!("seed \"{seed}\": {err}"))?;
    match file.is_empty() {
        true => Err("expected a file before the comma".to_owned()),
        false => Ok((file.into(), seed)),
    }
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
    fn modes_are_octal() {
        assert_eq!(parse_mode("0644"), Ok(0o644));
        assert!(parse_mode("888").is_err() && parse_mode("10000").is_err());
    }
}
