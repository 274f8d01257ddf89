// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A cluster, decided to the last argument.
//!
//! ```text
//! Spec (what is asked) + Host (what there is) --Plan::new()--> Plan --> up, or text for other programs
//! ```
//! Making a plan looks at the host and changes nothing.

use std::path::{Path, PathBuf};

use appliance::attach::NO_POOL_CREDENTIAL;
use famfs::media::{MediaError, PoolFile};
use famfs::superblock::{Superblock, SuperblockError};
use famfs::sys::dax;
use famfs::view::View;
use uuid::Uuid;

use super::accelerator::Accelerator;
use super::backend::BackendConfig;
use super::check;
use super::host::Host;
use super::image::{Image, ImageError, Root};
use super::qemu::{ConfigError, Console, PoolDevice, VmConfig};
use super::sizing::{ImportError, Needs};
use super::spec::{Access, ImportSpec, PoolKind, PoolSpec, Spec, Transport, VmSpec};
use super::version::QemuVersion;
use crate::pool::{self, CreateOptions, Form, Kind, PoolError};
use crate::units::{ALIGNMENT, Bytes};
use crate::window::{Window, WindowError};

/// RAM of a VM beside what the pool costs it.
const MEMORY: u64 = 1 << 30;

/// Least RAM of a VM beside what the pool costs it.
const MIN_MEMORY: u64 = 256 << 20;

/// A guest has 64 bytes of `struct page` for each 4 KiB of the pool, in its own RAM.
const PAGE_STRUCTS: u64 = 64;

/// A cluster that can be started.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Marks the processes of this start.
    pub instance: Uuid,
    /// The directory with its state and sockets; it does not exist.
    pub dir: PathBuf,
    /// What runs the guests, and why, for people.
    pub accelerator: String,
    /// Its pool.
    pub pool: PoolPlan,
    /// Its VMs.
    pub vms: Vec<VmPlan>,
}

/// The pool of a cluster.
#[derive(Debug, Clone)]
pub struct PoolPlan {
    /// The file or device.
    pub path: PathBuf,
    /// What it is made of.
    pub kind: Kind,
    /// Its size in bytes.
    pub size: u64,
    /// What guests see of it.
    pub view: View,
    /// How it is made; `None` if it exists.
    pub create: Option<CreateOptions>,
    /// Whether it was made for the cluster and goes with it.
    pub ours: bool,
    /// The file system that is made in it; `None` if there is one, or none is needed.
    pub mkfs: Option<MkfsPlan>,
    /// What is copied into it.
    pub imports: Vec<ImportSpec>,
    /// What that takes.
    pub needs: Needs,
}

/// The file system that is made in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MkfsPlan {
    /// Bytes of its log; `None` for what mkfs takes by itself.
    pub log_len: Option<u64>,
    /// The system UUID of its master.
    pub system: Uuid,
}

/// A VM of a cluster.
#[derive(Debug, Clone)]
pub struct VmPlan {
    /// What it may do with the pool.
    pub access: Access,
    /// How the pool comes into it.
    pub transport: Transport,
    /// Why it is that one, for people.
    pub reason: &'static str,
    /// Whether the guest mounts the pool, so that a start waits for it.
    pub mount: bool,
    /// Whether it is the one that may add files.
    pub master: bool,
    /// Its back-end, if the transport has one.
    pub backend: Option<BackendConfig>,
    /// The VM.
    pub config: VmConfig,
}

impl VmPlan {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }
}

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
    #[error("VM {name}: slice of the pool")]
    Slice {
        /// The VM.
        name: String,
        /// The cause.
        #[source]
        source: WindowError,
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

impl Plan {
    /// Decides everything that the user left open, and checks that it can work.
    ///
    /// # Errors
    /// The first thing that cannot, with the way out.
    pub fn new(spec: &Spec, host: &Host) -> Result<Self, PlanError> {
        let dir = host.runtime.join(&spec.name);
        let mounts = |vm: &VmSpec| vm.mount.unwrap_or(!matches!(vm.access, Access::Slice { .. }));
        let wants_files = !spec.imports.is_empty() || spec.vms.iter().any(mounts);
        let (pool, system) = plan_pool(spec, host, wants_files)?;
        let mut vms = Vec::new();
        let mut master = None;
        for vm in &spec.vms {
            let first = vm.access == Access::ReadWrite && master.is_none();
            if first {
                master = Some(vm.name.clone());
            }
            let uuid = if first { system } else { Uuid::new_v4() };
            vms.push(plan_vm(vm, host, &dir, &pool, mounts(vm), (first, uuid))?);
        }
        let accelerator = format!("{} ({})", host.accelerator, host.accelerator_reason);
        let instance = Uuid::new_v4();
        Ok(Self { name: spec.name.clone(), instance, dir, accelerator, pool, vms })
    }
}

/// The pool, and the system UUID of its master.
fn plan_pool(spec: &Spec, host: &Host, files: bool) -> Result<(PoolPlan, Uuid), PlanError> {
    let mut needs = Needs::default();
    for import in &spec.imports {
        needs = needs.and(Needs::of(&import.from)?);
    }
    let asked = &spec.pool;
    let path = match &asked.path {
        Some(path) => path.clone(),
        None => own_pool(&spec.name, asked, host)?,
    };
    let exists = path.symlink_metadata().is_ok();
    let (kind, size, view, create) = if exists {
        let (kind, size, view) = existing(asked, &path)?;
        (kind, size, view, None)
    } else {
        let options = new_pool(asked, &path, needs, !spec.imports.is_empty())?;
        let kind = pool::kind_for(&path)?;
        if let Some(other) = asked.kind.map(PoolKind::as_kind).filter(|asked| *asked != kind) {
            let (what, asked) = ("a file in its directory", other.name().to_owned());
            return Err(PlanError::OtherPool { path, what, found: kind.name().into(), asked });
        }
        (kind, options.size, options.view, Some(options))
    };
    if kind == Kind::Devdax && !spec.imports.is_empty() {
        return Err(PlanError::ImportDevdax(path));
    }
    let present = if exists && kind != Kind::Devdax { superblock(&path)? } else { None };
    let system = present.as_ref().map_or_else(Uuid::new_v4, |superblock| superblock.system_uuid);
    let log_len = (!spec.imports.is_empty()).then(|| needs.log_len());
    // A devdax device is formatted in a VM.
    let wanted = files && present.is_none() && kind != Kind::Devdax;
    let mkfs = wanted.then_some(MkfsPlan { log_len, system });
    let (ours, imports) = (asked.path.is_none(), spec.imports.clone());
    Ok((PoolPlan { path, kind, size, view, create, ours, mkfs, imports, needs }, system))
}

/// Where a pool without a name goes.
fn own_pool(name: &str, asked: &PoolSpec, host: &Host) -> Result<PathBuf, PlanError> {
    let uid = rustix::process::geteuid().as_raw();
    let file = format!("vhost-famfs-{uid}-{name}.pool");
    if asked.kind == Some(PoolKind::Hugetlbfs) {
        let mounts = famfs::mounts::read().unwrap_or_default();
        let mount = mounts.into_iter().find(|mount| mount.fs_type == "hugetlbfs");
        return Ok(mount.ok_or(PlanError::NoHugetlbfs)?.mount_point.join(file));
    }
    Ok(host.memory.join(file))
}

/// Kind, size and view of a pool that exists, which are as they were asked for.
fn existing(asked: &PoolSpec, path: &Path) -> Result<(Kind, u64, View), PlanError> {
    let Form { kind, size, view, .. } = pool::form(path)?;
    let view = view.map_err(|damage| PlanError::Damaged { path: path.into(), damage })?;
    let other = |what, found: String, asked: String| PlanError::OtherPool {
        path: path.into(),
        what,
        found,
        asked,
    };
    if let Some(asked) = asked.kind.map(PoolKind::as_kind).filter(|asked| *asked != kind) {
        return Err(other("its kind", kind.name().into(), asked.name().into()));
    }
    if let Some(asked) = asked.size.filter(|asked| *asked != size) {
        return Err(other("its size", Bytes(size).to_string(), Bytes(asked).to_string()));
    }
    if let Some(asked) = asked.view.filter(|asked| *asked != view) {
        return Err(other("its view", view.name().into(), asked.name().into()));
    }
    Ok((kind, size, view))
}

fn new_pool(
    asked: &PoolSpec,
    path: &Path,
    needs: Needs,
    imports: bool,
) -> Result<CreateOptions, PlanError> {
    if asked.kind == Some(PoolKind::Devdax) {
        return Err(PoolError::Missing(path.into()).into());
    }
    let needed = needs.pool_size();
    let size = match asked.size {
        Some(size) if imports && size < needs.least_pool_size() => {
            let (path, needed) = (path.to_owned(), Bytes(needs.least_pool_size()));
            return Err(PlanError::TooSmall { path, size: Bytes(size), needed });
        }
        Some(size) => size,
        // A user's own file gets the size that he names.
        None if !imports && asked.path.is_some() => return Err(PlanError::NoSize(path.into())),
        None => needed,
    };
    let view = asked.view.unwrap_or(View::Devdax);
    let (numa, prefault) = (asked.numa, asked.prefault);
    // Chosen now, so that what a start has made can be told from another pool of the name.
    let uuid = (view == View::Devdax).then(Uuid::new_v4);
    Ok(CreateOptions { uuid, numa, prefault, ..CreateOptions::new(path.to_owned(), size, view) })
}

/// The superblock of a pool; `None` if there is no famfs.
fn superblock(path: &Path) -> Result<Option<Superblock>, PlanError> {
    let media = PoolFile::open(path, dax::Access::Read)
        .map_err(|source| PlanError::Media { path: path.into(), source })?;
    match Superblock::read(&media) {
        Ok(superblock) => Ok(Some(superblock)),
        Err(SuperblockError::Magic { .. }) => Ok(None),
        Err(source) => Err(PlanError::Superblock { path: path.into(), source }),
    }
}

fn plan_vm(
    spec: &VmSpec,
    host: &Host,
    dir: &Path,
    pool: &PoolPlan,
    mount: bool,
    (master, uuid): (bool, Uuid),
) -> Result<VmPlan, PlanError> {
    let name = &spec.name;
    let (transport, reason) = transport(spec, host, pool)?;
    let (mut seen, mut part) = (pool.size, None);
    if let Access::Slice { offset, length } = spec.access {
        Window::new(pool.size, ALIGNMENT, offset, Some(length))
            .map_err(|source| PlanError::Slice { name: name.clone(), source })?;
        (seen, part) = (length, Some((offset, length)));
    }
    let pages = (seen / PAGE_STRUCTS).next_multiple_of(ALIGNMENT);
    let memory = spec.memory.unwrap_or(MEMORY + pages);
    if memory < pages + MIN_MEMORY {
        return Err(PlanError::Memory { name: name.clone(), memory: Bytes(memory), pages });
    }
    let image = image(spec, host)?;
    let root = root(spec, host, &image)?;
    let backend = (transport == Transport::Shmem).then(|| BackendConfig {
        program: host.program.clone(),
        pool: pool.path.clone(),
        part,
        socket: dir.join(format!("{name}.sock")),
        log: dir.join(format!("{name}.backend")),
    });
    let console = dir.join(format!("{name}.console"));
    let mut config = VmConfig::new(name, &host.qemu, image, dir.join(name), console);
    config.root = root;
    config.console = Console::Socket { shell: spec.shell };
    config.accelerator = host.accelerator;
    config.cpus = spec.cpus;
    config.memory = memory;
    config.uuid = uuid;
    if !mount {
        config.credentials.insert(NO_POOL_CREDENTIAL.to_owned(), "1".to_owned());
    }
    config.pools = vec![match &backend {
        Some(backend) => PoolDevice::Shmem { socket: backend.socket.clone() },
        None => PoolDevice::Pmem {
            path: pool.path.clone(),
            size: pool.size,
            readonly: spec.access == Access::ReadOnly,
        },
    }];
    if host.accelerator != Accelerator::Kvm {
        config.phys_bits = check::emulated_bits(check::needed_bits(&config, seen));
    }
    config.qemu_args = spec.args.iter().map(Into::into).collect();
    // What is wrong with it comes out before anything is started.
    config.command_line()?;
    Ok(VmPlan { access: spec.access, transport, reason, mount, master, backend, config })
}

/// The transport, and why it is that one.
fn transport(
    spec: &VmSpec,
    host: &Host,
    pool: &PoolPlan,
) -> Result<(Transport, &'static str), PlanError> {
    let recent = host.qemu_version >= QemuVersion::SHARED_MEMORY;
    let refused = |transport, why: String| {
        Err(PlanError::Transport { name: spec.name.clone(), transport, why })
    };
    let old = || {
        format!(
            "{} is QEMU {}, but a back-end needs {} or newer; take a newer one with --qemu",
            host.qemu.display(),
            host.qemu_version,
            QemuVersion::SHARED_MEMORY
        )
    };
    match (spec.access, spec.transport) {
        (Access::ReadOnly, _) => Ok((Transport::Pmem, "read-only is enforced by the hypervisor")),
        (Access::Slice { .. }, _) if pool.kind == Kind::Devdax => {
            let why = "a slice of a devdax device cannot be mapped";
            refused(Transport::Shmem, why.to_owned())
        }
        (Access::Slice { .. }, _) if recent => Ok((Transport::Shmem, "a part of the pool")),
        (_, Some(Transport::Pmem)) => Ok((Transport::Pmem, "asked for")),
        (_, None) if pool.kind == Kind::Devdax => {
            Ok((Transport::Pmem, "the pool is a devdax device"))
        }
        (_, Some(Transport::Shmem)) if pool.kind == Kind::Devdax => {
            let why = "QEMU 11.1 cannot map a devdax device for a back-end; leave transport out";
            refused(Transport::Shmem, why.to_owned())
        }
        (Access::ReadWrite, None) if !recent => {
            Ok((Transport::Pmem, "this QEMU is too old for a back-end"))
        }
        (_, _) if !recent => refused(Transport::Shmem, old()),
        (_, Some(Transport::Shmem)) => Ok((Transport::Shmem, "asked for")),
        (_, None) => Ok((Transport::Shmem, "the default")),
    }
}

fn image(spec: &VmSpec, host: &Host) -> Result<Image, PlanError> {
    let name = || spec.name.clone();
    let dir = spec.image.as_ref().or(host.image.as_ref());
    let dir = dir.ok_or_else(|| PlanError::NoImage(name()))?;
    let image = Image::open(dir).map_err(|source| PlanError::Image { name: name(), source })?;
    match &spec.kernel {
        None => Ok(image),
        Some(path) if path.is_file() => Ok(image.with_kernel(path.clone())),
        Some(path) => Err(PlanError::Kernel { name: name(), path: path.clone() }),
    }
}

/// The root that is asked for; without that, the one that VMs share, where image and QEMU have it.
fn root(spec: &VmSpec, host: &Host, image: &Image) -> Result<Root, PlanError> {
    let recent = host.qemu_version >= QemuVersion::READ_ONLY_MEMORY;
    let there = image.require(Root::Memory);
    match (spec.root, there) {
        (Some(Root::Memory), Err(source)) => {
            Err(PlanError::Image { name: spec.name.clone(), source })
        }
        (Some(Root::Memory), Ok(())) if !recent => Err(PlanError::Root {
            name: spec.name.clone(),
            qemu: host.qemu.clone(),
            found: host.qemu_version,
        }),
        (Some(root), _) => Ok(root),
        (None, Ok(())) if recent => Ok(Root::Memory),
        (None, _) => Ok(Root::Disk),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
