// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks before a start for problems that would otherwise show only when VMs run: the pool's
//! memory, who may use it, and the address bits of the guests. Changes nothing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use famfs::text::units::{About, Bytes};

use super::headroom::{Headroom, HeadroomError, used_end};
use super::plan::{ClusterPlan, PoolPlan, VmPlan};
use super::root_devices::{self, DriverError};
use super::spec::{Access, Subject};
use crate::pool::{self, CreateError, Kind, MemoryError, Pool, PoolError};
use crate::vm::{Confinement, Forward, address_bits};

/// The first port that needs no privilege: the kernel's setting and its default (ip-sysctl).
const UNPRIVILEGED: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
const PRIVILEGED: u16 = 1024;

/// Why a cluster cannot run.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// The pool cannot be opened, has the wrong size, or is held by a program that changes it.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// There is not enough memory for the pool.
    #[error("pool {}", path.display())]
    Memory {
        /// The pool.
        path: PathBuf,
        /// Why.
        #[source]
        source: MemoryError,
    },
    /// The pool cannot be created.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The pool's file has holes, and its file system has too little free space to fill them.
    #[error(
        "pool {}: {missing} of it are holes, and its file system has only {} free: a guest that \
         writes to a hole would lose its VM (SIGBUS); free some space there, or enlarge that file \
         system", path.display(), About(*free)
    )]
    Holes {
        /// The pool.
        path: PathBuf,
        /// Bytes without storage.
        missing: Bytes,
        /// Free bytes of the file system.
        free: u64,
    },
    /// The host has too little memory.
    #[error(transparent)]
    Headroom(#[from] HeadroomError),
    /// The pool does not fit into the guest's physical address space.
    #[error(
        "VM {name}: a pool of {size} needs a guest with {needed} bits of physical addresses, but \
         {who} has {found}; give the VM a slice of the pool, or use a smaller pool"
    )]
    AddressBits {
        /// The VM.
        name: String,
        /// How much of the pool it sees.
        size: Bytes,
        /// The bits that it needs.
        needed: u32,
        /// The bits that are available.
        found: u32,
        /// Whose bits they are.
        who: &'static str,
    },
    /// A port of the host cannot be forwarded.
    #[error(
        "VM {name}: cannot listen on {} of the host for {port}; forward another port, or end what \
         listens there (`ss -lntup`)", .port.host
    )]
    Port {
        /// The VM.
        name: String,
        /// The port.
        port: Forward,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A port that only root may use.
    #[error(
        "VM {name}: port {} of the host is below {least}, and QEMU runs without the right to \
         listen there; use one from {least}, change net.ipv4.ip_unprivileged_port_start, or, as \
         root, set confine = false",
        .port.host.port()
    )]
    PrivilegedPort {
        /// The VM.
        name: String,
        /// The port.
        port: Forward,
        /// The first port for everybody.
        least: u16,
    },
    /// No root device can be made.
    #[error("VM {name}: root = \"ublk\"")]
    RootDevice {
        /// The VM.
        name: String,
        /// Why not, and what to do.
        #[source]
        source: DriverError,
    },
    /// A file cannot be examined.
    #[error("cannot examine {}", path.display())]
    Look {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl PreflightError {
    /// The part of the cluster that the error is about, if there is one.
    #[must_use]
    pub fn subject(&self) -> Option<Subject> {
        match self {
            Self::Create(CreateError::Size { .. } | CreateError::Space { .. })
            | Self::Memory { .. } => Some(Subject::Pool("size")),
            Self::Pool(_) | Self::Create(_) | Self::Holes { .. } | Self::Look { .. } => {
                Some(Subject::Pool("path"))
            }
            Self::Port { name, .. } | Self::PrivilegedPort { name, .. } => {
                Some(Subject::Vm(name.clone(), "ports"))
            }
            Self::RootDevice { name, .. } => Some(Subject::Vm(name.clone(), "root")),
            Self::AddressBits { name, .. } => Some(Subject::Vm(name.clone(), "access")),
            Self::Headroom(_) => None,
        }
    }
}

/// Checks a plan against the current state of the host and returns how much memory it may need of
/// what is available. With `overcommit`, it may need more. `returned` is the number of bytes that
/// VMs have which end before.
///
/// # Errors
/// The first obstacle found, with a way out.
pub fn before_start(
    plan: &ClusterPlan,
    overcommit: bool,
    returned: u64,
) -> Result<Headroom, PreflightError> {
    for vm in &plan.vms {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        address_space(vm, &cpuinfo)?;
        // Another program has another driver.
        if vm.root_device.as_ref().is_some_and(|device| device.program == plan.program) {
            let name = || vm.name().to_owned();
            root_devices::check()
                .map_err(|source| PreflightError::RootDevice { name: name(), source })?;
        }
    }
    if plan.pool.create.is_some() { new_pool(&plan.pool) } else { existing_pool(plan) }?;
    let headroom = Headroom::of(plan, returned)?;
    if headroom.is_enough() || overcommit {
        Ok(headroom)
    } else {
        Err(HeadroomError::TooLittle(headroom).into())
    }
}

/// Checks whether QEMU can listen on the ports that are forwarded to these VMs. `released` are
/// ports of VMs that end before.
///
/// # Errors
/// The first one that it cannot listen on.
pub fn ports(vms: &[VmPlan], released: &[Forward]) -> Result<(), PreflightError> {
    let least = fs::read_to_string(UNPRIVILEGED).ok().and_then(|text| text.trim().parse().ok());
    let least = least.unwrap_or(PRIVILEGED);
    for vm in vms {
        for port in vm.config.network.iter().flatten() {
            let (name, port) = (vm.name().to_owned(), *port);
            if port.host.port() < least && is_unprivileged(&vm.config.confinement) {
                return Err(PreflightError::PrivilegedPort { name, port, least });
            }
            if !released.iter().any(|other| other.conflicts(&port)) {
                port.try_listen().map_err(|source| PreflightError::Port { name, port, source })?;
            }
        }
    }
    Ok(())
}

/// Whether QEMU has no right to the ports that only root may use.
fn is_unprivileged(confinement: &Confinement) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    !is_root || matches!(confinement, Confinement::Nobody { .. })
}

/// Checks what is needed to create the pool.
fn new_pool(plan: &PoolPlan) -> Result<(), PreflightError> {
    let Some(options) = &plan.create else { return Ok(()) };
    Ok(pool::check_room(options)?)
}

/// Checks what VMs need of an existing pool.
fn existing_pool(plan: &ClusterPlan) -> Result<(), PreflightError> {
    let PoolPlan { path, kind, owners, .. } = &plan.pool;
    if plan.vms.iter().all(|vm| vm.access == Access::ReadOnly) {
        pool::check_readable(path, *owners)?;
    } else {
        // Takes the lock that VMs hold and releases it: this fails if a program is changing the
        // pool.
        drop(Pool::open(path, *owners)?);
    }
    if *kind == Kind::Devdax { Ok(()) } else { holes(path, used_end(plan), *kind) }
}

/// Checks whether there is storage for the holes of the file before `end`.
fn holes(path: &Path, end: u64, kind: Kind) -> Result<(), PreflightError> {
    let look = |source| PreflightError::Look { path: path.into(), source };
    let file = File::open(path).map_err(look)?;
    let held = file.metadata().map_err(look)?.blocks().saturating_mul(512);
    let missing = end.saturating_sub(held);
    if missing == 0 {
        return Ok(());
    }
    let stat = rustix::fs::fstatvfs(&file).map_err(|errno| look(errno.into()))?;
    if kind == Kind::Hugetlbfs {
        return pool::check_huge_pages(stat.f_bsize, missing)
            .map_err(|source| PreflightError::Memory { path: path.into(), source });
    }
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    // A tmpfs without a limit reports no blocks.
    if stat.f_blocks == 0 || missing <= free {
        return Ok(());
    }
    Err(PreflightError::Holes {
        path: path.into(),
        missing: Bytes(missing.next_multiple_of(1 << 20)),
        free,
    })
}

/// Checks whether the part of the pool that a VM sees fits into the guest's physical address space.
fn address_space(vm: &VmPlan, cpuinfo: &str) -> Result<(), PreflightError> {
    let needed = address_bits::needed(&vm.config, vm.pool_bytes);
    let (found, who) = address_bits::found(vm.config.accelerator, cpuinfo);
    if needed <= found {
        return Ok(());
    }
    let (name, size) = (vm.name().to_owned(), Bytes(vm.pool_bytes));
    Err(PreflightError::AddressBits { name, size, needed, found, who })
}

#[cfg(test)]
#[path = "preflight_tests.rs"]
mod tests;
