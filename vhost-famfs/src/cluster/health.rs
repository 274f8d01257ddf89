// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether what a VM is for works: the health command of the cluster file succeeds in the guest.

use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::vm::{Command, ExecError, Guest, Output, Vm, VmError};

/// Longest time for one run of the command while a VM starts, and the pause before the next run.
const RUN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);

/// How many characters of what the command says to keep: a guest may send anything.
const MOST_SAID: usize = 200;

/// What one run of a health command showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether it succeeded.
    pub healthy: bool,
    /// Why it did not, on one line.
    pub said: Option<String>,
}

/// A VM that is not healthy, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The command has not succeeded in time.
    #[error(
        "VM {vm}: the guest is up, but its health command did not succeed within {limit:?}: \
         {command}: {said}; see `vhost-famfs logs`, or allow more time with --timeout"
    )]
    Unhealthy {
        /// The VM.
        vm: String,
        /// The command.
        command: String,
        /// How its last run ended.
        said: String,
        /// How much time it had.
        limit: Duration,
    },
    /// The VM has ended.
    #[error(transparent)]
    Vm(#[from] Box<VmError>),
}

/// Runs the command in a guest that is up until it succeeds. `begun` is when the VM was started,
/// which has `limit` for all of its start.
///
/// # Errors
/// It does not succeed in time, or the VM has ended.
pub fn wait(vm: &Vm, command: &str, begun: Instant, limit: Duration) -> Result<(), HealthError> {
    let left = || limit.saturating_sub(begun.elapsed());
    loop {
        // A guest that came up in the last moment has one run nevertheless.
        let said = match vm.exec(&shell(command), left().clamp(PAUSE, RUN)) {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => describe(&output),
            Err(VmError::Exec { source, .. }) => on_one_line(&source.to_string()),
            Err(error) => return Err(Box::new(error).into()),
        };
        if left() <= PAUSE {
            let (vm, command) = (vm.name().to_owned(), command.to_owned());
            return Err(HealthError::Unhealthy { vm, command, said, limit });
        }
        thread::sleep(PAUSE);
    }
}

/// Runs the command once in the guest of another program's VM; `None` if the guest does not answer
/// within `limit`.
pub fn look(guest: &mut Guest, command: &str, limit: Duration) -> Option<Health> {
    match guest.exec(&shell(command), limit) {
        Ok(output) if output.status.success() => Some(Health { healthy: true, said: None }),
        Ok(output) => Some(Health { healthy: false, said: Some(describe(&output)) }),
        // It was accepted, so the guest has answered.
        Err(error @ (ExecError::Refused { .. } | ExecError::Timeout { .. })) => {
            Some(Health { healthy: false, said: Some(on_one_line(&error.to_string())) })
        }
        Err(_) => None,
    }
}

/// Every guest has this shell.
fn shell(command: &str) -> Command {
    Command::new(["sh", "-c", command])
}

/// How a run ended, and the last line that it wrote.
fn describe(output: &Output) -> String {
    let said = [&output.stderr, &output.stdout].map(|bytes| String::from_utf8_lossy(bytes));
    let last = said.iter().find_map(|text| text.lines().rfind(|line| !line.trim().is_empty()));
    match last {
        Some(line) => format!("{}: {}", output.status, on_one_line(line.trim())),
        None => output.status.to_string(),
    }
}

fn on_one_line(text: &str) -> String {
    text.chars().take(MOST_SAID).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use protocol::exec::Status;

    use super::*;

    fn output(status: Status, stdout: &str, stderr: &str) -> Output {
        Output { status, stdout: stdout.into(), stderr: stderr.into() }
    }

    #[test]
    fn the_last_line_is_told_and_errors_come_first() {
        let told = |out, err| describe(&output(Status::Code(7), out, err));
        assert_eq!(told("", ""), "exit code 7");
        assert_eq!(told("one\ntwo\n\n", " \n"), "exit code 7: two");
        assert_eq!(told("one\n", "first\n no route \n"), "exit code 7: no route");
        assert_eq!(describe(&output(Status::Signal(9), "", "")), "signal 9");
    }

    #[test]
    fn what_a_guest_writes_controls_no_terminal() {
        let text = format!("\x1b[31mred{}", "x".repeat(2 * MOST_SAID));
        let told = describe(&output(Status::Code(1), &text, ""));
        assert!(told.starts_with("exit code 1: \\u{1b}[31mred"), "{told}");
        assert!(told.len() < MOST_SAID + 30, "{told}");
    }
}
