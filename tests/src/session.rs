// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests in the form of a session: boot once, check many things, shut down.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::interrupt;

/// Runs scenarios and counts their checks. Its output has the form of the standard test harness.
#[derive(Debug)]
pub struct Session {
    filters: Vec<String>,
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Session {
    /// A session whose filters are the arguments of the command line. If there are any, only
    /// scenarios whose names contain one of them are run. `SCENARIO/PART` runs only these parts of
    /// the scenario.
    ///
    /// # Errors
    /// Signals cannot be caught.
    pub fn from_args() -> Result<Self> {
        interrupt::listen()?;
        interrupt::follow_parent()?;
        let filters = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
        Ok(Self { filters, passed: 0, failed: 0, skipped: 0 })
    }

    /// Runs a scenario: a few boots and the checks on them. An error of the scenario itself (such
    /// as a VM that does not boot) counts as one failed check.
    pub fn scenario(&mut self, name: &str, run: impl FnOnce(&mut Self) -> Result<()>) {
        let chosen = |word: &String| {
            let scenario = word.split_once('/').map_or(word.as_str(), |(scenario, _)| scenario);
            name.contains(scenario)
        };
        let wanted = self.filters.is_empty() || self.filters.iter().any(chosen);
        if !wanted || interrupt::seen() {
            return;
        }
        let start = Instant::now();
        println!("-- {name}");
        if let Err(error) = run(self) {
            self.fail(name, &error);
        }
        println!("-- {name}: {:.1} s", start.elapsed().as_secs_f64());
    }

    /// Whether to run a part of a scenario on which no other part depends.
    pub fn wants(&self, label: &str) -> bool {
        let of_parts = |word: &&String| word.contains('/');
        self.filters.iter().filter(of_parts).count() == 0
            || self.filters.iter().any(|word| label.contains(word.as_str()))
    }

    /// Runs one check.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        match interrupt::check().and_then(|()| check()) {
            Ok(()) => {
                println!("test {name} ... ok");
                self.passed += 1;
            }
            Err(error) => self.fail(name, &error),
        }
    }

    fn fail(&mut self, name: &str, error: &anyhow::Error) {
        if !interrupt::seen() {
            println!("test {name} ... FAILED\n{error:#}");
        }
        self.failed += 1;
    }

    /// Counts checks that are not possible on this host, and prints the reason.
    pub fn skip(&mut self, name: &str, reason: &str) {
        println!("test {name} ... ignored, {reason}");
        self.skipped += 1;
    }

    /// Takes over the results of a program that printed TAP (Test Anything Protocol): each
    /// test point is a check. A program that does not keep its own plan fails.
    pub fn tap(&mut self, program: &str, text: &str) {
        let mut seen = 0;
        let mut planned = None;
        for line in text.lines() {
            let (passed, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
                (Some(rest), _) => (true, rest),
                (_, Some(rest)) => (false, rest),
                _ => {
                    planned = line.strip_prefix("1..").and_then(|n| n.parse().ok()).or(planned);
                    if line.starts_with('#') {
                        println!("{line}");
                    }
                    continue;
                }
            };
            seen += 1;
            let name = rest.split_once(" - ").map_or(rest, |(_, name)| name);
            self.check(&format!("{program}: {name}"), || {
                anyhow::ensure!(passed, "{line}");
                Ok(())
            });
        }
        if planned != Some(seen) {
            let planned = planned.map_or_else(|| "no plan".to_owned(), |n: u64| n.to_string());
            println!("test {program} ... FAILED\nplanned {planned}, {seen} test points:\n{text}");
            self.failed += 1;
        }
    }

    /// Prints the counts at the end.
    pub fn finish(&self) -> ExitCode {
        if interrupt::seen() {
            return ExitCode::from(interrupt::INTERRUPTED);
        }
        let ok = self.failed == 0 && (self.passed > 0 || !self.filters.is_empty());
        println!(
            "\ntest result: {}. {} passed; {} failed; {} ignored",
            if ok { "ok" } else { "FAILED" },
            self.passed,
            self.failed,
            self.skipped
        );
        if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::Session;

    fn session() -> Session {
        Session { filters: Vec::new(), passed: 0, failed: 0, skipped: 0 }
    }

    #[test]
    fn errors_are_failures() {
        let mut session = session();
        session.scenario("one", |s| {
            s.check("good", || Ok(()));
            s.check("bad", || anyhow::bail!("no"));
            anyhow::bail!("and the scenario too")
        });
        assert_eq!((session.passed, session.failed), (1, 2));
    }

    #[test]
    fn filters_choose_scenarios_and_their_parts() {
        let mut session = session();
        session.filters = vec!["pmem/storm".to_owned()];
        session.scenario("devdax", |_| anyhow::bail!("not this one"));
        session.scenario("pmem", |s| {
            s.check("reached", || Ok(()));
            Ok(())
        });
        assert_eq!((session.passed, session.failed), (1, 0));
        assert!(session.wants("pmem/storm") && !session.wants("pmem/fuzz"));
        session.filters = vec!["pmem".to_owned()];
        assert!(session.wants("pmem/fuzz"));
    }

    #[test]
    fn tap_must_keep_its_plan() {
        let mut complete = session();
        complete.tap("p", "TAP version 13\n1..2\nok 1 - a\n# note\nnot ok 2 - b\n");
        assert_eq!((complete.passed, complete.failed), (1, 1));
        let mut crashed = session();
        crashed.tap("p", "1..2\nok 1 - a\n");
        assert_eq!((crashed.passed, crashed.failed), (1, 1));
        let mut silent = session();
        silent.tap("p", "");
        assert_eq!((silent.passed, silent.failed), (0, 1));
    }
}
