// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands that read and write tar archives.

use std::path::PathBuf;

use clap::Args;

/// Options of `export`.
#[derive(Args, Debug)]
#[command(after_help = "\
Names in the archive are relative to PATH. Owners, modes, times, links and holes are kept; equal \
trees give equal archives. The time of what a pool without extensions holds is 0. Set-user-ID and set-group-ID bits are \
dropped, because any guest can set them, and the files that lost them are named; --keep-set-id \
keeps the bits.

A pack, which older tools made, becomes the directory that it was made from, unless --keep-packs is \
given.

Examples:
  famfs --pool POOL export /dataset | tar -t
  famfs --pool POOL export -o all.tar
  famfs export /mnt/famfs/a | famfs --pool OTHER import /b

Exit codes: 0 success; 1 failure, or files are missing because the log is damaged; 2 \
wrong usage.")]
pub struct Export {
    /// File or directory; with --pool a path in the pool [default: the root]
    pub path: Option<PathBuf>,
    /// Write the archive to this file, which appears when it is complete; `-` is standard output
    /// [default: -]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Do not unpack packs
    #[arg(long)]
    pub keep_packs: bool,
    /// Keep set-user-ID and set-group-ID bits, which any guest can set
    #[arg(long)]
    pub keep_set_id: bool,
    /// Print the result as JSON
    #[arg(long, requires = "output")]
    pub json: bool,
}

/// Options of `import`.
#[derive(Args, Debug)]
#[command(after_help = "\
Owners and modes are kept. The archive may be compressed with gzip, xz or zstd. An archive in a \
file is checked first: import stops before it writes anything if famfs cannot hold a member \
(links, special and sparse files, empty files, names over 79 bytes, names that lead outside), if a \
name is taken, if there is too little space, or if the log is full. If a name occurs twice, the \
last member counts. Members from a pipe are imported one by one; those that were complete before \
an error stay.

--pack makes one file, DIR.tar, of each directory that holds at least two files, and only files \
below 2 MiB. It takes the topmost such directories. DIR.tar is a tar archive with a mark. A file \
takes at least 2 MiB in a famfs, but in a pack only its size and 512 bytes. Any program that reads \
tar reads a pack (`tar -xf /mnt/famfs/DIR.tar`), and `famfs export` unpacks it. A pack can hold \
empty files and long names.

Examples:
  tar -c dataset | famfs --pool POOL import
  famfs import --pack --input dataset.tar /mnt/famfs/datasets

Exit codes: 0 success; 1 failure; 2 wrong usage; 130 interrupted.")]
pub struct Import {
    /// Existing directory to unpack into; with --pool a path in the pool [default: the root]
    pub path: Option<PathBuf>,
    /// Read the archive from this file [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Pack each directory of small files into one file
    #[arg(long)]
    pub pack: bool,
    /// Skip and report what famfs cannot hold
    #[arg(long)]
    pub skip_unsupported: bool,
    /// Only read the archive and print what would be made
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Name the files that lose extended attributes, ACLs or capabilities
    #[arg(short, long, overrides_with = "verbose")]
    pub verbose: bool,
}
