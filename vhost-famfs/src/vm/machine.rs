// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A running virtual machine.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::attach::Attach;
use protocol::exec::Status;

use super::agent::Agent;
use super::command::{Command, Output};
use super::config::{ConfigError, Console, PoolDevice, VmConfig};
use super::connection::Hello;
use super::deadline::Deadline;
use super::disk_format::DiskError;
use super::exec_error::ExecError;
use super::image::ImageError;
use super::process::{self, Lifetime};
use super::qmp::{Qmp, QmpError};
use super::shutdown::{Ending, QUIT_LIMIT, Shutdown, end_vm, quit_by_qmp};
use super::version::{QemuVersion, VersionError};
use crate::bounded_log::open_for_writing;

/// How long QEMU may take to open its sockets, before the guest runs.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The path of a process's standard input (proc_pid_fd(5)).
const STANDARD_INPUT: &str = "/proc/self/fd/0";

/// A VM that runs until it is powered off or dropped. Dropping kills it.
#[derive(Debug)]
pub struct Vm {
    config: VmConfig,
    started: Instant,
    child: Mutex<Child>,
    agent: Mutex<Agent>,
    /// Whether it keeps running when this value is dropped.
    left: bool,
}

/// A guest that is up, with its pool in the expected state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Time from the start of QEMU to the guest's answer.
    pub boot: Duration,
    /// The guest kernel's uptime when the agent greeted, in milliseconds.
    pub uptime_ms: u64,
    /// The guest kernel's `boot_id`.
    pub boot_id: String,
    /// The state of the pool's mount.
    pub attach: Attach,
}

/// Why a VM did not start, run or stop as expected.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The image lacks the requested root.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The disk of a user's own guest is not what it was.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// QEMU has the wrong version.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// A file that the VM needs cannot be used.
    #[error("VM {name}: {doing} {}", path.display())]
    File {
        /// The VM.
        name: String,
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// QEMU cannot be started.
    #[error("VM {name}: cannot start {}", program.display())]
    Spawn {
        /// The VM.
        name: String,
        /// The program.
        program: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// QEMU has ended.
    #[error(
        "VM {name}: QEMU ended ({status}); its messages:\n{stderr}\nthe last lines of the \
         console:\n{console}"
    )]
    Ended {
        /// The VM.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// Its last messages.
        stderr: String,
        /// The last lines of the console.
        console: String,
    },
    /// QEMU is running, but its sockets do not appear.
    #[error("VM {name}: QEMU has not opened {} after {START_LIMIT:?}; its messages:\n{stderr}", socket.display())]
    NoSocket {
        /// The VM.
        name: String,
        /// The socket.
        socket: PathBuf,
        /// Its last messages.
        stderr: String,
    },
    /// The guest was not ready in time.
    #[error("VM {name}: {cause}; the last lines of the console:\n{console}")]
    NotReady {
        /// The VM.
        name: String,
        /// The last lines of the console.
        console: String,
        /// The cause.
        cause: ExecError,
    },
    /// The agent of a user's own guest was not heard in time.
    #[error(
        "VM {name}: no agent in the guest has answered within {limit:?}; the system on {} needs \
         the package vhost-famfs-guest, systemd 252 or newer and a kernel with virtio_console \
         (docs/using/own-guests.md); the last lines of {}, its console, which has what the guest \
         writes to ttyS0:\n{console}", disk.display(), log.display()
    )]
    NoAgent {
        /// The VM.
        name: String,
        /// How long it was given.
        limit: Duration,
        /// The disk image.
        disk: PathBuf,
        /// The log of the console.
        log: PathBuf,
        /// Its last lines.
        console: String,
    },
    /// The guest is up, but its pool is not mounted.
    #[error(
        "VM {name}: the pool is not mounted: the program that mounts it ended with {result} \
         {status}; the last lines of the console:\n{console}"
    )]
    NotMounted {
        /// The VM.
        name: String,
        /// `exit-code` or `signal`.
        result: String,
        /// Exit status or signal.
        status: String,
        /// The last lines of the console.
        console: String,
    },
    /// A command did not run to completion.
    #[error("VM {name}")]
    Exec {
        /// The VM.
        name: String,
        /// The cause.
        #[source]
        source: ExecError,
    },
}

impl Vm {
    /// Starts QEMU and returns once its sockets are open; the guest boots meanwhile.
    ///
    /// # Errors
    /// What keeps QEMU from running, with its messages.
    pub fn start(config: VmConfig) -> Result<Self, VmError> {
        config.system.require(config.root)?;
        config.command_line()?;
        if config.pools.iter().any(|pool| matches!(pool, PoolDevice::Shmem { .. })) {
            QemuVersion::require(
                &config.qemu,
                QemuVersion::SHARED_MEMORY,
                "a pool served by a back-end",
            )?;
        }
        let vm = Self::spawn(config, Lifetime::Tied)?;
        vm.wait_started()?;
        Ok(vm)
    }

    /// Starts QEMU, which must have a suitable version, without waiting for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(mut config: VmConfig, lifetime: Lifetime) -> Result<Self, VmError> {
        if let Some(own) = config.system.own() {
            own.check()?;
        }
        config.tell_clock();
        let argv = match lifetime {
            // Use the file that is held, even if another file has the pool's name by now.
            Lifetime::Detached { holds: Some(_), .. } => {
                config.with_pool_at(Path::new(STANDARD_INPUT)).confined_command_line()?
            }
            _ => config.confined_command_line()?,
        };
        let agent = Mutex::new(Agent::new(config.paths.agent.clone()));
        let started = Instant::now();
        let child = Mutex::new(launch(&config, &argv, lifetime)?);
        Ok(Self { config, started, child, agent, left: false })
    }

    /// Lets QEMU keep running after this value is dropped.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// The VM's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The configuration with which it was started.
    #[must_use]
    pub fn config(&self) -> &VmConfig {
        &self.config
    }

    /// QEMU's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// When QEMU was started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Waits until the guest's agent answers, whether or not the pool is mounted; it may still be
    /// [`Attach::Pending`].
    ///
    /// # Errors
    /// QEMU has ended, or the guest is not up within `limit`.
    pub fn wait_up(&self, limit: Duration) -> Result<Ready, VmError> {
        let hello = self.agent().hello(limit).map_err(|error| match self.config.system.own() {
            Some(own) if matches!(error, ExecError::Timeout { .. }) => VmError::NoAgent {
                name: self.config.name.clone(),
                limit,
                disk: own.disk.clone(),
                log: self.config.paths.console_log.clone(),
                console: self.console(),
            },
            _ => self.not_ready(error),
        })?;
        Ok(self.ready(hello))
    }

    /// Waits until the guest has mounted its pool or, if it has none, until it is up.
    ///
    /// # Errors
    /// QEMU has ended, the guest is not ready within `limit`, or it could not mount the pool.
    pub fn wait_ready(&self, limit: Duration) -> Result<Ready, VmError> {
        let deadline = Deadline::after(limit);
        self.wait_up(limit)?;
        let left = deadline.left().unwrap_or_default();
        let hello = self.agent().attached(left).map_err(|error| match error {
            ExecError::Timeout { doing, .. } => self.not_ready(ExecError::Timeout { doing, limit }),
            error => self.not_ready(error),
        })?;
        if let Attach::Failed { result, status, .. } = hello.attach {
            let name = self.config.name.clone();
            let console = self.console();
            return Err(VmError::NotMounted { name, result, status, console });
        }
        Ok(self.ready(hello))
    }

    /// Runs a command in the guest to completion. Commands run one at a time; other threads wait
    /// for their turn.
    ///
    /// # Errors
    /// QEMU has ended, the guest could not start the command, or the command has not ended within
    /// `limit`, in which case it is killed. A command that fails is not an error here: see
    /// [`Output::status`].
    pub fn exec(&self, command: &Command, limit: Duration) -> Result<Output, VmError> {
        self.agent().exec(command, limit).map_err(|source| match source {
            ExecError::Ended => self.gone(source),
            source => VmError::Exec { name: self.config.name.clone(), source },
        })
    }

    /// Waits until the command of the credential `famfs.run` has ended; the guest then powers off.
    /// A command that could not be run has exit code 127.
    ///
    /// # Errors
    /// QEMU has ended without a result, or there is no result within `limit`.
    pub fn wait_run(&self, limit: Duration) -> Result<Status, VmError> {
        self.agent().ran(limit).map_err(|error| self.not_ready(error))
    }

    /// Asks the guest for its problems: failed units, findings of `famfs doctor`, unknown
    /// credentials. A healthy guest has none.
    ///
    /// # Errors
    /// As for [`Self::exec`].
    pub fn self_check(&self, limit: Duration) -> Result<Vec<String>, VmError> {
        let output = self.exec(&Command::new(["/usr/bin/appliance-agent", "check"]), limit)?;
        let mut problems: Vec<String> =
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        if !output.status.success() && problems.is_empty() {
            let said = String::from_utf8_lossy(&output.stderr);
            problems.push(format!("the self-check failed: {}: {}", output.status, said.trim()));
        }
        Ok(problems)
    }

    /// Opens QEMU's control socket.
    ///
    /// # Errors
    /// QEMU does not answer within `limit`.
    pub fn qmp(&self, limit: Duration) -> Result<Qmp, QmpError> {
        Qmp::connect(&self.config.paths.qmp, limit)
    }

    /// How QEMU ended, if it has ended.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// Waits for QEMU to end by itself; `None` if it is still running after `limit`.
    #[must_use]
    pub fn wait_exit(&self, limit: Duration) -> Option<ExitStatus> {
        Deadline::after(limit)
            .poll(|| Ok::<_, std::convert::Infallible>(self.exit_status()))
            .unwrap_or_else(|never| match never {})
    }

    /// Shuts down the guest; if that fails, tells QEMU to quit; if that fails, kills it. The VM has
    /// ended when this returns.
    ///
    /// # Errors
    /// QEMU had already ended, and not through an orderly shutdown.
    pub fn poweroff(self, limit: Duration) -> Result<Shutdown, VmError> {
        let end = end_vm(&self, limit);
        match (end, self.exit_status()) {
            (Shutdown::Orderly, Some(status)) if !status.success() => {
                Err(self.gone(ExecError::Ended))
            }
            _ => Ok(end),
        }
    }

    /// Connects to the agent's socket as soon as QEMU is listening on it.
    ///
    /// # Errors
    /// What keeps QEMU from running, with its messages.
    pub fn wait_started(&self) -> Result<(), VmError> {
        let deadline = Deadline::after(START_LIMIT);
        let connected = deadline.poll(|| {
            if self.exit_status().is_some() {
                return Err(self.gone(ExecError::Ended));
            }
            let connected =
                self.agent().connect(deadline).map_err(|error| self.not_ready(error))?;
            Ok(connected.then_some(()))
        })?;
        connected.ok_or_else(|| VmError::NoSocket {
            name: self.config.name.clone(),
            socket: self.config.paths.agent.clone(),
            stderr: process::tail(&self.config.paths.qemu_log),
        })
    }

    fn ready(&self, hello: Hello) -> Ready {
        let Hello { boot_id, uptime_ms, attach, .. } = hello;
        Ready { boot: self.started.elapsed(), uptime_ms, boot_id, attach }
    }

    fn not_ready(&self, source: ExecError) -> VmError {
        if matches!(source, ExecError::Ended) {
            return self.gone(source);
        }
        let (name, console) = (self.config.name.clone(), self.console());
        VmError::NotReady { name, console, cause: source }
    }

    /// The error for a QEMU that has ended; `source` if it turns out to be still running.
    fn gone(&self, source: ExecError) -> VmError {
        let name = self.config.name.clone();
        let Some(status) = self.wait_exit(QUIT_LIMIT) else {
            return VmError::Exec { name, source };
        };
        let console = self.console();
        let stderr = process::tail(&self.config.paths.qemu_log);
        VmError::Ended { name, status, stderr, console }
    }

    fn console(&self) -> String {
        process::tail(&self.config.paths.console_log)
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn agent(&self) -> MutexGuard<'_, Agent> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ending for Vm {
    fn ask(&self, limit: Duration) {
        let _ = self.agent().poweroff(limit);
    }

    fn ended(&self, limit: Duration) -> bool {
        self.wait_exit(limit).is_some()
    }

    fn quit(&self) -> bool {
        quit_by_qmp(&self.config.paths.qmp)
    }

    fn kill(&self) {
        let mut child = self.child();
        // Both fail only for a child that has already been reaped.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        self.kill();
        let _ = fs::remove_dir_all(&self.config.paths.runtime_dir);
    }
}

fn launch(config: &VmConfig, argv: &[OsString], lifetime: Lifetime) -> Result<Child, VmError> {
    let failed = |doing, path: &Path, source| VmError::File {
        name: config.name.clone(),
        doing,
        path: path.into(),
        source,
    };
    for pool in &config.pools {
        // QEMU would create a missing file.
        if let PoolDevice::Pmem { path, .. } = pool {
            fs::metadata(path).map_err(|source| failed("cannot use the pool", path, source))?;
        }
    }
    fs::DirBuilder::new().mode(0o700).create(&config.paths.runtime_dir).map_err(|source| {
        failed("cannot create the directory", &config.paths.runtime_dir, source)
    })?;
    let cleanup = |error| {
        let _ = fs::remove_dir_all(&config.paths.runtime_dir);
        error
    };
    let stderr = open_for_writing(&config.paths.qemu_log, config.piped)
        .map_err(|source| cleanup(failed("cannot write", &config.paths.qemu_log, source)))?;
    let child = if config.console == Console::Terminal {
        let mut command = process::tied(&argv[0]);
        command.args(&argv[1..]).stderr(stderr);
        process::spawn(command)
    } else {
        lifetime.start(argv, stderr)
    };
    child.map_err(|source| {
        cleanup(VmError::Spawn { name: config.name.clone(), program: config.qemu.clone(), source })
    })
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
