// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a cluster cannot be started.

use std::io;
use std::path::PathBuf;

use famfs::media::MediaError;
use famfs::store::superblock::SuperblockError;
use famfs::text::units::Bytes;

use super::vm::MIN_MEMORY;
use crate::cluster::sizing::ImportError;
use crate::cluster::spec::{Subject, Transport};
use crate::host::numa::Nodes;
use crate::host::processors::Processors;
use crate::pool::{PoolError, WindowError};
use crate::vm::{ConfigError, DiskError, ImageError, LimitsError, QemuVersion};

/// Why a cluster cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// An import cannot be examined.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The pool cannot be used.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The existing pool differs from the requested one.
    #[error("pool {}: {what} is {found}, but the cluster asks for {asked}", path.display())]
    OtherPool {
        /// The pool.
        path: PathBuf,
        /// Which property differs.
        what: &'static str,
        /// Its value.
        found: String,
        /// The requested value.
        asked: String,
    },
    /// The info block of the pool is damaged.
    #[error("pool {}: damaged info block: {damage}", path.display())]
    Damaged {
        /// The pool.
        path: PathBuf,
        /// What is damaged.
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
    /// The pool cannot be opened to examine its file system.
    #[error("pool {}", path.display())]
    Media {
        /// The pool.
        path: PathBuf,
        /// The cause.
        #[source]
        source: MediaError,
    },
    /// Nothing determines the pool's size.
    #[error(
        "pool {}: does not exist, and its size is not given; set one (size = \"1G\" in the cluster \
         file, --size 1G without one)", .0.display()
    )]
    NoSize(PathBuf),
    /// The imports do not fit.
    #[error(
        "pool {}: {size} is too small for the imports, which need {needed}; omit the size, or \
         import less", path.display()
    )]
    TooSmall {
        /// The pool.
        path: PathBuf,
        /// Its size.
        size: Bytes,
        /// The smallest sufficient size.
        needed: Bytes,
    },
    /// There is no place for a pool in huge pages.
    #[error(
        "no hugetlbfs is mounted; mount one with `mount -t hugetlbfs none /dev/hugepages`, or set \
         a path for the pool"
    )]
    NoHugetlbfs,
    /// The host cannot copy files into the pool.
    #[error("pool {}: the host cannot import files into a devdax device; copy them in a VM", .0.display())]
    ImportDevdax(PathBuf),
    /// It cannot be the master.
    #[error("master {name:?}: {why}")]
    Master {
        /// How it was named.
        name: String,
        /// Why not, and what to do.
        why: String,
    },
    /// There is no image.
    #[error(
        "VM {0}: no appliance image; install the package vhost-famfs-image, build one with `cargo xtask image`, \
         or name its directory with --image or image = \"...\""
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
    /// The image is no image.
    #[error(
        "VM {name}: image {}: expected the directory of an appliance image, or the disk image of a \
         guest of your own (a file or a block device), found {found}", path.display()
    )]
    NeitherImage {
        /// The VM.
        name: String,
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// The disk image cannot be used.
    #[error("VM {name}")]
    Disk {
        /// The VM.
        name: String,
        /// Why not.
        #[source]
        source: DiskError,
    },
    /// The file that a key names does not exist.
    #[error("VM {name}: no {key} {}", path.display())]
    NoFile {
        /// The VM.
        name: String,
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A key that this kind of image does not take.
    #[error("VM {name}: {key}: {why}")]
    Key {
        /// The VM.
        name: String,
        /// The key.
        key: &'static str,
        /// Why not, and what to do.
        why: String,
    },
    /// A slice that is not within the pool.
    #[error("VM {name}: slice")]
    Slice {
        /// The VM.
        name: String,
        /// The cause.
        #[source]
        source: WindowError,
    },
    /// A slice that overlaps the file system.
    #[error(
        "VM {name}: its slice begins at {offset}, but the file system of pool {} takes everything \
         up to {end}, so the guest would overwrite files; begin at {end} or later, or use another \
         pool (`famfs mkfs --size` creates a file system that leaves room)", path.display()
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
    /// No room for the file system of the other VMs.
    #[error(
        "VM {name}: its slice begins at {offset}, which leaves too little room before it for the \
         file system of the other VMs; begin at {least} or later, or set mount = false for all VMs"
    )]
    SliceInFront {
        /// The VM.
        name: String,
        /// Where the slice begins.
        offset: Bytes,
        /// Where it may begin.
        least: Bytes,
    },
    /// A transport that is not possible here.
    #[error("VM {name}: transport {transport}: {why}")]
    Transport {
        /// The VM.
        name: String,
        /// The transport.
        transport: Transport,
        /// Why not, and what to do.
        why: String,
    },
    /// A root in memory that this QEMU cannot protect from writes by the guest.
    #[error(
        "VM {name}: {} is QEMU {found}, but root = \"memory\" needs {} or newer; name a newer one \
         with --qemu, or omit root", qemu.display(), QemuVersion::READ_ONLY_MEMORY
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
        "VM {name}: {} was built without its system call filter (-sandbox), so a guest that breaks \
         out of it could do everything that you can; name another QEMU with --qemu, or accept the \
         risk with --unconfined or confine = false",
        qemu.display()
    )]
    Filter {
        /// The VM.
        name: String,
        /// The program.
        qemu: PathBuf,
    },
    /// Processors that this program may not use.
    #[error(
        "VM {name}: cpus-allowed is {asked}, but only processors {found} can be used here; choose \
         among these, or give this shell others (taskset, AllowedCPUs= of its systemd unit)"
    )]
    Processors {
        /// The VM.
        name: String,
        /// What is asked for.
        asked: Processors,
        /// What there is.
        found: Processors,
    },
    /// It is not known which processors there are.
    #[error("VM {name}: cannot determine which processors can be used; omit cpus-allowed")]
    NoProcessors {
        /// The VM.
        name: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A NUMA node without memory.
    #[error("VM {name}: numa is {node}, but this node has no memory; nodes with memory: {found}")]
    Node {
        /// The VM.
        name: String,
        /// What is asked for.
        node: u32,
        /// What there is.
        found: Nodes,
    },
    /// It is not known which NUMA nodes there are.
    #[error("VM {name}: cannot determine the NUMA nodes of this host; omit numa")]
    NoNodes {
        /// The VM.
        name: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The most memory is less than the VM's RAM.
    #[error(
        "VM {name}: memory-max is {max}, but the VM has {memory} of RAM, and QEMU needs some as \
         well; set more, or less memory"
    )]
    MemoryMax {
        /// The VM.
        name: String,
        /// What is asked for.
        max: Bytes,
        /// Its RAM.
        memory: Bytes,
    },
    /// Nothing can keep its limits.
    #[error("VM {name}: cannot keep it to its {key}")]
    Limits {
        /// The VM.
        name: String,
        /// The limit.
        key: &'static str,
        /// The reason.
        #[source]
        source: LimitsError,
    },
    /// Too little RAM for the pool.
    #[error(
        "VM {name}: {memory} of memory is too little: the pool alone costs a guest {}, and it \
         needs another {}; give it at least {}", Bytes(*pages), Bytes(MIN_MEMORY), Bytes(pages + MIN_MEMORY)
    )]
    Memory {
        /// The VM.
        name: String,
        /// Its memory.
        memory: Bytes,
        /// What the pool costs.
        pages: u64,
    },
    /// The settings of the VM are invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl PlanError {
    /// The part of the cluster that the error is about, if there is one.
    #[must_use]
    pub fn subject(&self) -> Option<Subject> {
        Some(match self {
            Self::Master { .. } => Subject::Master,
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
            Self::NoImage(name)
            | Self::Image { name, .. }
            | Self::NeitherImage { name, .. }
            | Self::Disk { name, .. } => Subject::Vm(name.clone(), "image"),
            Self::NoFile { name, key, .. } | Self::Key { name, key, .. } => {
                Subject::Vm(name.clone(), key)
            }
            Self::Slice { name, .. } => Subject::Vm(name.clone(), "length"),
            Self::SliceOverFiles { name, .. } | Self::SliceInFront { name, .. } => {
                Subject::Vm(name.clone(), "offset")
            }
            Self::Transport { name, .. } => Subject::Vm(name.clone(), "transport"),
            Self::Processors { name, .. } | Self::NoProcessors { name, .. } => {
                Subject::Vm(name.clone(), "cpus-allowed")
            }
            Self::Node { name, .. } | Self::NoNodes { name, .. } => {
                Subject::Vm(name.clone(), "numa")
            }
            Self::MemoryMax { name, .. } => Subject::Vm(name.clone(), "memory-max"),
            Self::Limits { name, key, .. } => Subject::Vm(name.clone(), key),
            Self::Root { name, .. } => Subject::Vm(name.clone(), "root"),
            Self::Memory { name, .. } => Subject::Vm(name.clone(), "memory"),
            Self::Config(ConfigError::Memory { name, .. }) => Subject::Vm(name.clone(), "memory"),
            Self::Config(ConfigError::Cpus { name }) => Subject::Vm(name.clone(), "cpus"),
            Self::Config(ConfigError::PoolSize { .. }) => Subject::Pool("size"),
            Self::Filter { .. } | Self::Config(_) => return None,
        })
    }
}
