// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The processes of one VM, and how they are started: at the start of its cluster, and again when
//! it was stopped or has ended.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::fill::OpenPool;
use super::health::HealthError;
use super::plan::{ClusterPlan, VmPlan};
use super::process::{MARK, Process};
use super::spec::{Access, Restart};
use crate::host::processors::Processors;
use crate::pool::PoolError;
use crate::vm::{
    Backend, BackendConfig, BackendError, Lifetime, LogKeeper, RootDevice, RootDeviceConfig,
    RootDeviceError, Vm, VmConfig, VmError, VmPaths,
};

/// Why a process of a VM does not start.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// The pool cannot be held.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The back-end does not start.
    #[error("VM {vm}")]
    Backend {
        /// The VM.
        vm: String,
        /// The cause.
        #[source]
        source: BackendError,
    },
    /// There is no root device.
    #[error("VM {vm}")]
    RootDevice {
        /// The VM.
        vm: String,
        /// The cause.
        #[source]
        source: RootDeviceError,
    },
    /// The process that keeps its logs does not start.
    #[error("VM {vm}: cannot start the process that keeps its logs")]
    Keeper {
        /// The VM.
        vm: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The process that starts it again when it fails does not start.
    #[error("VM {vm}: cannot start the process that starts it again when it fails")]
    Supervisor {
        /// The VM.
        vm: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The processors that are allowed for it cannot be used any more.
    #[error(
        "VM {vm}: cannot bind QEMU to the processors {processors} of cpus-allowed; change it and \
         use `vhost-famfs up` again"
    )]
    Processors {
        /// The VM.
        vm: String,
        /// The processors.
        processors: Processors,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// QEMU does not start, or the guest does not come up.
    #[error(transparent)]
    Vm(#[from] Box<VmError>),
    /// The guest is up, but not healthy.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// A process that was started has disappeared.
    #[error("VM {vm}: cannot examine process {pid}")]
    Process {
        /// The VM.
        vm: String,
        /// The process.
        pid: u32,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// How to start the processes of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// The program that keeps logs.
    pub program: PathBuf,
    /// Maximum size of each log in bytes.
    pub log_limit: u64,
    /// Whether the VM only reads the pool.
    pub read_only: bool,
    /// Whether it is started again when it fails.
    #[serde(default)]
    pub restart: Restart,
    /// The processors of the host on which QEMU runs; `None` for all.
    #[serde(default)]
    pub cpus_allowed: Option<Processors>,
    /// Its back-end, if the transport has one.
    pub backend: Option<BackendConfig>,
    /// Its root device, if it has one.
    #[serde(default)]
    pub root_device: Option<RootDeviceConfig>,
    /// The VM.
    pub config: VmConfig,
}

impl Launch {
    /// How to start a VM of a plan.
    #[must_use]
    pub fn new(plan: &ClusterPlan, vm: &VmPlan) -> Self {
        Self {
            program: plan.program.clone(),
            log_limit: plan.log_limit,
            restart: vm.restart,
            cpus_allowed: vm.asked.cpus_allowed.clone(),
            read_only: vm.access == Access::ReadOnly,
            backend: vm.backend.clone().map(|config| BackendConfig { piped: true, ..config }),
            root_device: vm
                .root_device
                .clone()
                .map(|config| RootDeviceConfig { piped: true, ..config }),
            config: VmConfig { piped: true, ..vm.config.clone() },
        }
    }

    /// The same with these sockets and logs.
    #[must_use]
    pub fn at(mut self, paths: VmPaths) -> Self {
        if let Some(backend) = &mut self.backend {
            (backend.socket, backend.log) = (paths.backend.clone(), paths.backend_log.clone());
        }
        if let Some(device) = &mut self.root_device {
            device.log = paths.device_log.clone();
        }
        self.config.paths = paths;
        self
    }

    /// Its name.
    fn vm(&self) -> String {
        self.config.name.clone()
    }

    /// Starts the process that limits the size of the logs and wakes the guest.
    ///
    /// # Errors
    /// It does not start.
    pub fn keeper(&self, instance: Uuid, pool: &OpenPool) -> Result<LogKeeper, PartError> {
        let pool = pool.kept(self.config.uuid)?;
        let paths = &self.config.paths;
        let backend = self.backend.as_ref().map(|backend| backend.log.clone());
        let own = [paths.console_log.clone(), paths.qemu_log.clone()];
        let device = self.root_device.as_ref().map(|device| device.log.clone());
        let logs: Vec<_> = own.into_iter().chain(backend).chain(device).collect();
        let lifetime = |input| detached(instance, Some(input));
        LogKeeper::spawn(&self.program, &logs, paths, &pool, self.log_limit, lifetime)
            .map_err(|source| PartError::Keeper { vm: self.vm(), source })
    }

    /// Starts the back-end, if there is one. The keeper runs.
    ///
    /// # Errors
    /// It does not start.
    pub fn backend(&self, instance: Uuid, pool: &OpenPool) -> Result<Option<Backend>, PartError> {
        let Some(config) = &self.backend else { return Ok(None) };
        // QEMU locks the pool itself.
        let lifetime = detached(instance, Some(pool.again(true)?));
        let backend = Backend::spawn(config.clone(), lifetime).map_err(self.of_backend())?;
        Ok(Some(backend))
    }

    /// Waits until the back-end is listening.
    ///
    /// # Errors
    /// What keeps it from listening.
    pub fn wait_listening(&self, backend: &mut Backend) -> Result<(), PartError> {
        backend.wait_listening().map_err(self.of_backend())
    }

    fn of_backend(&self) -> impl Fn(BackendError) -> PartError + use<'_> {
        |source| PartError::Backend { vm: self.vm(), source }
    }

    /// Starts to make the root device, if there is to be one.
    ///
    /// # Errors
    /// The process that serves it does not start.
    pub fn root_device(&self, instance: Uuid) -> Result<Option<RootDevice>, PartError> {
        let Some(config) = &self.root_device else { return Ok(None) };
        let device = RootDevice::spawn(config.clone(), detached(instance, None));
        device.map(Some).map_err(self.of_root_device())
    }

    /// Waits until there is a root device, and returns the VM with it.
    ///
    /// # Errors
    /// What keeps it from appearing.
    pub fn on_device(&self, device: Option<RootDevice>) -> Result<Self, PartError> {
        let (Some(mut device), Some(own)) = (device, self.config.system.own()) else {
            return Ok(self.clone());
        };
        let system = own.on_device(&device.wait().map_err(self.of_root_device())?).into();
        Ok(Self { config: VmConfig { system, ..self.config.clone() }, ..self.clone() })
    }

    fn of_root_device(&self) -> impl Fn(RootDeviceError) -> PartError + use<'_> {
        |source| PartError::RootDevice { vm: self.vm(), source }
    }

    /// Starts QEMU. The back-end is listening, and there is a root device.
    ///
    /// # Errors
    /// It does not start.
    pub fn machine(&self, instance: Uuid, pool: &OpenPool) -> Result<Vm, PartError> {
        // A VM with a back-end holds the lock through it. A VM that maps the pool itself inherits
        // the locked file.
        let holds = match &self.backend {
            Some(_) => None,
            None => Some(pool.held(!self.read_only)?),
        };
        let start = || Vm::spawn(self.config.clone(), detached(instance, holds)).map_err(Box::new);
        let Some(processors) = &self.cpus_allowed else { return Ok(start()?) };
        let failed = |source| {
            let processors = processors.clone();
            PartError::Processors { vm: self.vm(), processors, source }
        };
        Ok(processors.run(start).map_err(failed)??)
    }

    /// Starts the process that starts the VM again when it fails, if there should be one. Each of
    /// these starts has `limit`.
    ///
    /// # Errors
    /// It does not start.
    pub fn supervisor(
        &self,
        instance: Uuid,
        cluster: &str,
        limit: Duration,
    ) -> Result<Option<Process>, PartError> {
        if self.restart == Restart::No {
            return Ok(None);
        }
        let seconds = limit.as_secs().to_string();
        let words =
            ["keep-running", "--cluster", cluster, "--timeout", &seconds, &self.config.name];
        let words = words.map(Into::into);
        let argv: Vec<_> = [self.program.clone().into()].into_iter().chain(words).collect();
        let failed = |source| PartError::Supervisor { vm: self.vm(), source };
        let child = detached(instance, None).start_quietly(&argv).map_err(failed)?;
        self.started(child.id()).map(Some)
    }

    /// Makes the keeper record how a process ends.
    ///
    /// # Errors
    /// The keeper has ended.
    pub fn watch(&self, keeper: &LogKeeper, pid: u32) -> Result<(), PartError> {
        keeper.watch(pid).map_err(|source| PartError::Keeper { vm: self.vm(), source })
    }

    /// What identifies a process that was just started.
    ///
    /// # Errors
    /// It has disappeared.
    pub fn started(&self, pid: u32) -> Result<Process, PartError> {
        Process::of(pid).map_err(|source| PartError::Process { vm: self.vm(), pid, source })
    }
}

fn detached(instance: Uuid, holds: Option<std::fs::File>) -> Lifetime {
    Lifetime::Detached { mark: (MARK, instance.to_string()), holds }
}
