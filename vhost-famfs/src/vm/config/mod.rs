// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The configuration of a virtual machine, and what follows from it for every hypervisor.

mod check;
mod kernel_line;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use protocol::credentials::{CONSOLE, NETWORK, NO_POOL};
use protocol::network::Network;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::accelerator::Accelerator;
use super::confine::Confinement;
use super::forward::Forward;
use super::image::Root;
use super::limits::Limits;
use super::paths::VmPaths;
use super::system::System;
use super::version::QemuVersion;
use crate::bounded_log::pipe_of;

pub use check::ConfigError;
pub(crate) use kernel_line::EMULATED_WORDS;

/// Serial number of the root disk, by which the guest finds its root.
pub(crate) const ROOT_SERIAL: &str = "famfs-root";

/// PCI slot of a root in memory, by which the guest finds its root: the contents of a pool cannot
/// imitate an address.
pub(super) const ROOT_SLOT: &str = "1e";

/// The configuration of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmConfig {
    /// Name in messages and the guest's host name: 1 to 32 letters, digits, `-`.
    pub name: String,
    /// The QEMU program.
    pub qemu: PathBuf,
    /// Its version; some options depend on it.
    pub qemu_version: QemuVersion,
    /// What QEMU may do on the host.
    pub confinement: Confinement,
    /// What a control group keeps it to.
    #[serde(default)]
    pub limits: Limits,
    /// What to boot.
    #[serde(alias = "image")]
    pub system: System,
    /// Which root of an appliance image.
    pub root: Root,
    /// Its sockets and logs. The logs are kept.
    pub paths: VmPaths,
    /// Whether QEMU writes its messages and the console to the pipes of the logs ([`pipe_of`]),
    /// which already have a reader, instead of the files.
    pub piped: bool,
    /// Where the serial console goes in addition to that file.
    pub console: Console,
    /// What runs the guest.
    pub accelerator: Accelerator,
    /// Number of virtual processors.
    pub cpus: u32,
    /// Guest RAM in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// The NUMA node of the host that the guest's RAM is in; `None` for any.
    #[serde(default)]
    pub numa: Option<u32>,
    /// Bits of an emulated guest's physical addresses, if QEMU's default is too small for its
    /// pools. Under KVM, a guest has as many as the host.
    pub phys_bits: Option<u32>,
    /// The machine's UUID (SMBIOS), which famfs uses as the system's: the VM whose UUID is in the
    /// pool's superblock is its master.
    pub uuid: Uuid,
    /// Pools, in the order in which the guest finds them. If there are none, the guest attaches
    /// nothing.
    pub pools: Vec<PoolDevice>,
    /// Read-only disks in addition to the root disk.
    pub disks: Vec<Disk>,
    /// A network in user mode, with these ports of the host that lead into it; `None` for no
    /// network.
    #[serde(default)]
    pub network: Option<Vec<Forward>>,
    /// systemd credentials for the guest, passed by SMBIOS.
    pub credentials: BTreeMap<String, String>,
    /// Additional kernel parameters.
    pub kernel_args: Vec<String>,
    /// Additional arguments for QEMU.
    pub qemu_args: Vec<OsString>,
}

/// Where a serial console goes in addition to its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Console {
    /// Nowhere; it takes no input.
    Log,
    /// To this program's terminal, with a root shell.
    Terminal,
    /// To a client of [`VmPaths::console`]; one at a time.
    Socket {
        /// Whether it has a root shell.
        shell: bool,
    },
}

/// How the VM gets a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolDevice {
    /// A window that a back-end on this socket maps (`SHMEM_MAP`). Read-write; QEMU 11.1 or newer.
    Shmem {
        /// The back-end's socket, on which it is already listening.
        socket: PathBuf,
    },
    /// A file that QEMU maps itself.
    Pmem {
        /// The pool.
        path: PathBuf,
        /// Its size in bytes, a multiple of 2 MiB.
        size: u64,
        /// Whether the guest is kept from changing the pool.
        readonly: bool,
    },
}

/// A read-only disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Image file.
    pub path: PathBuf,
    /// Serial number, 1 to 20 letters, digits, `-`; the guest has it in `/sys/block/*/serial`.
    pub serial: String,
}

impl VmConfig {
    /// A VM with 2 processors and 1 GiB of RAM, a random UUID, and nothing attached.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        qemu: impl Into<PathBuf>,
        system: impl Into<System>,
        paths: VmPaths,
    ) -> Self {
        Self {
            name: name.into(),
            qemu: qemu.into(),
            qemu_version: QemuVersion::SHARED_MEMORY,
            confinement: Confinement::Filter,
            limits: Limits::default(),
            system: system.into(),
            root: Root::default(),
            paths,
            piped: false,
            console: Console::Log,
            accelerator: Accelerator::Tcg,
            cpus: 2,
            memory: 1 << 30,
            numa: None,
            phys_bits: None,
            uuid: Uuid::new_v4(),
            pools: Vec::new(),
            disks: Vec::new(),
            network: None,
            credentials: BTreeMap::new(),
            kernel_args: Vec::new(),
            qemu_args: Vec::new(),
        }
    }

    /// The file or pipe that QEMU writes the console to.
    pub(super) fn console_target(&self) -> PathBuf {
        let log = &self.paths.console_log;
        if self.piped { pipe_of(log) } else { log.clone() }
    }

    /// The credentials for the guest: the given ones, and those that follow from the configuration.
    pub(crate) fn all_credentials(&self) -> BTreeMap<String, String> {
        let mut credentials = self.credentials.clone();
        credentials.entry("system.hostname".into()).or_insert_with(|| self.name.clone());
        if self.pools.is_empty() {
            credentials.insert(NO_POOL.into(), "1".into());
        }
        if self.network.is_some() {
            credentials.insert(NETWORK.into(), Network::USER.to_string());
        }
        if matches!(self.console, Console::Terminal | Console::Socket { shell: true }) {
            credentials.insert(CONSOLE.into(), "shell".into());
        }
        credentials
    }

    /// A copy in which the pool that QEMU maps itself is at another path.
    pub(super) fn with_pool_at(&self, path: &Path) -> Self {
        let mut config = self.clone();
        for pool in &mut config.pools {
            if let PoolDevice::Pmem { path: old, .. } = pool {
                path.clone_into(old);
            }
        }
        config
    }

    /// The root that is mapped into the guest's address space, with its size in bytes.
    #[must_use]
    pub fn root_in_memory(&self) -> Option<(PathBuf, u64)> {
        let root = self.system.appliance()?.memory_root();
        root.filter(|_| self.root == Root::Memory)
    }
}

#[cfg(test)]
impl VmConfig {
    /// A VM named vm1 with default settings, and an image of empty files.
    pub fn for_tests() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for file in ["vmlinux", "initrd.cpio", "root.erofs"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let image = crate::vm::Image::open(dir.path()).unwrap();
        let paths = VmPaths::new("vm1", Path::new("/run"), Path::new("/logs,1"));
        let mut config = Self::new("vm1", "qemu-system-x86_64", image, paths);
        config.uuid = Uuid::from_u128(0x1234);
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_of_an_older_version_is_read() {
        let config = VmConfig::for_tests();
        let mut old = serde_json::to_value(&config).unwrap();
        old["image"] = old["system"].take();
        old.as_object_mut().unwrap().remove("system");
        assert_eq!(serde_json::from_value::<VmConfig>(old).unwrap(), config);
    }
}
