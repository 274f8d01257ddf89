// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Shell scripts in a guest.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vhost_famfs::vm::{Command, Output, Status};
use vm_tests::Node;

/// A script in the guest, under emulation on a busy host.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Runs a script, which must succeed.
pub fn run(node: &Node, script: &str) -> Result<Output> {
    node.run(&Command::shell(script), LIMIT)
}

/// Runs a script that prints JSON.
pub fn json(node: &Node, script: &str) -> Result<Value> {
    let output = run(node, script)?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("'{script}' printed no JSON"))
}

/// Runs a script, which must end with this exit code; returns all its output.
pub fn refused(node: &Node, script: &str, code: i32) -> Result<String> {
    let output = node.vm.exec(&Command::shell(script), LIMIT)?;
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    ensure!(output.status == Status::Code(code), "'{script}': {}: {text}", output.status);
    Ok(text)
}
