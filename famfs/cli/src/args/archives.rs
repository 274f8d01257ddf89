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
Kept are names, owners, modes, times to the nanosecond, symbolic and hard links, and the holes of \
sparse files. Devices and named pipes are refused; extended attributes are counted. The archive may \
be compressed with gzip, xz or zstd. A file system without extensions holds less: `famfs upgrade` \
turns them on.

Archives in files are examined first: import stops before it writes anything if famfs cannot hold a \
member, if a name leads outside or is taken, if there is too little space, or if the log is full. \
If a name occurs twice, the last member counts. With --atomic, all of it appears at once. Members \
from a pipe are imported one by one; those that were complete before an error stay.

A member below a symbolic link goes where the link leads, but never out of the directory that the \
archive is unpacked into: for links on the way, that directory is the root. That directory itself \
keeps its owner, mode and time; others that exist get those of their members.

--layers unpacks the layers of a container image, the lowest first: each replaces what is there, \
`.wh.NAME` removes NAME of the layers below, and `.wh..wh..opq` all that its directory has from \
them. --oci finds the layers in an image layout, and checks their sums. Layers always appear at \
once.

Examples:
  tar -c dataset | famfs --pool POOL import
  famfs import --atomic --input dataset.tar /mnt/famfs/datasets
  famfs --pool POOL import --layers --input layer1.tar --input layer2.tar /rootfs
  famfs --pool POOL import --oci image /rootfs

Exit codes: 0 success; 1 failure; 2 wrong usage; 130 interrupted.")]
pub struct Import {
    /// Existing directory to unpack into; with --pool a path in the pool [default: the root]
    pub path: Option<PathBuf>,
    /// Read the archive from this file; several are unpacked one after the other [default:
    /// standard input]
    #[arg(short, long, value_name = "FILE")]
    pub input: Vec<PathBuf>,
    /// The archives are layers of a container image, the lowest first
    #[arg(long, requires = "input")]
    pub layers: bool,
    /// Unpack the container image in this directory (OCI image layout)
    #[arg(long, value_name = "DIR", conflicts_with_all = ["input", "layers"])]
    pub oci: Option<PathBuf>,
    /// Let everything appear at once, or nothing; needs --input
    #[arg(long, requires = "input")]
    pub atomic: bool,
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
