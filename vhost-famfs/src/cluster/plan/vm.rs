// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plans a VM of a cluster.

use std::path::{Path, PathBuf};

use famfs::text::units::Bytes;
use protocol::credentials::{ACCESS, NO_POOL, NOEXEC, READ_ONLY};
use uuid::Uuid;

use super::{PlanError, PoolPlan, VmPlan, system};
use crate::cluster::host::Host;
use crate::cluster::spec::{Access, Network, Transport, VmSpec};
use crate::host::numa::Nodes;
use crate::host::processors::Processors;
use crate::pool::{ALIGNMENT, Kind, Owners, Window};
use crate::vm::{
    BackendConfig, Confinement, Console, LimitsError, PoolDevice, QemuVersion, Root,
    RootDeviceConfig, VmConfig, VmPaths, address_bits,
};

/// Default RAM of a VM, in addition to what the pool costs it.
const MEMORY: u64 = 1 << 30;

/// Least RAM of a VM, in addition to what the pool costs it.
pub(super) const MIN_MEMORY: u64 = 256 << 20;

/// A guest needs 64 bytes of `struct page` in its own RAM for each 4 KiB of the pool.
const PAGE_STRUCTS: u64 = 64;

/// Plans the VM; `master` is set for the one that may add files.
pub(super) fn plan(
    spec: &VmSpec,
    host: &Host,
    dir: &Path,
    pool: &PoolPlan,
    mount: bool,
    (master, uuid): (bool, Uuid),
) -> Result<VmPlan, PlanError> {
    let name = &spec.name;
    let (transport, reason) = transport(spec, host, pool)?;
    let (mut pool_bytes, mut part) = (pool.size, None);
    if let Access::Slice { offset, length } = spec.access {
        Window::new(pool.size, ALIGNMENT, offset, Some(length))
            .map_err(|source| PlanError::Slice { name: name.clone(), source })?;
        if let Some(end) = pool.famfs_end.filter(|end| offset < *end) {
            let (name, path) = (name.clone(), pool.path.clone());
            let (offset, end) = (Bytes(offset), Bytes(end));
            return Err(PlanError::SliceOverFiles { name, path, offset, end });
        }
        (pool_bytes, part) = (length, Some((offset, length)));
    }
    let pages = (pool_bytes / PAGE_STRUCTS).next_multiple_of(ALIGNMENT);
    let memory = spec.memory.unwrap_or(MEMORY + pages);
    if memory < pages + MIN_MEMORY {
        return Err(PlanError::Memory { name: name.clone(), memory: Bytes(memory), pages });
    }
    check_processors(spec)?;
    check_node(spec)?;
    check_limits(spec, memory)?;
    let (system, root) = system::plan(spec, host)?;
    let paths = VmPaths::new(name, dir, dir);
    let backend = (transport == Transport::Shmem).then(|| BackendConfig {
        program: host.program.clone(),
        pool: pool.path.clone(),
        foreign: pool.owners == Owners::Any,
        part,
        socket: paths.backend.clone(),
        log: paths.backend_log.clone(),
        piped: false,
    });
    let root_device = system.own().filter(|_| root == Root::Ublk).map(|own| RootDeviceConfig {
        program: host.ublk.clone().unwrap_or_else(|| host.program.clone()),
        image: absolute(&own.disk),
        overlay: spec.overlay.as_deref().map(absolute),
        log: paths.device_log.clone(),
        piped: false,
    });
    let mut config = VmConfig::new(name, &host.qemu, system, paths);
    config.root = root;
    config.console = Console::Socket { shell: spec.shell };
    config.accelerator = host.accelerator;
    config.qemu_version = host.qemu_version;
    config.confinement = confinement(spec, host)?;
    config.cpus = spec.cpus;
    config.memory = memory;
    config.numa = spec.numa;
    config.limits = spec.limits;
    config.uuid = uuid;
    if !mount {
        config.credentials.insert(NO_POOL.to_owned(), "1".to_owned());
    }
    if spec.access == Access::ReadOnly {
        // The hypervisor silently drops the guest's stores. A read-only mount refuses them instead.
        config.credentials.insert(ACCESS.to_owned(), READ_ONLY.to_owned());
    }
    if spec.noexec {
        config.credentials.insert(NOEXEC.to_owned(), "1".to_owned());
    }
    config.pools = vec![match &backend {
        Some(backend) => PoolDevice::Shmem { socket: backend.socket.clone() },
        None => PoolDevice::Pmem {
            path: pool.path.clone(),
            size: pool.size,
            readonly: spec.access == Access::ReadOnly,
        },
    }];
    config.network = (spec.network == Network::User).then(|| spec.ports.clone());
    config.phys_bits = address_bits::emulated(address_bits::needed(&config, pool_bytes));
    config.qemu_args = spec.args.iter().map(Into::into).collect();
    // Errors in its settings must show before anything is started.
    config.command_line()?;
    let (access, restart, asked) = (spec.access, spec.restart, spec.clone());
    Ok(VmPlan {
        access,
        pool_bytes,
        transport,
        reason,
        mount,
        master,
        restart,
        backend,
        root_device,
        config,
        asked,
    })
}

/// The process of a root device may be started in another directory.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Checks whether this program may run on the processors that are allowed for a VM.
fn check_processors(spec: &VmSpec) -> Result<(), PlanError> {
    let Some(asked) = &spec.cpus_allowed else { return Ok(()) };
    let (name, asked) = (spec.name.clone(), asked.clone());
    match Processors::of_this_thread() {
        Ok(found) if asked.is_within(&found) => Ok(()),
        Ok(found) => Err(PlanError::Processors { name, asked, found }),
        Err(source) => Err(PlanError::NoProcessors { name, source }),
    }
}

/// Checks whether the NUMA node of a VM has memory.
fn check_node(spec: &VmSpec) -> Result<(), PlanError> {
    let Some(node) = spec.numa else { return Ok(()) };
    let name = spec.name.clone();
    match Nodes::with_memory() {
        Ok(found) if found.has(node) => Ok(()),
        Ok(found) => Err(PlanError::Node { name, node, found }),
        Err(source) => Err(PlanError::NoNodes { name, source }),
    }
}

/// Checks whether the limits of a VM can be kept, and leave it its RAM of `memory` bytes.
fn check_limits(spec: &VmSpec, memory: u64) -> Result<(), PlanError> {
    let name = spec.name.clone();
    if let Some(max) = spec.limits.memory_max.filter(|max| *max <= memory) {
        return Err(PlanError::MemoryMax { name, max: Bytes(max), memory: Bytes(memory) });
    }
    spec.limits.check().map_err(|source| {
        let key = match &source {
            LimitsError::Controller { wanted: "memory", .. } => "memory-max",
            _ if spec.limits.cpu_weight.is_some() => "cpu-weight",
            _ => "memory-max",
        };
        PlanError::Limits { name, key, source }
    })
}

/// The transport, and the reason for it.
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
            "{} is QEMU {}, but a back-end needs {} or newer; name a newer one with --qemu",
            host.qemu.display(),
            host.qemu_version,
            QemuVersion::SHARED_MEMORY
        )
    };
    match (spec.access, spec.transport) {
        (Access::ReadOnly, _) => Ok((Transport::Pmem, "the hypervisor enforces read-only")),
        (Access::Slice { .. }, _) if pool.kind == Kind::Devdax => {
            let why = "a slice of a devdax device cannot be mapped";
            refused(Transport::Shmem, why.to_owned())
        }
        (Access::Slice { .. }, _) if recent => Ok((Transport::Shmem, "a part of the pool")),
        (_, Some(Transport::Pmem)) => Ok((Transport::Pmem, "requested")),
        (_, None) if pool.kind == Kind::Devdax => {
            Ok((Transport::Pmem, "the pool is a devdax device"))
        }
        (_, Some(Transport::Shmem)) if pool.kind == Kind::Devdax => {
            let why = "QEMU 11.1 cannot map a devdax device for a back-end; omit transport";
            refused(Transport::Shmem, why.to_owned())
        }
        (Access::ReadWrite, None) if !recent => {
            Ok((Transport::Pmem, "this QEMU is too old for a back-end"))
        }
        (_, _) if !recent => refused(Transport::Shmem, old()),
        (_, Some(Transport::Shmem)) => Ok((Transport::Shmem, "requested")),
        (_, None) => Ok((Transport::Shmem, "the default")),
    }
}

/// The strictest confinement that is possible, unless the user wants none.
fn confinement(spec: &VmSpec, host: &Host) -> Result<Confinement, PlanError> {
    match (spec.confine, host.qemu_filter) {
        (false, _) => Ok(Confinement::None),
        (true, true) => Ok(host.confinement.clone()),
        (true, false) => {
            Err(PlanError::Filter { name: spec.name.clone(), qemu: host.qemu.clone() })
        }
    }
}
