// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The run of a suite: how thorough it is, and its counts.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use vm_tests::{Artifacts, interrupt};

use super::output::Output;
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
    /// Whether another suite runs at the same time.
    pub beside: bool,
    /// What it prints.
    pub output: Output,
    /// The counts so far.
    pub tally: Tally,
}

impl Run {
    /// A run of what `args` choose, with empty counts.
    pub fn new(args: &TestArgs, beside: bool, output: Output) -> Self {
        let (all, only) = (args.all, args.only.clone());
        Self { all, only, beside, output, tally: Tally::default() }
    }

    /// Counts a check by its result.
    pub fn report(&mut self, name: &str, checked: Result<()>) {
        match checked {
            Ok(()) => {
                self.output.say(&format!("check {name} ... ok"));
                self.tally.pass();
            }
            Err(error) => {
                self.output.say(&format!("check {name} ... FAILED\n{error:#}"));
                self.tally.fail(name, &format!("{error:#}"));
            }
        }
    }

    /// Counts a check that is not possible here, and says the reason.
    pub fn skip(&mut self, name: &str, reason: &str) {
        self.output.say(&format!("check {name} ... skipped: {reason}"));
        self.tally.skipped += 1;
    }

    /// Runs a checking program, which itself prints what is wrong; it counts as one test.
    pub fn lint(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let mut child = self.output.run(command.stdin(Stdio::null()), |_| ())?;
        let status = child.wait().context("cannot wait")?;
        if status.success() {
            self.output.say(&format!("check {name} ... ok"));
            self.tally.pass();
        } else if interrupt::seen_after_failure() {
            bail!("check {name}: interrupted");
        } else {
            self.output.say(&format!("check {name} ... FAILED"));
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
            .stdin(Stdio::null());
        let failed_before = self.tally.failed;
        let tally = &mut self.tally;
        let mut child = self.output.run(&mut command, |line| tally.read_line(line))?;
        self.tally.failures.end_program();
        let status = child.wait().context("cannot wait for cargo")?;
        if !status.success() && self.tally.failed == failed_before {
            let name = format!("cargo test {}", args.join(" "));
            self.output.say(&format!("{name}: {status}"));
            self.tally.fail(&name, &status.to_string());
        }
        Ok(())
    }
}
