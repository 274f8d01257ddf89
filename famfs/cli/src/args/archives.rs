// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands that read and write tar archives.

use std::path::PathBuf;

use clap::Args;

/// Options of `export`.
#[derive(Args, Debug)]
#[command(after_help = "\
Names in the archive are relative to PATH. Owners and modes are kept; times are 0, because the \
media has none, so equal files give equal archives. Set-user-ID and set-group-ID bits are left out, \
because any guest can set them, and what lost them is named; --keep-set-id keeps them.

A pack (see `import --pack`) becomes the directory that it was made of, unless --keep-packs is \
given.

Examples:
  famfs --pool POOL export /dataset | tar -t
  famfs --pool POOL export -o all.tar
  famfs export /mnt/famfs/a | famfs --pool OTHER import /b

Exit codes: 0 success; 1 failure, or files are left out because the log is damaged; 2 wrong usage.")]
pub struct Export {
    /// File or directory; with --pool a path in the pool [default: the root]
    pub path: Option<PathBuf>,
    /// Write the archive to this file, which appears when it is complete; `-` is standard output
    /// [default: -]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Leave packs as they are
    #[arg(long)]
    pub keep_packs: bool,
    /// Keep set-user-ID and set-group-ID bits, which any guest can set
    #[arg(long)]
    pub keep_set_id: bool,
    /// Print what was done as JSON
    #[arg(long, requires = "output")]
    pub json: bool,
}

/// Options of `import`.
#[derive(Args, Debug)]
#[command(after_help = "\
Owners and modes are kept. An archive may be compressed with gzip, xz or zstd. One in a file is looked \
at first: members that famfs cannot hold (links, special and sparse files, empty files, names of more \
than 79 bytes, names that lead outside), names that are taken, too little space or a full log stop it \
before anything is written. Of a name that it has twice the last is taken. From a pipe members are \
taken one by one, and what was complete before an error stays.

--pack makes one file of each directory that holds at least two files, and only files below 2 MiB: \
DIR.tar, a tar archive with a mark. The topmost such directories are taken. A file takes at least \
2 MiB in a famfs; in a pack it takes its size and 512 bytes. Whatever reads tar reads a pack \
(`tar -xf /mnt/famfs/DIR.tar`), and `famfs export` unpacks it. In a pack empty files and long names \
are fine.

Examples:
  tar -c dataset | famfs --pool POOL import
  famfs import --pack --input dataset.tar /mnt/famfs/datasets

Exit codes: 0 success; 1 failure; 2 wrong usage; 130 interrupted.")]
pub struct Import {
    /// Directory to unpack into; with --pool a path in the pool [default: the root]
    pub path: Option<PathBuf>,
    /// Read the archive from this file [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Make one file of each directory of small files
    #[arg(long)]
    pub pack: bool,
    /// Leave out what famfs cannot hold, and say so
    #[arg(long)]
    pub skip_unsupported: bool,
    /// Only look at the archive and say what would be made
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Print what was done as JSON
    #[arg(long)]
    pub json: bool,
    /// Name what loses extended attributes, ACLs or capabilities
    #[arg(short, long, overrides_with = "verbose")]
    pub verbose: bool,
}
