// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a cluster cannot be started.

use std::path::PathBuf;

use famfs::media::MediaError;
use famfs::store::superblock::SuperblockError;
use famfs::text::units::Bytes;

use super::vm::MIN_MEMORY;
use crate::cluster::sizing::ImportError;
use crate::cluster::spec::{Subject, Transport};
use crate::pool::{PoolError, WindowError};
use crate::vm::{ConfigError, ImageError, QemuVersion};

/// Why a cluster cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// What is to be imported cannot be looked at.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The pool cannot be used.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The pool that exists is not the one that is asked for.
    #[error("pool {}: {what} is {found}, but the cluster asks for {asked}", path.display())]
    OtherPool {
        /// The pool.
        path: PathBuf,
        /// What of it.
        what: &'static str,
        /// As it is.
        found: String,
        /// As it is asked for.
        asked: String,
    },
    /// The info block of the pool is damaged.
    #[error("pool {}: damaged info block: {damage}", path.display())]
    Damaged {
        /// The pool.
        path: PathBuf,
        /// In which way.
        damage: String,
    },
    /// The file system of the pool cannot be read.
    #[error("pool {}: cannot read its file system; see `famfs --pool {} fsck`", path.display(), path.display())]
    Superblock {
        /// The pool.
        path: PathBuf,
        /// The cause.
        #[source]
        source: SuperblockError,
    },
    /// The pool cannot be opened for a look at its file system.
    #[error("pool {}", path.display())]
    Media {
        /// The pool.
        path: PathBuf,
        /// The cause.
        #[source]
        source: MediaError,
    },
    /// There is nothing to tell the pool's size from.
    #[error(
        "pool {}: does not exist and has no size; give it one (size = \"1G\" in the cluster file, \
         --size 1G without one)", .0.display()
    )]
    NoSize(PathBuf),
    /// The imports do not fit.
    #[error(
        "pool {}: {size} is too small for what is imported: {needed} are needed; leave the size \
         out, or import less", path.display()
    )]
    TooSmall {
        /// The pool.
        path: PathBuf,
        /// Its size.
        size: Bytes,
        /// The least that will do.
        needed: Bytes,
    },
    /// Nothing to make a pool in huge pages in.
    #[error(
        "no hugetlbfs is mounted; mount one with `mount -t hugetlbfs none /dev/hugepages`, or give \
         the pool a path"
    )]
    NoHugetlbfs,
    /// Files cannot be copied into it from the host.
    #[error("pool {}: files cannot be imported into a devdax device from the host; copy them in a VM", .0.display())]
    ImportDevdax(PathBuf),
    /// There is no image.
    #[error(
        "VM {0}: no appliance image; build one with `cargo xtask image`, or name its directory with \
         --image or image = \"...\""
    )]
    NoImage(String),
    /// The image is not complete.
    #[error("VM {name}")]
    Image {
        /// The VM.
        name: String,
        /// The cause.
        #[source]
        source: ImageError,
    },
    /// The kernel is not there.
    #[error("VM {name}: no kernel {}", path.display())]
    Kernel {
        /// The VM.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// A slice that the pool does not have.
    #[error("VM {name}: slice")]
    Slice {
        /// The VM.
        name: String,
        /// The cause.
        #[source]
        source: WindowError,
    },
    /// A slice that lies over the file system.
    #[error(
        "VM {name}: its slice begins at {offset}, but up to {end} pool {} has its file system: the \
         guest would write over its files; begin at {end} or later, or take another pool \
         (`famfs mkfs --size` makes a file system that leaves room)", path.display()
    )]
    SliceOverFiles {
        /// The VM.
        name: String,
        /// The pool.
        path: PathBuf,
        /// Where the slice begins.
        offset: Bytes,
        /// Where the file system ends.
        end: Bytes,
    },
    /// No room for the file system that the other VMs use.
    #[error(
        "VM {name}: its slice begins at {offset}, which leaves too little room in front of it for the \
         file system of the other VMs: begin at {least} or later, or set mount = false for all VMs"
    )]
    SliceInFront {
        /// The VM.
        name: String,
        /// Where the slice begins.
        offset: Bytes,
        /// Where it may begin.
        least: Bytes,
    },
    /// A transport that cannot do it here.
    #[error("VM {name}: transport {transport}: {why}")]
    Transport {
        /// The VM.
        name: String,
        /// The transport.
        transport: Transport,
        /// Why not, and what to do.
        why: String,
    },
    /// A root in memory that this QEMU cannot keep the guest from writing to.
    #[error(
        "VM {name}: root = \"memory\", but {} is QEMU {found}, and that needs {} or newer; take a newer one \
         with --qemu, or leave root out", qemu.display(), QemuVersion::READ_ONLY_MEMORY
    )]
    Root {
        /// The VM.
        name: String,
        /// The program.
        qemu: PathBuf,
        /// Its version.
        found: QemuVersion,
    },
    /// This QEMU cannot be confined.
    #[error(
        "VM {name}: {} was built without its system call filter (-sandbox), so a guest that breaks it could do \
         what you can; take another QEMU with --qemu, or accept that with --unconfined or confine = false",
        qemu.display()
    )]
    Filter {
        /// The VM.
        name: String,
        /// The program.
        qemu: PathBuf,
    },
    /// Too little RAM for the pool.
    #[error(
        "VM {name}: {memory} of memory, but the pool alone costs a guest {} and it needs {} beside \
         that; give it at least {}", Bytes(*pages), Bytes(MIN_MEMORY), Bytes(pages + MIN_MEMORY)
    )]
    Memory {
        /// The VM.
        name: String,
        /// What it has.
        memory: Bytes,
        /// What the pool costs.
        pages: u64,
    },
    /// The VM is none.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl PlanError {
    /// What of the cluster it is about, if that is one thing.
    #[must_use]
    pub fn subject(&self) -> Option<Subject> {
        Some(match self {
            Self::Import(error) => Subject::Import(error.path().to_owned()),
            Self::OtherPool { what, .. } => Subject::Pool(match *what {
                "its size" => "size",
                "its view" => "view",
                _ => "kind",
            }),
            Self::TooSmall { .. } => Subject::Pool("size"),
            Self::NoHugetlbfs => Subject::Pool("kind"),
            Self::Pool(_)
            | Self::Damaged { .. }
            | Self::Superblock { .. }
            | Self::Media { .. }
            | Self::NoSize(_)
            | Self::ImportDevdax(_) => Subject::Pool("path"),
            Self::NoImage(name) | Self::Image { name, .. } => Subject::Vm(name.clone(), "image"),
            Self::Kernel { name, .. } => Subject::Vm(name.clone(), "kernel"),
            Self::Slice { name, .. } => Subject::Vm(name.clone(), "length"),
            Self::SliceOverFiles { name, .. } | Self::SliceInFront { name, .. } => {
                Subject::Vm(name.clone(), "offset")
            }
            Self::Transport { name, .. } => Subject::Vm(name.clone(), "transport"),
            Self::Root { name, .. } => Subject::Vm(name.clone(), "root"),
            Self::Memory { name, .. } => Subject::Vm(name.clone(), "memory"),
            Self::Config(ConfigError::Memory { name, .. }) => Subject::Vm(name.clone(), "memory"),
            Self::Config(ConfigError::Cpus { name }) => Subject::Vm(name.clone(), "cpus"),
            Self::Config(ConfigError::PoolSize { .. }) => Subject::Pool("size"),
            Self::Filter { .. } | Self::Config(_) => return None,
        })
    }
}
