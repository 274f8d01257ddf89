// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starts a cluster: all of it, or nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use famfs::system::process::boot_id;
use serde::Serialize;

use super::directory::{Directory, DirectoryError, Lock};
use super::fill::{FillError, Filled, OpenPool};
use super::health;
use super::kept_logs;
use super::order::{Circle, in_turns, waves};
use super::parts::{Launch, PartError};
use super::plan::{ClusterPlan, VmPlan};
use super::process::{self, Process};
use super::root_devices;
use super::state::{Booted, Phase, State};
use crate::pool::{self, Identity};
use crate::vm::{Attach, Backend, LogKeeper, Ready, Vm};

/// Why a cluster did not start. Nothing of it remains.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// Its directory cannot be made.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Its pool cannot be made or filled.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// VMs depend on each other.
    #[error("VMs wait for each other: {0}; remove one of these depends-on")]
    Circle(String),
    /// A VM does not start.
    #[error(transparent)]
    Part(#[from] PartError),
    /// The kernel does not tell the start time of this process.
    #[error("cannot look at this process in /proc")]
    This(#[source] io::Error),
    /// One of the errors above, with the place of its logs.
    #[error("the start failed; its logs are in {} until the next start with this name", logs.display())]
    Failed {
        /// The directory of the logs.
        logs: PathBuf,
        /// What failed.
        #[source]
        source: Box<UpError>,
    },
    /// The user asked to stop.
    #[error("interrupted; nothing of the cluster remains")]
    Interrupted,
}

/// Progress of a start, for the user.
#[derive(Debug)]
pub enum Event<'e> {
    /// The memory of the pool is being allocated: bytes so far, and in total.
    Taking(u64, u64),
    /// Bytes of the imports that were copied, and the total.
    Copied(u64, u64),
    /// The VMs are being started.
    Starting,
    /// A VM is up.
    Up(&'e UpVm),
}

/// A running cluster.
#[derive(Debug, Serialize)]
pub struct UpReport {
    /// Its name.
    pub cluster: String,
    /// Its pool.
    pub pool: String,
    /// Size of the pool in bytes.
    pub size: u64,
    /// What was copied into it.
    pub imported: Filled,
    /// Time from the start of the first back-end until all VMs were up, in seconds.
    pub seconds: f64,
    /// Its VMs.
    pub vms: Vec<UpVm>,
}

/// A running VM.
#[derive(Debug, Clone, Serialize)]
pub struct UpVm {
    /// Its name.
    pub name: String,
    /// `rw`, `ro` or `slice`.
    pub access: &'static str,
    /// `shmem` or `pmem`.
    pub transport: &'static str,
    /// Whether the pool is mounted in it.
    pub mounted: bool,
    /// Whether it is the master of the pool's file system.
    pub master: bool,
    /// Time from the start of QEMU to the guest's report, in seconds.
    pub boot_seconds: f64,
}

/// A start in progress. Every process is started under its lock, so that whoever aborts the start
/// misses none.
pub struct Start<'p> {
    plan: &'p ClusterPlan,
    directory: Directory,
    interrupted: AtomicBool,
    /// The pool's file, if this start created it. A file that appeared after planning is not this
    /// start's.
    made: OnceLock<Identity>,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    /// Held until the cluster is up or gone.
    lock: Option<Lock>,
    aborted: bool,
    /// Where the logs of this start are, if it failed.
    kept: Option<PathBuf>,
}

type Node<'p> = (usize, &'p VmPlan, Vm, Option<Backend>);

impl<'p> Start<'p> {
    /// Reserves the cluster's name; starts nothing.
    ///
    /// # Errors
    /// A cluster with this name is running.
    pub fn new(plan: &'p ClusterPlan) -> Result<Self, UpError> {
        let launcher = Process::of(std::process::id()).map_err(UpError::This)?;
        let state = State::new(plan, boot_id().map_err(UpError::This)?.to_string(), launcher);
        let base = plan.dir.parent().unwrap_or(Path::new("."));
        let directory = Directory::new(base, &plan.name);
        let lock = directory.create(plan.instance)?;
        // Logs of an earlier start; they may stay if they cannot be removed.
        let _ = kept_logs::forget(base, &plan.name);
        let start = Self {
            plan,
            directory,
            interrupted: AtomicBool::new(false),
            made: OnceLock::new(),
            inner: Mutex::new(Inner { state, lock: Some(lock), aborted: false, kept: None }),
        };
        let written = start.directory.write(&start.inner().state);
        if let Err(error) = written {
            start.abort();
            return Err(error.into());
        }
        Ok(start)
    }

    /// Brings the cluster up. Each VM has `limit` to mount the pool.
    ///
    /// # Errors
    /// The first failure. Nothing remains.
    pub fn run(
        &self,
        limit: Duration,
        events: &(dyn Fn(Event<'_>) + Sync),
    ) -> Result<UpReport, UpError> {
        let result = self.bring_up(limit, events);
        let error = match result {
            Ok(report) => return Ok(report),
            Err(error) => error,
        };
        self.abort();
        // An interrupted start fails with some error; that error is of no interest.
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(UpError::Interrupted);
        }
        Err(match self.inner().kept.take() {
            Some(logs) => UpError::Failed { logs, source: Box::new(error) },
            None => error,
        })
    }

    /// Stops the start at the user's request, from another thread: [`Start::run`] fails.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
        self.abort();
    }

    /// Stops and removes everything that was started or created, unless the cluster is up.
    fn abort(&self) {
        let mut inner = self.inner();
        if inner.state.phase == Phase::Up {
            return;
        }
        inner.aborted = true;
        if self.plan.vms.iter().any(|vm| vm.root_device.is_some()) {
            root_devices::kill_users(&process::marked(self.plan.instance));
        }
        if root_devices::remove_all(self.plan.instance, self.directory.path()).is_err() {
            // `down` tries again, and says what is wrong.
            return;
        }
        if process::kill_marked(self.plan.instance).is_err() {
            // Processes that cannot be killed may still use the pool; `down` checks again.
            return;
        }
        if let Some(made) = self.made.get() {
            let pool = &self.plan.pool;
            let _ = pool::open_for(&pool.path, false, pool.owners, Some(*made))
                .and_then(|file| pool::unlink(&pool.path, &file));
        }
        if !self.interrupted.load(Ordering::Relaxed) {
            let logs: Vec<_> = self.plan.vms.iter().flat_map(VmPlan::logs).collect();
            // If they cannot be kept, the end of the logs in the error is all that remains.
            let kept = kept_logs::keep(self.directory.base(), self.directory.name(), &logs);
            inner.kept = kept.ok().flatten().or(inner.kept.take());
        }
        let _ = self.directory.remove();
    }

    fn bring_up(
        &self,
        limit: Duration,
        events: &(dyn Fn(Event<'_>) + Sync),
    ) -> Result<UpReport, UpError> {
        let pool = &self.plan.pool;
        let made = |identity| _ = self.made.set(identity);
        let taking = &mut |done, all| events(Event::Taking(done, all));
        let open = OpenPool::make(pool, self.plan.writes_pool(), made, taking)?;
        let all = pool.needs.bytes;
        drop(self.going_on()?);
        let imported = open.fill(pool, &|bytes| {
            events(Event::Copied(bytes, all));
            !self.interrupted.load(Ordering::Relaxed)
        })?;
        open.hold().map_err(PartError::from)?;
        let identity = open.identity().map_err(PartError::from)?;
        self.going_on()?.state.pool.identity = Some(identity);
        events(Event::Starting);
        let begun = Instant::now();
        let mut keepers = Vec::new();
        for (index, vm) in self.plan.vms.iter().enumerate() {
            keepers.push(self.start_keeper(index, vm, &open)?);
        }
        let (mut nodes, mut vms) = (Vec::new(), Vec::new());
        for wave in self.waves()? {
            let started = self.start_wave(&wave, &open, &keepers)?;
            vms.extend(self.wait_all(&started, limit, events)?);
            nodes.extend(started);
        }
        vms.sort_by_key(|(index, _)| *index);
        let vms = vms.into_iter().map(|(_, vm)| vm).collect();
        let seconds = begun.elapsed().as_secs_f64();
        {
            let mut inner = self.going_on()?;
            for (index, vm) in self.plan.vms.iter().enumerate() {
                let launch = Launch::new(self.plan, vm);
                let supervisor = launch.supervisor(self.plan.instance, &self.plan.name, limit)?;
                inner.state.vms[index].supervisor = supervisor;
            }
            let up = State { phase: Phase::Up, ..inner.state.clone() };
            self.directory.write(&up)?;
            inner.state = up;
            inner.lock = None;
        }
        drop(keepers);
        for (_, _, vm, backend) in nodes {
            vm.leave();
            if let Some(backend) = backend {
                backend.leave();
            }
        }
        Ok(UpReport {
            cluster: self.plan.name.clone(),
            pool: pool.path.display().to_string(),
            size: pool.size,
            imported,
            seconds,
            vms,
        })
    }

    /// The VMs by their indices, in groups that are started one after the other.
    fn waves(&self) -> Result<Vec<Vec<usize>>, UpError> {
        let vms = self.plan.vms.iter();
        let vms: Vec<_> = vms.map(|vm| (vm.name(), vm.asked.depends_on.as_slice())).collect();
        let waves = waves(&vms).map_err(|Circle(vms)| UpError::Circle(vms.join(" -> ")))?;
        Ok(match self.plan.vms.first() {
            Some(vm) => in_turns(waves, vm.config.accelerator),
            None => waves,
        })
    }

    fn start_wave(
        &self,
        wave: &[usize],
        pool: &OpenPool,
        keepers: &[LogKeeper],
    ) -> Result<Vec<Node<'p>>, UpError> {
        let launch = |index: &usize| (*index, Launch::new(self.plan, &self.plan.vms[*index]));
        let launches: Vec<_> = wave.iter().map(launch).collect();
        let mut nodes = Vec::new();
        let (mut backends, mut devices) = (Vec::new(), Vec::new());
        // All of these first: they get ready while the next one is started.
        for (index, launch) in &launches {
            let going_on = self.going_on()?;
            devices.push(launch.root_device(self.plan.instance)?);
            drop(going_on);
            let backend = self.start_backend(*index, launch, pool)?;
            if let Some(backend) = &backend {
                launch.watch(&keepers[*index], backend.pid())?;
            }
            backends.push(backend);
        }
        for (((index, launch), mut backend), device) in launches.iter().zip(backends).zip(devices) {
            if let Some(backend) = &mut backend {
                launch.wait_listening(backend)?;
            }
            let launch = launch.on_device(device)?;
            let machine = self.start_vm(*index, &launch, pool)?;
            launch.watch(&keepers[*index], machine.pid())?;
            nodes.push((*index, &self.plan.vms[*index], machine, backend));
        }
        Ok(nodes)
    }

    /// Starts the process that limits the size of a VM's logs and wakes its guest.
    fn start_keeper(
        &self,
        index: usize,
        vm: &VmPlan,
        pool: &OpenPool,
    ) -> Result<LogKeeper, UpError> {
        let launch = Launch::new(self.plan, vm);
        let mut inner = self.going_on()?;
        let keeper = launch.keeper(self.plan.instance, pool)?;
        inner.state.vms[index].keeper = Some(launch.started(keeper.pid())?);
        self.directory.write(&inner.state)?;
        Ok(keeper)
    }

    fn start_backend(
        &self,
        index: usize,
        launch: &Launch,
        pool: &OpenPool,
    ) -> Result<Option<Backend>, UpError> {
        let mut inner = self.going_on()?;
        let Some(backend) = launch.backend(self.plan.instance, pool)? else { return Ok(None) };
        inner.state.vms[index].backend = Some(launch.started(backend.pid())?);
        self.directory.write(&inner.state)?;
        Ok(Some(backend))
    }

    fn start_vm(&self, index: usize, launch: &Launch, pool: &OpenPool) -> Result<Vm, UpError> {
        let mut inner = self.going_on()?;
        let machine = launch.machine(self.plan.instance, pool)?;
        inner.state.vms[index].qemu = Some(launch.started(machine.pid())?);
        self.directory.write(&inner.state)?;
        Ok(machine)
    }

    /// Waits for all VMs at the same time. If one fails, the wait for the others ends.
    fn wait_all(
        &self,
        nodes: &[Node<'p>],
        limit: Duration,
        events: &(dyn Fn(Event<'_>) + Sync),
    ) -> Result<Vec<(usize, UpVm)>, UpError> {
        let (results, outcomes) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            for (index, plan, vm, _) in nodes {
                let results = results.clone();
                scope.spawn(move || {
                    // After another VM has failed, nobody receives this.
                    let _ = results.send((*index, wait(plan, vm, limit)));
                });
            }
            drop(results);
            let mut reports = Vec::new();
            for (index, ready) in outcomes {
                let done = ready.map_err(UpError::from).and_then(|ready| {
                    let report = self.booted(index, &ready)?;
                    events(Event::Up(&report));
                    Ok(report)
                });
                match done {
                    Ok(report) => reports.push((index, report)),
                    Err(error) => {
                        // Also ends the other waits.
                        self.abort();
                        return Err(error);
                    }
                }
            }
            Ok(reports)
        })
    }

    fn booted(&self, index: usize, ready: &Ready) -> Result<UpVm, UpError> {
        let plan = &self.plan.vms[index];
        let mounted = matches!(ready.attach, Attach::Mounted { .. });
        let boot_ms = u64::try_from(ready.boot.as_millis()).unwrap_or(u64::MAX);
        let mut inner = self.going_on()?;
        inner.state.vms[index].booted = Some(Booted { boot_ms, mounted });
        self.directory.write(&inner.state)?;
        Ok(UpVm {
            name: plan.name().to_owned(),
            access: plan.access.name(),
            transport: plan.transport.name(),
            mounted,
            master: plan.master,
            boot_seconds: ready.boot.as_secs_f64(),
        })
    }

    /// The state, unless the start was aborted.
    fn going_on(&self) -> Result<MutexGuard<'_, Inner>, UpError> {
        let inner = self.inner();
        if inner.aborted { Err(UpError::Interrupted) } else { Ok(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until a VM is up, with the pool mounted if it is to mount it, and healthy.
fn wait(plan: &VmPlan, vm: &Vm, limit: Duration) -> Result<Ready, PartError> {
    let begun = Instant::now();
    vm.wait_started().map_err(Box::new)?;
    let ready = match plan.mount {
        true => vm.wait_ready(limit),
        false => vm.wait_up(limit),
    };
    let ready = ready.map_err(Box::new)?;
    if let Some(command) = &plan.asked.health {
        health::wait(vm, command, begun, limit)?;
    }
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use crate::cluster::host::Host;
    use crate::cluster::spec::Spec;

    #[test]
    fn a_pool_that_appears_meanwhile_is_not_ours_to_remove() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("pool");
        let mut spec = Spec::of_shares("lab", 1, Vec::new());
        (spec.pool.path, spec.pool.size) = (Some(path.clone()), Some(16 << 20));
        let plan = ClusterPlan::new(&spec, &Host::for_tests(dir.path(), "image")).unwrap();
        fs::write(&path, "somebody's").unwrap();
        let start = Start::new(&plan).unwrap();
        let error = start.run(Duration::ZERO, &|_| ()).unwrap_err().to_string();
        assert!(error.contains("exists already, and is not replaced"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"somebody's");
        assert!(!plan.dir.exists(), "nothing else remains");
    }
}
