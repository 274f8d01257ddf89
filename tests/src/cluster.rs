// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Several appliance VMs on one pool.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use protocol::credentials::NO_POOL;
use tempfile::TempDir;
use uuid::Uuid;
use vhost_famfs::vm::{
    Accelerator, Backend, BackendConfig, Command, Console, Disk, Image, Output, PoolDevice, Ready,
    Root, Shutdown, Vm, VmConfig, VmPaths,
};

use crate::{Artifacts, Pool, RunningRelay, interrupt, kernel_log};

/// How long a VM may take to mount its pool, under emulation on a busy host.
pub const BOOT: Duration = Duration::from_secs(240);

/// How long a VM may take to shut down.
const POWEROFF: Duration = Duration::from_secs(180);

/// How long a back-end may take to notice the end of its VM.
const BACKEND_EXIT: Duration = Duration::from_secs(60);

/// How a VM gets the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Through its own back-end, which passes the pool to QEMU (SHMEM_MAP).
    Shmem,
    /// As QEMU's own virtio-pmem device.
    Pmem {
        /// Whether QEMU keeps the guest from writing.
        readonly: bool,
    },
}

/// A VM to start.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Whether it has the pool's system UUID, and so may create files.
    pub master: bool,
    /// How it gets the pool; `None` for a VM without one.
    pub transport: Option<Transport>,
    /// Read-only disks.
    pub disks: Vec<Disk>,
    /// Where its root file system is.
    pub root: Root,
    /// Additional credentials.
    pub credentials: BTreeMap<String, String>,
    /// Whether it mounts the pool at boot.
    pub attach: bool,
    /// Whether it is told what others publish, as a VM of `up` is.
    pub told: bool,
    /// Whether its serial console is this terminal, with a shell on it.
    pub interactive: bool,
    /// Whether its clock counts instructions.
    pub counted: bool,
    /// Whether each of its processors is emulated by its own thread, if there is no KVM.
    pub threads: bool,
    /// Additional kernel parameters.
    pub kernel_args: Vec<String>,
    /// Additional arguments for QEMU.
    pub qemu_args: Vec<String>,
    /// Pools in addition to the cluster's.
    pub pools_beside: Vec<PoolDevice>,
}

impl Member {
    /// A VM on the pool through a back-end.
    pub fn new(name: &str, master: bool) -> Self {
        let transport = Some(Transport::Shmem);
        Self {
            name: name.to_owned(),
            master,
            transport,
            disks: Vec::new(),
            root: Root::Disk,
            credentials: BTreeMap::new(),
            attach: true,
            told: true,
            interactive: false,
            counted: false,
            threads: false,
            kernel_args: Vec::new(),
            qemu_args: Vec::new(),
            pools_beside: Vec::new(),
        }
    }

    /// The same VM, with another way to get the pool.
    pub fn with_transport(mut self, transport: Option<Transport>) -> Self {
        self.transport = transport;
        self
    }

    /// The same VM, which does not attach the pool's device at boot.
    pub fn without_attach(mut self) -> Self {
        self.attach = false;
        self
    }

    /// The same VM, whose watch has to look by itself for what others publish.
    pub fn without_wake_ups(mut self) -> Self {
        self.told = false;
        self
    }

    /// The same VM, with its console on this terminal.
    pub fn on_terminal(mut self) -> Self {
        self.interactive = true;
        self
    }

    /// The same VM, with a clock that counts instructions, one per nanosecond: the same work takes
    /// the same time in every run, on any host. It has one processor and is emulated.
    pub fn counting_instructions(mut self) -> Self {
        self.counted = true;
        self
    }

    /// The same VM, emulated with one thread per processor: for tests that must run in parallel, on
    /// a host that is not busy; see [`Accelerator::TcgThreads`].
    pub fn in_threads(mut self) -> Self {
        self.threads = true;
        self
    }

    /// The same VM, with another kernel parameter.
    pub fn with_kernel_arg(mut self, word: &str) -> Self {
        self.kernel_args.push(word.to_owned());
        self
    }

    /// The same VM, with additional arguments for QEMU.
    pub fn with_qemu_args(mut self, args: &[String]) -> Self {
        self.qemu_args.extend_from_slice(args);
        self
    }

    /// The same VM, with another pool in addition to the cluster's, mapped by QEMU itself.
    pub fn with_pool_beside(mut self, pool: &Pool) -> Self {
        let (path, size) = (pool.path().to_owned(), pool.size());
        self.pools_beside.push(PoolDevice::Pmem { path, size, readonly: false });
        self
    }

    /// The same VM, with another root.
    pub fn with_root(mut self, root: Root) -> Self {
        self.root = root;
        self
    }

    /// The same VM, with another credential.
    pub fn with_credential(mut self, name: &str, value: &str) -> Self {
        self.credentials.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The same VM, with another disk.
    pub fn with_disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }
}

/// A started VM, with its back-end.
#[derive(Debug)]
pub struct Node {
    /// How it was started.
    pub member: Member,
    /// The VM.
    pub vm: Vm,
    /// Its back-end, if its transport has one.
    pub backend: Option<Backend>,
    /// What wakes it, and what it wakes others by.
    pub relay: Option<RunningRelay>,
    wake: PathBuf,
    console_log: PathBuf,
}

impl Node {
    /// Runs a command in the guest; if it fails, the error contains its output.
    pub fn run(&self, command: &Command, limit: Duration) -> Result<Output> {
        let output = self.vm.exec(command, limit)?;
        if !output.status.success() {
            bail!(
                "VM {}: {command}: {}: {}{}",
                self.vm.name(),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(output)
    }

    /// The socket of its wake-up port.
    pub fn wake_port(&self) -> &Path {
        &self.wake
    }

    /// The log of the guest's console.
    pub fn console_log(&self) -> &Path {
        &self.console_log
    }

    /// The lines of the kernel's log so far that report a fault.
    pub fn kernel_faults(&self) -> Result<Vec<String>> {
        kernel_log::faults_in(&self.console_log)
    }

    /// Powers off the VM and checks that everything ended in order: guest, QEMU, back-end, kernel
    /// log.
    pub fn end(self) -> Result<()> {
        let Self { member: Member { name, .. }, vm, backend, relay: _, console_log, .. } = self;
        let shutdown = vm.poweroff(POWEROFF)?;
        if shutdown != Shutdown::Orderly {
            bail!("VM {name}: did not power off within {POWEROFF:?}: {shutdown:?}");
        }
        if let Some(backend) = backend {
            backend.finish(BACKEND_EXIT)?;
        }
        let faults = kernel_log::faults_in(&console_log)?;
        if !faults.is_empty() {
            bail!("VM {name}: {} reports:\n{}", console_log.display(), faults.join("\n"));
        }
        Ok(())
    }
}

/// Several VMs, started together. Dropping it kills them.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    /// For sockets; removed after the VMs.
    runtime: TempDir,
}

impl Cluster {
    /// Starts the VMs and their back-ends; they boot meanwhile.
    pub fn start(
        artifacts: &Artifacts,
        pool: &Pool,
        memory: u64,
        members: Vec<Member>,
    ) -> Result<Self> {
        interrupt::check()?;
        let runtime = tempfile::Builder::new()
            .prefix("vhost-famfs-")
            .tempdir_in(&artifacts.runtime)
            .with_context(|| format!("cannot use {}", artifacts.runtime.display()))?;
        fs::create_dir_all(&artifacts.logs)
            .with_context(|| format!("cannot create {}", artifacts.logs.display()))?;
        let image = Image::open(&artifacts.image)?;
        let (accelerator, _) = Accelerator::detect(&artifacts.qemu);
        let mut cluster = Self { nodes: Vec::new(), runtime };
        for member in members {
            let dir = cluster.runtime.path().to_owned();
            let paths = VmPaths::new(&member.name, &dir, &artifacts.logs);
            let (console_log, wake) = (paths.console_log.clone(), paths.wake.clone());
            let backend = match member.transport {
                Some(Transport::Shmem) => Some(Backend::start(BackendConfig {
                    program: artifacts.programs.join("vhost-famfs"),
                    foreign: false,
                    pool: pool.path().to_owned(),
                    part: None,
                    socket: paths.backend.clone(),
                    log: paths.backend_log.clone(),
                    piped: false,
                })?),
                _ => None,
            };
            let mut config = VmConfig::new(&member.name, &artifacts.qemu, image.clone(), paths);
            config.accelerator = accelerator;
            config.memory = memory;
            config.qemu_args = member.qemu_args.iter().map(Into::into).collect();
            config.console = if member.interactive { Console::Terminal } else { Console::Log };
            if member.threads && accelerator == Accelerator::Tcg {
                config.accelerator = Accelerator::TcgThreads;
            }
            if member.counted {
                config.accelerator = Accelerator::Tcg;
                config.cpus = 1;
                config.qemu_args.extend(["-icount", "shift=0,sleep=off"].map(Into::into));
            }
            config.uuid = if member.master { pool.system() } else { Uuid::new_v4() };
            config.root = member.root;
            config.credentials.clone_from(&member.credentials);
            if !member.attach {
                config.credentials.insert(NO_POOL.to_owned(), "1".to_owned());
            }
            config.disks.clone_from(&member.disks);
            config.kernel_args.clone_from(&member.kernel_args);
            config.pools = match (member.transport, &backend) {
                (Some(Transport::Pmem { readonly }), _) => vec![PoolDevice::Pmem {
                    path: pool.path().to_owned(),
                    size: pool.size(),
                    readonly,
                }],
                (_, Some(backend)) => {
                    vec![PoolDevice::Shmem { socket: backend.socket().to_owned() }]
                }
                (_, None) => Vec::new(),
            };
            config.pools.extend(member.pools_beside.iter().cloned());
            let vm = Vm::start(config)?;
            let told = member.told && member.transport.is_some();
            let relay = told.then(|| RunningRelay::start(pool, &wake)).transpose()?;
            cluster.nodes.push(Node { member, vm, backend, relay, wake, console_log });
        }
        Ok(cluster)
    }

    /// Waits until every VM has mounted the pool (or is up, if it has none).
    pub fn wait_ready(&self, limit: Duration) -> Result<Vec<Ready>> {
        self.in_all(|node| Ok(node.vm.wait_ready(limit)?))
    }

    /// Runs the same function for all VMs in parallel; the results are in the order of the VMs.
    pub fn in_all<T: Send>(&self, work: impl Fn(&Node) -> Result<T> + Sync) -> Result<Vec<T>> {
        thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> =
                self.nodes.iter().map(|node| scope.spawn(move || work(node))).collect();
            threads.into_iter().map(join).collect()
        })
    }

    /// The VMs, in the order in which they were given.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The processes of the VMs. Back-ends end together with their VMs.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.nodes.iter().map(|node| node.vm.pid())
    }

    /// Gives a VM another relay, or none.
    pub fn set_relay(&mut self, name: &str, relay: Option<RunningRelay>) -> Result<()> {
        let node = self.nodes.iter_mut().find(|node| node.member.name == name);
        node.with_context(|| format!("no VM {name} in this cluster"))?.relay = relay;
        Ok(())
    }

    /// The VM of that name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|node| node.member.name == name)
            .with_context(|| format!("no VM {name} in this cluster"))
    }

    /// Removes one VM from the cluster, to end it separately.
    pub fn remove(&mut self, name: &str) -> Result<Node> {
        let index = self.nodes.iter().position(|node| node.member.name == name);
        Ok(self.nodes.remove(index.with_context(|| format!("no VM {name} in this cluster"))?))
    }

    /// Powers off all VMs, and checks that each ended in order with a clean kernel log.
    pub fn end(mut self) -> Result<()> {
        let nodes = std::mem::take(&mut self.nodes);
        thread::scope(|scope| {
            let threads: Vec<_> =
                nodes.into_iter().map(|node| scope.spawn(move || node.end())).collect();
            threads.into_iter().map(join).collect::<Result<Vec<()>>>()
        })?;
        Ok(())
    }
}

/// The result of a thread; a panic in it continues here.
fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
