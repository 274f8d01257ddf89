// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands that add files.

use std::path::PathBuf;

use clap::Args;

use super::OwnerArgs;
use super::changing::ChangeArgs;
use famfs::text::number::{number, parse_size};

use super::number::{seed, threads};

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
    /// Output.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// How the bytes of new files are spread over the device.
#[derive(Args, Clone, Copy, Debug)]
pub struct InterleaveArgs {
    /// Interleave: number of parts of the device, 1 to 64; needs -N and -C [default: off]
    #[arg(short = 'B', long, value_name = "N", default_value_t = 0, hide_default_value = true,
        value_parser = number::<u64>(0..=u64::MAX))]
    pub nbuckets: u64,
    /// Interleave: number of strips of a file, 1 to 16, each in its own part
    #[arg(short = 'N', long, value_name = "N", default_value_t = 0, hide_default_value = true,
        value_parser = number::<u16>(0..=u16::MAX))]
    pub nstrips: u16,
    /// Interleave: bytes to put in a strip before the next strip, a power of two from 2m; shorter
    /// files are not interleaved
    #[arg(short = 'C', long, alias = "chunk-size", value_name = "SIZE", value_parser = parse_size,
          default_value = "0", hide_default_value = true)]
    pub chunksize: u64,
}

/// Options of `creat`.
#[derive(Args, Debug)]
#[command(after_help = "\
An existing file of the same size stays as it is, even with a seed. --multi makes several files \
and reads the log only once; they appear in the order given.

Examples:
  famfs creat -s 64m -S 42 /mnt/famfs/a                   64 MiB of data from seed 42
  famfs creat -s 64m -B 8 -N 4 -C 2m /mnt/famfs/b         over 4 strips in 4 of 8 parts
  famfs --pool pool creat -M /a,8m,1 -M /b,8m,2 -M /c,4k  three files at once

Exit codes: 0 success; 1 failure (complete files are kept); 2 wrong usage; 130 interrupted.")]
pub struct Creat {
    /// File to make
    #[arg(value_name = "FILE", required_unless_present = "multi", conflicts_with = "multi")]
    pub path: Option<PathBuf>,
    /// Size, with k, m, g or t for KiB to TiB
    #[arg(short, long, value_parser = parse_size, required_unless_present = "multi",
          conflicts_with = "multi")]
    pub size: Option<u64>,
    /// Fill with data from this seed, for `verify` to check; 0 is a random seed [default: zeros]
    #[arg(short = 'S', long, conflicts_with = "multi", value_parser = seed())]
    pub seed: Option<u32>,
    /// Fill with data from --seed, or from a random seed without it
    #[arg(short, long)]
    pub randomize: bool,
    /// File to make, with its size and optionally the seed of its data; repeat for each file
    #[arg(short = 'M', long, value_name = "FILE,SIZE[,SEED]", value_parser = parse_new_file)]
    pub multi: Vec<NewFile>,
    /// Number of files to fill at the same time; 0 is one per processor, at most 8
    #[arg(short, long, visible_alias = "threadct", value_name = "N", default_value_t = 0,
        value_parser = threads())]
    pub threads: u16,
    /// Interleaving.
    #[command(flatten)]
    pub interleave: InterleaveArgs,
    /// Owner and permissions.
    #[command(flatten)]
    pub owner: OwnerArgs,
    /// Output.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// A file of `creat --multi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Where it is to be.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Seed of its data.
    pub seed: Option<u32>,
}

/// Reads `FILE,SIZE` or `FILE,SIZE,SEED`.
fn parse_new_file(text: &str) -> Result<NewFile, String> {
    let mut parts = text.split(',');
    let (Some(path), Some(size), seed, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("expected FILE,SIZE or FILE,SIZE,SEED, as in /mnt/famfs/a,8m,42".to_owned());
    };
    let seed = seed.map(|text| self::seed()(text).map_err(|err| format!("seed: {err}")));
    Ok(NewFile { path: path.into(), size: parse_size(size)?, seed: seed.transpose()? })
}

/// Options of `cp`.
#[derive(Args, Debug)]
#[command(override_usage = "famfs cp [OPTIONS] <SRC>... <DEST>")]
#[command(after_help = "\
cp copies files, directories and symbolic links with their owners, modes and times; holes and hard \
links stay what they are. A SRC that is a symbolic link is followed, links below it only with \
--dereference. `DIR/.` copies the contents of DIR.

cp checks all sources first. It stops before it writes anything if one of them is a pipe, a socket \
or a device, if there is too little space, or if the log is full. In a file system without \
extensions it also refuses empty files, symbolic links and paths over 79 bytes, stores holes as \
zeros and hard links as files of their own, and keeps no times; `famfs upgrade` turns extensions on.

A new file appears only when its data is complete and written back. If a file exists with the same \
size, cp compares it with its source and replaces what differs in place: others see it change. So \
to continue after an interruption, run the same command again. What exists gets the owner, mode \
and time of its source; without extensions they stay, and if owner or mode differ, nothing is \
written, unless --skip-unsupported is given. Extended attributes, ACLs and capabilities are not \
kept; files that had them are counted, and named with -v.

With --replace a file that differs is written anew and takes the place of the old one in one step, \
whatever its size: others find the old file or the new one under its name, and who has the old one \
open or mapped keeps it, bytes, owner and mode. Files with the same bytes stay. A symbolic link at \
the place of a file or link is replaced, and so is one name of a file that has several: its other \
names keep the old file. A directory is never replaced. A link that DEST names is followed. Each \
file is replaced on its own; --atomic replaces all at once. Old and new files need room at the same \
time, until `famfs compact`. An interrupted copy leaves the old files. All this needs extensions.

With --atomic others see everything at once, or nothing if the copy fails or is interrupted. \
Copy one directory, so that one new name appears; an existing file that differs is an error without \
--replace. In the \
mount of the system that copies, names appear as they are written.

With --out a file appears under its name only when it is complete, and replaces an existing one. \
Modes are kept, owners only for root. Set-user-ID and set-group-ID bits are dropped, because any \
guest can set them, and the files that lost them are named; --keep-set-id keeps the bits. No \
symbolic link below DEST is followed.

Examples:
  famfs cp -r dataset /mnt/famfs               copy a tree into a mounted famfs
  famfs --pool pool cp -r -m 444 dataset/. /   copy its contents into a pool file
  famfs cp -r --atomic v2 /mnt/famfs           let v2 appear as a whole
  famfs cp --replace model /mnt/famfs/model    give a name new contents in one step
  famfs --pool pool cp --dry-run -r dataset /  print what would be copied
  famfs --pool pool cp --out -r /data out      copy a tree out of a pool file
  famfs cp --compare -r dataset /mnt/famfs     compare a tree with its copy

Exit codes: 0 success; 1 failure, or with --compare a difference; 2 wrong usage; 130 interrupted.")]
pub struct Cp {
    /// Files and directories to copy, then the target: a directory, or a new name for one file
    #[arg(value_name = "SRC", required = true, num_args = 2..)]
    pub paths: Vec<PathBuf>,
    /// Copy directories and everything in them
    #[arg(short, long)]
    pub recursive: bool,
    /// Copy what symbolic links lead to instead of the links
    #[arg(short = 'L', long, conflicts_with = "out")]
    pub dereference: bool,
    /// Let everything appear at once, or nothing
    #[arg(long, conflicts_with_all = ["out", "compare"])]
    pub atomic: bool,
    /// Let new files take the place of files that differ, in one step each; who has an old one open
    /// keeps it
    #[arg(long, conflicts_with_all = ["out", "compare"])]
    pub replace: bool,
    /// Copy out of the pool of --pool: SRC are paths in the pool, DEST is a path of the host
    #[arg(short, long)]
    pub out: bool,
    /// Number of threads; 0 is one per processor, at most 8
    #[arg(short, long, visible_alias = "threadct", value_name = "N", default_value_t = 0,
        value_parser = threads())]
    pub threads: u16,
    /// Interleaving.
    #[command(flatten)]
    pub interleave: InterleaveArgs,
    /// Write nothing: compare the sources with what exists, also owners, modes and times, and fail
    /// if anything differs or is missing
    #[arg(short, long, conflicts_with_all = ["verify", "out"])]
    pub compare: bool,
    /// Read back every written file, and compare it with its source before it appears
    #[arg(long)]
    pub verify: bool,
    /// Skip and report what famfs cannot hold and what may not be read; without extensions, keep
    /// owners and modes of existing files
    #[arg(long)]
    pub skip_unsupported: bool,
    /// With --out: keep set-user-ID and set-group-ID bits, which any guest can set
    #[arg(long, requires = "out")]
    pub keep_set_id: bool,
    /// Check everything and print what would be done
    #[arg(long, visible_alias = "dryrun")]
    pub dry_run: bool,
    /// Owner and permissions.
    #[command(flatten)]
    pub owner: OwnerArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Always print a summary, and name the files that lose attributes
    #[arg(short, long, overrides_with = "verbose")]
    pub verbose: bool,
}

/// Options of `clone`.
#[derive(Args, Debug)]
#[command(after_help = "\
For tests of fsck only: the log then has two files with the same memory, which fsck reports as \
damage and only mkfs repairs. On a mounted famfs the command fails if the kernel refuses such a \
file, as famfs.ko does.

Examples:
  famfs --pool /dev/shm/pool clone /data/a /data/crossed

Exit codes: 0 success; 1 failure; 2 wrong usage.")]
pub struct CloneFile {
    /// File whose memory is to be shared; with --pool a path in the pool
    #[arg(value_name = "SRC")]
    pub source: PathBuf,
    /// New file
    #[arg(value_name = "DST")]
    pub target: PathBuf,
    /// Output.
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_files_have_a_size_and_perhaps_a_seed() {
        let file = |path: &str, size, seed| Ok(NewFile { path: path.into(), size, seed });
        assert_eq!(parse_new_file("/mnt/a b,8k"), file("/mnt/a b", 8192, None));
        assert_eq!(parse_new_file("a,1,0"), file("a", 1, Some(0)));
        for text in ["a", "a,", "a,b", "a,1,", "a,1,-1", "a,1,2,3", "a,1,4294967296", "a,1,010"] {
            assert!(parse_new_file(text).is_err(), "{text}");
        }
    }
}
