// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `pool`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use famfs::format::view::View;
use famfs::text::number::{number, parse_size};
use uuid::Uuid;

use crate::pool::{CreateOptions, GrowOptions, Owners, ResizeOptions, is_in_own_directory};

#[derive(Debug, Subcommand)]
pub(super) enum PoolCommand {
    Create(CreateArgs),
    List(ListArgs),
    Inspect(InspectArgs),
    Grow(GrowArgs),
    Resize(ResizeArgs),
    Rm(RmArgs),
    Prune(PruneArgs),
}

/// Create a pool; never replaces an existing file
///
/// Examples:
///
///   vhost-famfs pool create /dev/shm/pool --size 8G --mkfs
///
///   vhost-famfs pool create /dev/hugepages/pool --size 64G --numa 0
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CreateArgs {
    /// Path of the new file. In /dev/shm, the pool is in memory; in a hugetlbfs mount such as
    /// /dev/hugepages, it is in huge pages; on a disk, it survives a reboot of the host. The
    /// directory for your own pools, vhost-famfs-UID in /dev/shm or hugetlbfs, is created if
    /// needed.
    path: PathBuf,
    /// Size: a multiple of 2M (in hugetlbfs, of the page size), at least 16M. K, M, G and T are
    /// powers of 1024.
    #[arg(long, value_parser = parse_size)]
    size: u64,
    /// Leave room, so that `pool grow` can make the file system larger while VMs run: the file gets
    /// this size, the file system that of --size. Room takes no memory and no storage of the host,
    /// but 1/64 of it in the RAM of each guest.
    #[arg(long, value_parser = parse_size, value_name = "SIZE", requires = "mkfs")]
    max: Option<u64>,
    /// Which device guests see.
    #[arg(long, value_enum, default_value_t = ViewArg::Devdax)]
    view: ViewArg,
    /// Identity of the devdax info block [default: random]
    #[arg(long)]
    uuid: Option<Uuid>,
    /// Also create an empty famfs in the pool, so that guests need not run `famfs mkfs`.
    #[arg(long)]
    mkfs: bool,
    /// Take the memory from this NUMA node only. For tmpfs and hugetlbfs; applies to all VMs.
    #[arg(long, value_name = "NODE", value_parser = number::<u32>(0..=1023))]
    numa: Option<u32>,
    /// Allocate all memory now, so that no VM can run out of it later. Always done in hugetlbfs and
    /// on disk.
    #[arg(long)]
    prefault: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ViewArg {
    /// /dev/dax0.0: an info block takes the first 2 MiB, and files can be mapped with 2 MiB pages.
    Devdax,
    /// /dev/pmem0: the device is the whole pool.
    Raw,
}

/// Find pools: files with a devdax info block or a famfs.
///
/// Searches /dev/shm, every hugetlbfs mount, /var/lib/vhost-famfs, $XDG_RUNTIME_DIR and the
/// directories you name, each one level deep. A raw pool without a famfs looks like any other file,
/// so it is not found.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// More directories to search.
    directories: Vec<PathBuf>,
    /// Print the pools as JSON, each as `inspect` prints it.
    #[arg(long)]
    json: bool,
}

/// Show a pool's kind, size, memory use, owner, view, file system, and who has it open.
///
/// Changes nothing and takes no lock. Only root sees processes of other users.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The pool.
    path: PathBuf,
    /// Fail if the pool's name is a link, or if users other than you and root can change the pool.
    #[arg(long)]
    trusted: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Make the file system of a pool larger while VMs run
///
/// The pool must have room behind its file system: make it with `pool create --max`, or stop the
/// VMs and use `pool resize`. VMs see the new space at once.
///
/// Examples:
///
///   vhost-famfs pool create /dev/shm/pool --size 4G --max 16G --mkfs
///
///   vhost-famfs pool grow /dev/shm/pool --size 8G
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct GrowArgs {
    /// The pool.
    path: PathBuf,
    /// Where the file system is to end, from the start of the pool: a multiple of 2M.
    #[arg(long, value_parser = parse_size)]
    size: u64,
    /// Accept a pool that another user owns or can change.
    #[arg(long)]
    foreign_pool: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Make a pool larger, or remove unused space at its end.
///
/// Stop all processes that have the pool open first: running VMs would not see the new size.
/// Shrinking never removes data: with a famfs, only space after the last file; in an empty pool,
/// only zeros. To finish an interrupted resize, run the same command again.
#[derive(Debug, Args)]
pub(super) struct ResizeArgs {
    /// The pool.
    path: PathBuf,
    /// New size: a multiple of 2M, at least 16M.
    #[arg(long, value_parser = parse_size)]
    size: u64,
    /// Accept a pool that another user owns or can change.
    #[arg(long)]
    foreign_pool: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Remove a pool that is not in use and holds no data.
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// The pool.
    path: PathBuf,
    /// Remove the pool even if it holds a file system or other data, or a process has it open. VMs
    /// that use it keep their memory until they end.
    #[arg(long)]
    force: bool,
    /// Accept a pool that another user owns or can change.
    #[arg(long)]
    foreign_pool: bool,
}

/// Remove your pools that nobody uses
///
/// Finds pools as `list` does, of those only your own that no process has and no cluster of yours,
/// even one whose VMs are all stopped. Names each with its size and asks whether to remove it.
///
/// With --yes nothing is asked. Pools with files, or with data outside the file system, as in
/// slices, are then kept, except those that you name.
///
/// Nothing is removed while the state of one of your clusters cannot be read.
///
/// Examples:
///
///   vhost-famfs pool prune --dry-run
///
///   vhost-famfs pool prune --yes
///
///   vhost-famfs pool prune --yes /dev/shm/old
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct PruneArgs {
    /// Only these pools.
    #[arg(value_name = "POOL")]
    pools: Vec<PathBuf>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Only say what would be removed.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

/// What to do with which pool.
#[derive(Debug)]
pub enum PoolConfig {
    /// Create a pool.
    Create {
        /// What to create.
        options: CreateOptions,
        /// Print JSON.
        json: bool,
    },
    /// Find pools.
    List {
        /// Directories in addition to the usual ones.
        directories: Vec<PathBuf>,
        /// Print JSON.
        json: bool,
    },
    /// Inspect a pool.
    Inspect {
        /// The pool.
        path: PathBuf,
        /// Which owners to accept.
        owners: Owners,
        /// Print JSON.
        json: bool,
    },
    /// Make a file system larger, within its pool.
    Grow {
        /// Which pool, and what its file system gets.
        options: GrowOptions,
        /// Print JSON.
        json: bool,
    },
    /// Change the size of a pool.
    Resize {
        /// Which pool, and its new size.
        options: ResizeOptions,
        /// Print JSON.
        json: bool,
    },
    /// Remove pools that nobody uses.
    Prune {
        /// Only these; all if there are none.
        pools: Vec<PathBuf>,
        /// Do not ask.
        yes: bool,
        /// Remove nothing.
        dry_run: bool,
    },
    /// Remove a pool.
    Remove {
        /// The pool.
        path: PathBuf,
        /// Even if it holds data or is in use.
        force: bool,
        /// Which owners to accept.
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
                    max: args.max,
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
            PoolCommand::Grow(GrowArgs { path, size, foreign_pool, json }) => {
                let options = GrowOptions { path, size, owners: Owners::foreign(foreign_pool) };
                Self::Grow { options, json }
            }
            PoolCommand::Resize(ResizeArgs { path, size, foreign_pool, json }) => {
                let owners = Owners::foreign(foreign_pool);
                Self::Resize { options: ResizeOptions { path, size, owners }, json }
            }
            PoolCommand::Prune(PruneArgs { pools, yes, dry_run }) => {
                Self::Prune { pools, yes, dry_run }
            }
            PoolCommand::Rm(RmArgs { path, force, foreign_pool }) => {
                Self::Remove { path, force, owners: Owners::foreign(foreign_pool) }
            }
        }
    }
}
