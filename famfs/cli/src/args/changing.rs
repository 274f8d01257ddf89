// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the commands that change names and attributes.

use std::path::PathBuf;

use clap::Args;
use famfs::replay::Time;
use famfs::text::mode::ModeChange;

use super::NewOwner;
use super::time;

/// What these commands print.
#[derive(Args, Clone, Copy, Debug)]
pub struct ChangeArgs {
    /// Check everything and print what would be changed
    #[arg(long, visible_alias = "dryrun")]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Print a line for everything that is changed
    #[arg(short, long, overrides_with = "verbose")]
    pub verbose: bool,
}

/// Options of `ln`.
#[derive(Args, Debug)]
#[command(after_help = "\
A hard link is another name of a file: both names have the same bytes, owner, mode and time, and \
the file is there until its last name is deleted. Only files have hard links.

A symbolic link holds a text, which whoever opens it reads as a path from the link's directory on. \
The text is not checked. In a mounted famfs it can lead anywhere, also out of the famfs.

If the last argument is a directory, the links are made in it. A link never replaces something: to \
switch a link, make a new one and move it over the old one with `famfs mv`, in one step.

Examples:
  famfs ln /mnt/famfs/models/a /mnt/famfs/best      another name of a file
  famfs ln -s models/v2 /mnt/famfs/next             a symbolic link
  famfs mv /mnt/famfs/next /mnt/famfs/current       replace a link by it
  famfs --pool pool ln -s data/a /latest            a link in a pool file

Exit codes: 0 success; 1 failure, nothing is changed; 2 wrong usage.")]
pub struct Ln {
    /// What to link to, then the new name or an existing directory; with --pool, paths in the pool
    #[arg(value_name = "TARGET", required = true, num_args = 2..)]
    pub paths: Vec<PathBuf>,
    /// Make symbolic links; TARGET is then their text
    #[arg(short, long)]
    pub symbolic: bool,
    /// Output.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Options of `mv`.
#[derive(Args, Debug)]
#[command(override_usage = "famfs mv [OPTIONS] <SOURCE>... <DEST>")]
#[command(after_help = "\
Moves names, and no data. What is at the new place is replaced, as with mv(1): a file or link by \
a file or link, and an empty directory by a directory. With -n, a name that is taken is an error. \
A symbolic link is moved, not what it leads to.

If DEST is a directory, the sources go into it. A symbolic link to a directory counts as a link: \
it is replaced. `DEST/` means the directory that it leads to.

Each move is one entry of the log: after a crash a name is at its old or its new place. Several \
sources move as one: others see all of the moves, or none. Processes that have a replaced file \
open or mapped keep it; its memory is free after `famfs compact`.

Examples:
  famfs mv /mnt/famfs/draft /mnt/famfs/final         rename a file
  famfs mv -n /mnt/famfs/x /mnt/famfs/y /mnt/famfs/models/
  famfs --pool pool mv /data /archive                rename a directory in a pool file

Exit codes: 0 success; 1 failure, nothing is moved; 2 wrong usage.")]
pub struct Mv {
    /// What to move, then the new name or an existing directory; with --pool, paths in the pool
    #[arg(value_name = "SOURCE", required = true, num_args = 2..)]
    pub paths: Vec<PathBuf>,
    /// Replace nothing: fail if a name is taken
    #[arg(short, long)]
    pub no_clobber: bool,
    /// Output.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Options of `chmod`.
#[derive(Args, Debug)]
#[command(after_help = "\
MODE is octal (644), or a list of changes as of chmod(1): who (u, g, o, a), an operator (+, -, =) \
and bits (r, w, x, X, s, t, or u, g, o for what these have). Without who, everybody is meant, and \
the bits of the umask stay as they are. An octal MODE sets exactly its bits.

A symbolic link is followed; those that -R finds are left alone, because their own mode has no \
meaning. All changes appear as one.

Examples:
  famfs chmod 640 /mnt/famfs/secret
  famfs chmod u+x,go-w /mnt/famfs/tool
  famfs chmod -R a+rX /mnt/famfs/shared             let everybody read
  famfs --pool pool chmod -R go= /data

Exit codes: 0 success; 1 failure, nothing is changed; 2 wrong usage.")]
pub struct Chmod {
    /// New permissions: octal or symbolic
    #[arg(value_parser = ModeChange::parse, allow_hyphen_values = true)]
    pub mode: ModeChange,
    /// Files and directories, all of one famfs; with --pool, paths in the pool
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Also change what is in the directories, at all levels
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Output.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Options of `chown`.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "\
OWNER is USER, USER:GROUP, :GROUP, or USER: for a user and its login group. The log holds numbers. \
Names are looked up on the system where the command runs: in a guest that knows other users, use \
numbers.

A symbolic link is followed, unless -h is given; those that -R finds are changed themselves. As \
chown(2) does, the command takes the set-user-ID and set-group-ID bits off programs. All changes \
appear as one.

Examples:
  famfs chown 1000:100 /mnt/famfs/home
  famfs chown -R 0:0 /mnt/famfs/shared
  famfs --pool pool chown -R :100 /data

Exit codes: 0 success; 1 failure, nothing is changed; 2 wrong usage."
)]
pub struct Chown {
    /// New user, group or both, as names or numbers
    #[arg(value_name = "OWNER")]
    pub owner: NewOwner,
    /// Files, links and directories, all of one famfs; with --pool, paths in the pool
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Also change what is in the directories, at all levels
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Change a symbolic link, not what it leads to
    #[arg(short = 'h', long)]
    pub no_dereference: bool,
    /// Output.
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
}

/// Options of `touch`.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "\
Sets the time of the last change (mtime) to now, to TIME, or to that of FILE. A famfs keeps no \
other times. What does not exist becomes an empty file, with the caller as its owner.

TIME is `now`, a time with its offset as RFC 3339 writes it, or `@` and seconds since 1970; both \
with up to nine digits of a fraction.

A symbolic link is followed, unless -h is given. All changes appear as one.

Examples:
  famfs touch /mnt/famfs/ready                                  an empty file
  famfs touch -c -d 2026-11-28T12:00:00Z /mnt/famfs/models/a
  famfs touch -r /mnt/famfs/models/a /mnt/famfs/best
  famfs --pool pool touch -d @1795867200.5 /data/a

Exit codes: 0 success; 1 failure, nothing is changed; 2 wrong usage."
)]
pub struct Touch {
    /// Files and directories, all of one famfs; with --pool, paths in the pool
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// The new time [default: now]
    #[arg(short, long, value_name = "TIME", value_parser = time::parse)]
    #[arg(allow_hyphen_values = true)]
    pub date: Option<Time>,
    /// Use the time of this file; with --pool a path in the pool
    #[arg(short, long, value_name = "FILE", conflicts_with = "date")]
    pub reference: Option<PathBuf>,
    /// Make no files
    #[arg(short = 'c', long)]
    pub no_create: bool,
    /// Change a symbolic link, not what it leads to
    #[arg(short = 'h', long)]
    pub no_dereference: bool,
    /// Output.
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
}
