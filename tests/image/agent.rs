// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent's own process.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vhost_famfs::vm::{Command, Output};
use vm_tests::{Node, Session};

const LIMIT: Duration = Duration::from_secs(180);

/// If an answer does not come within this time, it never comes.
const SOON: Duration = Duration::from_secs(5);

/// Runs with any VM.
pub fn comes_back(session: &mut Session, node: &Node) {
    session.check("an agent that is killed comes back", || {
        let first = agent(node, LIMIT)?;
        // It cannot report the end of the command that kills it.
        let kill = || -> Result<Output> {
            Ok(node.vm.exec(&Command::shell("kill -KILL $PPID; sleep 60"), SOON)?)
        };
        let killed = kill();
        ensure!(killed.is_err(), "{killed:?}");
        let start = Instant::now();
        loop {
            match agent(node, SOON) {
                Ok(second) if second != first => return Ok(()),
                // A busy guest did not get that far in time.
                Ok(_) if start.elapsed() < LIMIT => drop(kill()),
                other if start.elapsed() > LIMIT => {
                    anyhow::bail!("the agent was process {first}, and now: {other:?}")
                }
                _ => {}
            }
        }
    });
}

/// The process that runs commands.
fn agent(node: &Node, limit: Duration) -> Result<String> {
    let output = node.vm.exec(&Command::shell("echo $PPID"), limit)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
