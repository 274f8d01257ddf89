// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Batch mode: runs the command of the credential `famfs.run`, then powers off.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use guest::given;
use protocol::attach::Attach;
use protocol::credentials::RUN;
use protocol::exec::{Reply, Status};
use rustix::process::Signal;

use crate::outlet::Outlet;
use crate::pool::Pool;
use crate::sys;

/// The shell, if the image has one.
const SHELL: &str = "/usr/bin/bash";

/// Exists once the command has been started, and has its result once it has ended. On a file system
/// that a new boot empties.
const MARK: &str = "/run/famfs-run";

/// How long to wait for the host to receive the result before powering off.
const LISTEN: Duration = Duration::from_secs(10);

/// Pause between two checks.
const STEP: Duration = Duration::from_millis(20);

/// A shell's exit code for a command that it cannot run.
const CANNOT_RUN: i32 = 127;

/// The result of the command, once it has ended.
#[derive(Clone, Default)]
pub struct Batch {
    ran: Arc<Mutex<Option<Status>>>,
}

impl Batch {
    /// Runs the command, if there is one, once the pool is mounted (or if there is no pool); then
    /// calls `power_off`.
    pub fn start(pool: Pool, outlet: Outlet, power_off: impl FnOnce() + Send + 'static) -> Self {
        let batch = Self::default();
        if let Some(command) = given::credentials().remove(RUN) {
            let batch = batch.clone();
            thread::spawn(move || {
                batch.run(&command, &pool, &outlet);
                power_off();
            });
        }
        batch
    }

    /// How the command ended.
    pub fn ran(&self) -> Option<Status> {
        *self.ran.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, command: &str, pool: &Pool, outlet: &Outlet) {
        while pool.attach() == Attach::Pending {
            thread::sleep(STEP);
        }
        let status = match pool.attach() {
            Attach::Failed { .. } => {
                eprintln!(
                    "appliance-agent: {RUN}={command:?}: not run, because the pool is not mounted"
                );
                Status::Code(CANNOT_RUN)
            }
            _ => once(Path::new(MARK), || execute(command)).unwrap_or_else(|error| {
                eprintln!("appliance-agent: {RUN}={command:?}: not run: {MARK}: {error}");
                Status::Code(CANNOT_RUN)
            }),
        };
        println!("appliance-agent: {RUN}: {status}");
        *self.ran.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
        // A host that greets from now on gets the result together with the greeting.
        let start = Instant::now();
        while !outlet.announce(&Reply::Ran { status }) && start.elapsed() < LISTEN {
            thread::sleep(STEP);
        }
    }
}

/// Runs the command, unless an earlier agent has started it; then the result is what it recorded.
/// Without a record, the command was killed: it ends with the agent.
fn once(mark: &Path, run: impl FnOnce() -> Status) -> io::Result<Status> {
    match File::create_new(mark) {
        Ok(_) => {
            let status = run();
            fs::write(mark, serde_json::to_vec(&status)?)?;
            Ok(status)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let recorded = serde_json::from_slice(&fs::read(mark)?);
            Ok(recorded.unwrap_or_else(|_| {
                eprintln!("appliance-agent: {RUN}: the agent ended, and with it the command");
                Status::Signal(Signal::KILL.as_raw())
            }))
        }
        Err(error) => Err(error),
    }
}

/// Runs a command to completion; its output goes to the console.
fn execute(command: &str) -> Status {
    let mut program = if Path::new(SHELL).exists() {
        let mut shell = Command::new(SHELL);
        shell.args(["-c", command]);
        shell
    } else {
        let mut words = command.split_ascii_whitespace();
        let mut program = Command::new(words.next().unwrap_or_default());
        program.args(words);
        program
    };
    sys::prepare(&mut program, sys::Setup::default());
    match program.stdin(Stdio::null()).status() {
        Ok(status) => as_reported(status),
        Err(error) => {
            eprintln!("appliance-agent: {RUN}={command:?}: {error}");
            Status::Code(CANNOT_RUN)
        }
    }
}

/// An exit status in the protocol's form.
pub fn as_reported(status: ExitStatus) -> Status {
    match (status.code(), status.signal()) {
        (Some(code), _) => Status::Code(code),
        (None, signal) => Status::Signal(signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_is_started_again_does_not_run_the_command_again() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        assert_eq!(once(&mark, || execute("exit 3")).unwrap(), Status::Code(3));
        let again = || -> Status { panic!("it has run") };
        assert_eq!(once(&mark, again).unwrap(), Status::Code(3));
        fs::write(&mark, "").unwrap();
        assert_eq!(once(&mark, again).unwrap(), Status::Signal(9));
        assert!(once(Path::new("/nonexistent/mark"), again).is_err());
    }

    #[test]
    fn the_exit_status_is_the_command_s() {
        assert_eq!(execute("exit 3"), Status::Code(3));
        assert_eq!(execute("kill -9 $$"), Status::Signal(9));
        assert_eq!(execute("/nonexistent"), Status::Code(127));
    }
}
