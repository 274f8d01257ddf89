// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the user asks for: a pool, its contents, and the VMs that use it. The host is not examined
//! here; [`ClusterPlan`](super::plan::ClusterPlan) fills in what is left open.

use std::fmt;
use std::path::PathBuf;

use famfs::format::path::RelPath;
use famfs::format::view::View;
use serde::{Deserialize, Serialize};

use crate::host::processors::Processors;
use crate::pool::Kind;
use crate::vm::{Forward, Limits, Root};

/// Maximum length of the name of a cluster or VM: it becomes part of the paths of sockets.
pub const MAX_NAME: usize = 32;

/// Maximum number of VMs in a cluster: more would be a mistake, as each takes a gigabyte.
pub const MAX_VMS: usize = 64;

/// The names of the files of a cluster, without what follows a dot, in the directory that also has
/// those of its VMs.
const OF_CLUSTERS: [&str; 2] = ["instance", "state"];

/// A cluster as requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// The cluster file that describes it; `None` for the command line.
    pub file: Option<PathBuf>,
    /// Its pool.
    pub pool: PoolSpec,
    /// What to put into the pool, in this order.
    pub imports: Vec<ImportSpec>,
    /// Who may change the file system; `None` for the first VM that can write.
    pub master: Option<Master>,
    /// Maximum size of each log of a VM, in bytes.
    pub log_limit: Option<u64>,
    /// Its VMs, with unique names.
    pub vms: Vec<VmSpec>,
}

/// The master of a cluster's file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Master {
    /// No VM: only the host writes, with `famfs --pool`.
    Host,
    /// The VM of that name.
    Vm(String),
}

impl From<String> for Master {
    fn from(name: String) -> Self {
        if name == Self::HOST { Self::Host } else { Self::Vm(name) }
    }
}

impl Master {
    /// What stands for [`Master::Host`] in cluster files and options.
    pub const HOST: &str = "host";
}

/// The part of a cluster that an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The key `master`.
    Master,
    /// A key of the pool.
    Pool(&'static str),
    /// A key of the VM of that name.
    Vm(String, &'static str),
    /// The import of that directory or archive.
    Import(PathBuf),
}

/// A pool as requested.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolSpec {
    /// The file or device. If there is none, a file is created for the cluster and removed with it.
    pub path: Option<PathBuf>,
    /// What it is made of; an existing pool must be of this kind.
    pub kind: Option<PoolKind>,
    /// Its size in bytes; an existing pool must have this size.
    pub size: Option<u64>,
    /// Which device guests see; an existing pool must have this view.
    pub view: Option<View>,
    /// The NUMA node of its memory.
    pub numa: Option<u32>,
    /// Whether to allocate all its memory at once.
    pub prefault: bool,
    /// Whether to accept a pool that another user owns or can change.
    pub foreign: bool,
}

/// What the pool of a cluster is made of. There is no memfd: it has no name, and ends with the
/// program that created it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolKind {
    /// Memory: a file in tmpfs.
    Tmpfs,
    /// Memory in huge pages: a file in hugetlbfs.
    Hugetlbfs,
    /// Storage: a regular file.
    File,
    /// A device, /dev/daxX.Y.
    Devdax,
}

impl PoolKind {
    /// The pool kind that corresponds to it.
    #[must_use]
    pub fn as_kind(self) -> Kind {
        match self {
            Self::Tmpfs => Kind::Tmpfs,
            Self::Hugetlbfs => Kind::Hugetlbfs,
            Self::File => Kind::File,
            Self::Devdax => Kind::Devdax,
        }
    }
}

/// What to copy into the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportSpec {
    /// A directory, or a tar archive.
    pub from: PathBuf,
    /// The directory of the pool's file system that receives the contents; `None` for the root.
    pub to: Option<RelPath>,
    /// Whether to skip what famfs cannot store.
    pub skip_unsupported: bool,
}

impl ImportSpec {
    /// Everything in a directory or archive, into the root.
    #[must_use]
    pub fn of(from: PathBuf) -> Self {
        Self { from, to: None, skip_unsupported: false }
    }
}

/// What a VM may do with the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read and write all of it.
    ReadWrite,
    /// Read all of it; the hypervisor prevents writes.
    ReadOnly,
    /// Read and write a part; the rest is not visible.
    Slice {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
}

impl Access {
    /// The name of the variant in cluster files and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadWrite => "rw",
            Self::ReadOnly => "ro",
            Self::Slice { .. } => "slice",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a VM gets the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// A back-end asks the VMM to map it (vhost-user, SHMEM_MAP).
    Shmem,
    /// The VMM maps it itself (its own virtio-pmem).
    Pmem,
}

impl Transport {
    /// The name of the variant in cluster files and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shmem => "shmem",
            Self::Pmem => "pmem",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A VM as requested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Its name, and the guest's host name.
    pub name: String,
    /// What it may do with the pool.
    pub access: Access,
    /// How it gets the pool; `None` for the most suitable way.
    pub transport: Option<Transport>,
    /// Its RAM in bytes; `None` for 1 GiB plus what the pool costs a guest.
    pub memory: Option<u64>,
    /// Number of virtual processors.
    pub cpus: u32,
    /// The processors of the host on which it runs; `None` for all.
    #[serde(default)]
    pub cpus_allowed: Option<Processors>,
    /// What a control group keeps QEMU to.
    #[serde(default)]
    pub limits: Limits,
    /// The NUMA node of the host that its RAM is in; `None` for any.
    #[serde(default)]
    pub numa: Option<u32>,
    /// The directory of the appliance image, or the disk image of the user's own guest, a file or a
    /// block device; `None` for the installed appliance.
    pub image: Option<PathBuf>,
    /// The root file system: [`Root::Memory`], [`Root::Disk`] or [`Root::Ublk`]; `None` for memory
    /// where that works.
    pub root: Option<Root>,
    /// The file that keeps what the guest writes to a [`Root::Ublk`]; `None` to discard it.
    #[serde(default)]
    pub overlay: Option<PathBuf>,
    /// A kernel (`vmlinux` with a PVH entry, or `bzImage`) instead of the image's.
    pub kernel: Option<PathBuf>,
    /// The initrd for the kernel of the user's own guest.
    #[serde(default)]
    pub initrd: Option<PathBuf>,
    /// The parameters for the kernel of the user's own guest.
    #[serde(default)]
    pub append: Option<String>,
    /// The firmware that boots the user's own guest; `None` for QEMU's BIOS.
    #[serde(default)]
    pub firmware: Option<PathBuf>,
    /// Whether the guest mounts the pool; `None` for yes, unless it sees only a part.
    pub mount: Option<bool>,
    /// Whether programs in the pool cannot be run in the guest.
    pub noexec: bool,
    /// Whether the serial console has a root shell.
    pub shell: bool,
    /// Whether QEMU is confined.
    pub confine: bool,
    /// Whether it is started again when it ends.
    pub restart: Restart,
    /// The VMs that must be up before it is started.
    #[serde(default)]
    pub depends_on: Vec<String>,
    /// A shell command in the guest that succeeds when what the VM is for works.
    #[serde(default)]
    pub health: Option<String>,
    /// Whether it has a network.
    #[serde(default)]
    pub network: Network,
    /// The ports of the host that lead to ports of the guest; only with a network.
    #[serde(default)]
    pub ports: Vec<Forward>,
    /// More arguments for the VMM.
    pub args: Vec<String>,
}

/// The network of a VM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// None.
    #[default]
    None,
    /// One that QEMU makes, with the rights of its user.
    User,
}

impl Network {
    /// The name of the variant in cluster files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::User => "user",
        }
    }
}

/// Whether a VM is started again when it ends by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// It is not.
    #[default]
    No,
    /// If QEMU fails or the guest panics.
    OnFailure,
}

impl VmSpec {
    /// A VM with default settings.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            access: Access::ReadWrite,
            transport: None,
            memory: None,
            cpus: 2,
            cpus_allowed: None,
            limits: Limits::default(),
            numa: None,
            image: None,
            root: None,
            overlay: None,
            kernel: None,
            initrd: None,
            append: None,
            firmware: None,
            mount: None,
            noexec: false,
            shell: false,
            confine: true,
            restart: Restart::No,
            depends_on: Vec::new(),
            health: None,
            network: Network::None,
            ports: Vec::new(),
            args: Vec::new(),
        }
    }
}

impl Spec {
    /// A cluster without a file: `vms` VMs, named vm1 and so on, that share directories.
    #[must_use]
    pub fn of_shares(name: &str, vms: u32, shares: Vec<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            file: None,
            pool: PoolSpec::default(),
            master: None,
            log_limit: None,
            imports: shares.into_iter().map(ImportSpec::of).collect(),
            vms: (1..=vms).map(|number| VmSpec::new(format!("vm{number}"))).collect(),
        }
    }
}

/// Checks a name of a cluster or VM, which becomes part of paths, host names and options.
///
/// # Errors
/// What a valid name is.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !name.starts_with('-');
    if fits {
        return Ok(());
    }
    Err(format!(
        "{name:?} is not a valid name: use 1 to {MAX_NAME} letters, digits or '-', and begin with a letter or digit"
    ))
}

/// Checks the name of a VM, whose files are in one directory with those of its cluster.
///
/// # Errors
/// What a valid name is.
pub fn check_vm_name(name: &str) -> Result<(), String> {
    check_name(name)?;
    match OF_CLUSTERS.contains(&name) {
        true => Err(format!("{name:?} is not a valid name of a VM: files of its cluster have it")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_has_no_name_of_a_file_of_its_cluster() {
        for name in OF_CLUSTERS {
            assert_eq!(check_name(name), Ok(()));
            assert!(check_vm_name(name).is_err(), "{name}");
        }
        assert_eq!(check_vm_name("states"), Ok(()));
    }

    #[test]
    fn names_are_words() {
        for name in ["a", "vm-1", "A9"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "-v", "a b", "../x", "a.b", &"x".repeat(33)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn shares_make_a_cluster() {
        let spec = Spec::of_shares("x", 2, vec!["/srv".into()]);
        let names: Vec<_> = spec.vms.iter().map(|vm| vm.name.as_str()).collect();
        assert_eq!(names, ["vm1", "vm2"]);
        assert_eq!(spec.imports[0].to, None);
    }
}
