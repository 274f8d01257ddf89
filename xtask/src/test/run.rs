// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The run of a suite: how thorough it is, and its counts.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use vm_tests::{Artifacts, interrupt};

use super::tally::Tally;
use crate::args::TestArgs;
use crate::{build, paths};

/// A run, passed to everything that checks something.
#[derive(Debug, Default)]
pub struct Run {
    /// Whether to run tests that are too slow for continuous integration.
    pub all: bool,
    /// The parts of the suite to run; empty for all.
    pub only: Vec<String>,
    /// The counts so far.
    pub tally: Tally,
}

impl Run {
    /// A run of what `args` choose, with empty counts.
    pub fn new(args: &TestArgs) -> Self {
        Self { all: args.all, only: args.only.clone(), tally: Tally::default() }
    }

    /// Counts a check by its result.
    pub fn report(&mut self, name: &str, checked: Result<()>) {
        match checked {
            Ok(()) => {
                println!("check {name} ... ok");
                self.tally.pass();
            }
            Err(error) => {
                println!("check {name} ... FAILED\n{error:#}");
                self.tally.fail(name, &format!("{error:#}"));
            }
        }
    }

    /// Runs a checking program, which itself prints what is wrong; it counts as one test.
    pub fn lint(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let mut child = interrupt::spawn(command.stdin(Stdio::null()))?;
        let status = child.wait().context("cannot wait")?;
        if status.success() {
            println!("check {name} ... ok");
            self.tally.pass();
        } else if interrupt::seen_after_failure() {
            bail!("check {name}: interrupted");
        } else {
            println!("check {name} ... FAILED");
            self.tally.fail(name, &status.to_string());
        }
        Ok(())
    }

    /// Runs `cargo test` with `args`, shows its output and counts its tests. A run that fails
    /// without a failed test (it does not compile, it crashed) counts as one failure.
    pub fn cargo_test(&mut self, args: &[&str]) -> Result<()> {
        let mut command = build::cargo();
        command
            .args(["test", "--no-fail-fast"])
            .args(args)
            .env(Artifacts::VARIABLE, paths::target().join("artifacts.json"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = interrupt::spawn(&mut command)?;
        let failed_before = self.tally.failed;
        let stdout = child.stdout.take().context("cargo has no standard output")?;
        // Whether it comes to its end or not, what it says is read.
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read what cargo prints")?;
            println!("{line}");
            self.tally.read_line(&line);
        }
        self.tally.failures.end_program();
        let status = child.wait().context("cannot wait for cargo")?;
        if !status.success() && self.tally.failed == failed_before {
            let name = format!("cargo test {}", args.join(" "));
            println!("{name}: {status}");
            self.tally.fail(&name, &status.to_string());
        }
        Ok(())
    }
}
