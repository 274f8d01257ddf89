// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Describes the machine of a run, so that figures can be interpreted later.

use std::env;
use std::fs;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{exec, paths};

/// The command line and the machine.
pub fn describe() -> Result<Value> {
    let uname = rustix::system::uname();
    let commit = Command::new("git")
        .args(["-C"])
        .arg(paths::root())
        .args(["describe", "--always", "--dirty"])
        .output();
    Ok(json!({
        "command": env::args().collect::<Vec<_>>(),
        "commit": commit.map_or_else(|_| String::new(), |out| {
            String::from_utf8_lossy(&out.stdout).trim().to_owned()
        }),
        "kernel": uname.release().to_string_lossy(),
        "cpu": field("/proc/cpuinfo", "model name")?,
        "cpus": thread::available_parallelism().context("cannot count CPUs")?.get(),
        "memory": field("/proc/meminfo", "MemTotal")?,
        "load": fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?.trim(),
        "rustc": exec::output(Command::new("rustc").arg("--version"))?,
    }))
}

/// The value of the first `name: value` line of a file in /proc.
fn field(path: &str, name: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_once(':'))
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default())
}
