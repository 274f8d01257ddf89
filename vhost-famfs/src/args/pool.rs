// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `pool`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use famfs::format::view::View;
use famfs::text::number::{number, parse_size};
use uuid::Uuid;

use crate::pool::{CreateOptions, Owners, ResizeOptions, is_in_own_directory};

#[derive(Debug, Subcommand)]
pub(super) enum PoolCommand {
    Create(CreateArgs),
    List(ListArgs),
    Inspect(InspectArgs),
    Resize(ResizeArgs),
    Rm(RmArgs),
}

/// Make a new pool; never replaces a file
///
/// Examples:
///
///   vhost-famfs pool create /dev/shm/pool --size 8G --mkfs
///
///   vhost-famfs pool create /dev/hugepages/pool --size 64G --numa 0
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CreateArgs {
    /// Name of the new file. /dev/shm is memory, a hugetlbfs mount such as /dev/hugepages is
    /// memory in huge pages; a file on a disk survives a reboot of the host. The directory of
    /// your own pools, vhost-famfs-UID in either, is made if it is not there.
    path: PathBuf,
    /// Size: a multiple of 2M (of the page size in hugetlbfs), at least 16M. K, M, G and T are
    /// powers of 1024.
    #[arg(long, value_parser = parse_size)]
    size: u64,
    /// What guests see.
    #[arg(long, value_enum, default_value_t = ViewArg::Devdax)]
    view: ViewArg,
    /// Identity of the devdax info block [default: random]
    #[arg(long)]
    uuid: Option<Uuid>,
    /// Make an empty famfs in it too. Guests need no `famfs mkfs` then.
    #[arg(long)]
    mkfs: bool,
    /// Take memory from this NUMA node only. For tmpfs and hugetlbfs; holds for every VM.
    #[arg(long, value_name = "NODE", value_parser = number::<u32>(0..=1023))]
    numa: Option<u32>,
    /// Take all memory now, so that no VM can run out of it later. Always so in hugetlbfs, and on
    /// a disk.
    #[arg(long)]
    prefault: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ViewArg {
    /// /dev/dax0.0: the first 2 MiB hold an info block, files can be mapped by 2 MiB pages.
    Devdax,
    /// /dev/pmem0: the guest's device is the whole pool.
    Raw,
}

/// Find pools: files with a devdax info block or a famfs.
///
/// Looks into /dev/shm, every hugetlbfs mount, /var/lib/vhost-famfs, $XDG_RUNTIME_DIR and the
/// directories that are given, and one level below each. A raw pool without a famfs looks like
/// any other file and is not found.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// More directories to look into.
    directories: Vec<PathBuf>,
    /// Print the pools as JSON: for each what `inspect` prints.
    #[arg(long)]
    json: bool,
}

/// Print what a pool is: kind, size, memory in use, owner, view, file system, who has it open.
///
/// Changes nothing and takes no lock. Processes of other users are only seen by root.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The pool.
    path: PathBuf,
    /// Fail if its name is a link, or if users other than you and root can change it.
    #[arg(long)]
    trusted: bool,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Make a pool larger, or cut unused space off its end.
///
/// Refused while a process has the pool open: guests do not notice a new size. Never cuts off
/// data: of a famfs, only space behind the last file; of an empty pool, only zeros.
/// An interrupted resize is finished by the same command.
#[derive(Debug, Args)]
pub(super) struct ResizeArgs {
    /// The pool.
    path: PathBuf,
    /// New size: a multiple of 2M, at least 16M.
    #[arg(long, value_parser = parse_size)]
    size: u64,
    /// Change the pool also if another user owns it or can change it.
    #[arg(long)]
    foreign_pool: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Remove a pool that nobody uses and that holds no data.
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// The pool.
    path: PathBuf,
    /// Remove it although it holds a file system or other data, or a process has it open. VMs that
    /// use it keep their memory until they end.
    #[arg(long)]
    force: bool,
    /// Remove it also if another user owns it or can change it.
    #[arg(long)]
    foreign_pool: bool,
}

/// What to do with a pool.
#[derive(Debug)]
pub enum PoolConfig {
    /// Make one.
    Create {
        /// What to make.
        options: CreateOptions,
        /// Print JSON.
        json: bool,
    },
    /// Find pools.
    List {
        /// Directories besides the usual ones.
        directories: Vec<PathBuf>,
        /// Print JSON.
        json: bool,
    },
    /// Look at one.
    Inspect {
        /// The pool.
        path: PathBuf,
        /// Whose it may be.
        owners: Owners,
        /// Print JSON.
        json: bool,
    },
    /// Change its size.
    Resize {
        /// Which one and how.
        options: ResizeOptions,
        /// Print JSON.
        json: bool,
    },
    /// Remove it.
    Remove {
        /// The pool.
        path: PathBuf,
        /// Even with data or a holder.
        force: bool,
        /// Whose it may be.
        owners: Owners,
    },
}

impl From<PoolCommand> for PoolConfig {
    fn from(command: PoolCommand) -> Self {
        match command {
            PoolCommand::Create(args) => Self::Create {
                options: CreateOptions {
                    own: is_in_own_directory(&args.path),
                    path: args.path,
                    size: args.size,
                    view: match args.view {
                        ViewArg::Devdax => View::Devdax,
                        ViewArg::Raw => View::Raw,
                    },
                    uuid: args.uuid,
                    mkfs: args.mkfs,
                    numa: args.numa,
                    prefault: args.prefault,
                },
                json: args.json,
            },
            PoolCommand::List(ListArgs { directories, json }) => Self::List { directories, json },
            PoolCommand::Inspect(InspectArgs { path, trusted, json }) => {
                Self::Inspect { path, owners: Owners::foreign(!trusted), json }
            }
            PoolCommand::Resize(ResizeArgs { path, size, foreign_pool, json }) => {
                let owners = Owners::foreign(foreign_pool);
                Self::Resize { options: ResizeOptions { path, size, owners }, json }
            }
            PoolCommand::Rm(RmArgs { path, force, foreign_pool }) => {
                Self::Remove { path, force, owners: Owners::foreign(foreign_pool) }
            }
        }
    }
}
