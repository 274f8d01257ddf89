// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs a crate's own benchmark on the host. It prints one JSON object per line.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::Measurement;
use super::measurement::Better;
use crate::build;

/// One line that a benchmark prints.
#[derive(Deserialize)]
struct Line {
    id: String,
    what: String,
    unit: String,
    value: f64,
    peer: String,
    peer_value: f64,
    lower_is_better: bool,
    goal: f64,
}

/// Runs the benchmark `name` of a package in an optimised build.
pub fn run(package: &str, name: &str) -> Result<Vec<Measurement>> {
    let mut bench: Command = build::cargo();
    let output = bench
        .args(["bench", "--quiet", "-p", package, "--bench", name])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo bench -p {package} --bench {name}: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let read = |line: &str| {
        let line: Line =
            serde_json::from_str(line).with_context(|| format!("no measurement: {line}"))?;
        let better = if line.lower_is_better { Better::Lower } else { Better::Higher };
        let peer = (line.peer.as_str(), line.peer_value);
        let goal = (better, line.goal);
        Ok(Measurement::new(&line.id, &line.what, &line.unit, line.value, peer, goal))
    };
    text.lines().filter(|line| line.starts_with('{')).map(read).collect()
}
