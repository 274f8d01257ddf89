// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starts a VM of a cluster again that was stopped or has ended.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use famfs::system::process::boot_id;
use famfs::text::units::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::directory::Directory;
use super::fill::OpenPool;
use super::health;
use super::life::{LifeError, change, clear, own_vm};
use super::parts::{Launch, PartError};
use super::process::Process;
use super::state::{Booted, PoolState, State, VmState};
use crate::pool::{self, Owners, PoolError};
use crate::vm::{Accelerator, Attach, VmPaths};

/// A VM that was started again.
#[derive(Debug, Serialize)]
pub struct StartVm {
    /// Its name.
    pub name: String,
    /// Whether the pool is mounted in it.
    pub mounted: bool,
    /// Time from the start of QEMU to the guest's report, in seconds.
    pub boot_seconds: f64,
}

/// The start of a VM.
pub struct Start<'s> {
    directory: &'s Directory,
    name: String,
    paths: VmPaths,
    instance: Uuid,
    /// This process, which the state names until the VM is up.
    me: Process,
    /// The state of the VM before.
    before: VmState,
    pool: PoolState,
    launch: Launch,
    course: Mutex<Course>,
}

/// How far a start is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Course {
    Runs,
    Interrupted,
    /// The VM is up: it is no longer this start's to end.
    Done,
}

/// Checks whether VMs could be started if they did not run.
///
/// # Errors
/// Why the first one of them could not.
pub fn check(directory: &Directory, names: &[String]) -> Result<(), LifeError> {
    let gone = || LifeError::Gone(directory.name().to_owned());
    let mut state = directory.read()?.ok_or_else(gone)?;
    for name in names {
        launch_of(&mut state, name)?;
    }
    Ok(())
}

/// How to start a VM.
fn launch_of(state: &mut State, name: &str) -> Result<Launch, LifeError> {
    let (cluster, pool) = (state.name.clone(), state.pool.clone());
    let vm = own_vm(state, name)?;
    let (Some(launch), Some(identity)) = (&vm.launch, pool.identity) else {
        return Err(LifeError::NotRecorded { cluster, vm: name.to_owned() });
    };
    let form = pool::form(&pool.path, Owners::foreign(pool.foreign))?;
    if form.identity != identity {
        return Err(PoolError::Replaced(pool.path).into());
    }
    if form.size != pool.size {
        let (found, expected) = (Bytes(form.size), Bytes(pool.size));
        return Err(LifeError::Resized { cluster, pool: pool.path, found, expected });
    }
    Ok(launch.as_ref().clone())
}

impl<'s> Start<'s> {
    /// Reserves the VM, and removes what remains of its last run.
    ///
    /// # Errors
    /// It runs, is being started, or cannot be started by this program.
    pub fn new(directory: &'s Directory, name: &str) -> Result<Self, LifeError> {
        let me = Process::of(std::process::id()).map_err(LifeError::This)?;
        let boot = boot_id().map_err(LifeError::This)?.to_string();
        let paths = directory.vm(name);
        change(directory, None, |state| {
            let (instance, pool) = (state.instance, state.pool.clone());
            // The processes of an earlier boot are gone.
            state.boot_id = boot;
            let cluster = state.name.clone();
            let vm = own_vm(state, name)?;
            if let Some(Process { pid, .. }) = vm.starting.filter(|process| process.is_alive()) {
                return Err(LifeError::Starting { cluster, vm: name.to_owned(), pid });
            }
            // One whose start was killed halfway is started from the beginning.
            let runs = vm.starting.is_none() && vm.qemu.is_some_and(|qemu| qemu.is_alive());
            if runs {
                return Err(LifeError::Running { cluster, vm: name.to_owned() });
            }
            let launch = launch_of(state, name)?.at(paths.clone());
            let vm = own_vm(state, name)?;
            clear(instance, name, &paths)?;
            vm.starting = None;
            let before = vm.clone();
            (vm.qemu, vm.backend, vm.keeper, vm.booted) = (None, None, None, None);
            vm.starting = Some(me);
            let course = Mutex::new(Course::Runs);
            let name = name.to_owned();
            Ok(Self { directory, name, paths, instance, me, before, pool, launch, course })
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of the VMs that must be up before it is started.
    #[must_use]
    pub fn depends_on(&self) -> &[String] {
        self.before.depends_on()
    }

    /// What runs its guest.
    #[must_use]
    pub fn accelerator(&self) -> Accelerator {
        self.launch.config.accelerator
    }

    /// Starts the VM, which has `limit` to mount the pool.
    ///
    /// # Errors
    /// What keeps it from coming up. It does not run then.
    pub fn run(&self, limit: Duration) -> Result<StartVm, LifeError> {
        let started = self.bring_up(limit);
        if started.is_err() {
            self.undo();
        }
        match started {
            Err(_) if *self.course() == Course::Interrupted => {
                Err(LifeError::Interrupted(self.name.clone()))
            }
            started => started,
        }
    }

    /// Stops the start at the user's request, from another thread: [`Start::run`] fails. Does
    /// nothing once the VM is up.
    pub fn interrupt(&self) {
        // The last step waits until this is done.
        let mut course = self.course();
        if *course == Course::Done {
            return;
        }
        *course = Course::Interrupted;
        // What is left is found by the thread that runs the start.
        let _ = clear(self.instance, &self.name, &self.paths);
    }

    fn bring_up(&self, limit: Duration) -> Result<StartVm, LifeError> {
        let Some(identity) = self.pool.identity else {
            return Err(LifeError::Gone(self.directory.name().to_owned()));
        };
        let owners = Owners::foreign(self.pool.foreign);
        let write = !self.launch.read_only;
        let pool = OpenPool::of_cluster(&self.pool.path, write, owners, identity)?;
        pool.hold()?;
        let keeper = self.step(|vm| {
            let keeper = self.launch.keeper(self.instance, &pool)?;
            vm.keeper = Some(self.launch.started(keeper.pid())?);
            Ok(keeper)
        })?;
        let mut backend = self.step(|vm| {
            let backend = self.launch.backend(self.instance, &pool)?;
            if let Some(backend) = &backend {
                vm.backend = Some(self.launch.started(backend.pid())?);
            }
            Ok(backend)
        })?;
        if let Some(backend) = &mut backend {
            self.launch.watch(&keeper, backend.pid())?;
            self.launch.wait_listening(backend)?;
        }
        let device = self.step(|_| Ok(self.launch.root_device(self.instance)?))?;
        let launch = self.launch.on_device(device)?;
        let machine = self.step(|vm| {
            let machine = launch.machine(self.instance, &pool)?;
            vm.qemu = Some(self.launch.started(machine.pid())?);
            Ok(machine)
        })?;
        self.launch.watch(&keeper, machine.pid())?;
        let begun = Instant::now();
        machine.wait_started().map_err(Box::new)?;
        let ready = match self.before.mount {
            true => machine.wait_ready(limit),
            false => machine.wait_up(limit),
        };
        let ready = ready.map_err(Box::new)?;
        if let Some(command) = self.before.health() {
            health::wait(&machine, command, begun, limit).map_err(PartError::from)?;
        }
        let mounted = matches!(ready.attach, Attach::Mounted { .. });
        let boot_ms = u64::try_from(ready.boot.as_millis()).unwrap_or(u64::MAX);
        // Before its supervisor runs, which ends if the user has stopped the VM.
        self.step(|vm| {
            vm.stopped = None;
            Ok(())
        })?;
        self.step(|vm| {
            let mut course = self.course();
            self.go_on(*course)?;
            vm.booted = Some(Booted { boot_ms, mounted });
            (vm.starting, vm.given_up) = (None, None);
            if !vm.supervisor.is_some_and(Process::is_alive) {
                vm.supervisor =
                    self.launch.supervisor(self.instance, self.directory.name(), limit)?;
            }
            *course = Course::Done;
            Ok(())
        })?;
        machine.leave();
        if let Some(backend) = backend {
            backend.leave();
        }
        let boot_seconds = ready.boot.as_secs_f64();
        Ok(StartVm { name: self.name.clone(), mounted, boot_seconds })
    }

    /// Changes the state of the VM, while it is this process that starts it.
    fn step<T>(
        &self,
        work: impl FnOnce(&mut VmState) -> Result<T, LifeError>,
    ) -> Result<T, LifeError> {
        change(self.directory, Some(self.instance), |state| {
            let vm = own_vm(state, &self.name)?;
            if vm.starting != Some(self.me) {
                return Err(LifeError::Stopped(self.name.clone()));
            }
            self.go_on(*self.course())?;
            work(vm)
        })
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if the user has interrupted the start.
    fn go_on(&self, course: Course) -> Result<(), LifeError> {
        match course {
            Course::Interrupted => Err(LifeError::Interrupted(self.name.clone())),
            Course::Runs | Course::Done => Ok(()),
        }
    }

    /// Ends what was started; the VM is as it was before. The first error is the one to report.
    pub fn undo(&self) {
        let _ = change(self.directory, Some(self.instance), |state| {
            let vm = own_vm(state, &self.name)?;
            // Another command may have stopped it, and even started it again.
            if vm.starting == Some(self.me) {
                clear(self.instance, &self.name, &self.paths)?;
                *vm = self.before.clone();
            }
            Ok(())
        });
    }
}
