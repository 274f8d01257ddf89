// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Counts tests by adding up what a run printed.

use std::fmt;

use super::failures::Failures;

/// How many tests passed, failed and were skipped.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, and suites that could not run.
    pub failed: u64,
    /// Tests that were not run; each printed the reason.
    pub skipped: u64,
    /// The messages of the failed tests.
    pub failures: Failures,
}

impl Tally {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.passed + self.failed + self.skipped == 0
    }

    /// Adds another count.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.append(&other.failures);
    }

    /// Counts a test that passed.
    pub fn pass(&mut self) {
        self.passed += 1;
    }

    /// Counts a test that failed or could not run, and keeps its message.
    pub fn fail(&mut self, name: &str, said: &str) {
        self.failed += 1;
        self.failures.add(name, said);
    }

    /// Adds the counts of a line with which a libtest harness closes a test binary: `test result:
    /// ok. 3 passed; 0 failed; 1 ignored; ...`. Other lines do not count; those about failed tests
    /// are kept as their messages.
    pub fn read_line(&mut self, line: &str) {
        self.failures.read_line(line);
        let Some((_, counts)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn reads_the_closing_line_of_libtest() {
        let mut tally = Tally::default();
        tally.read_line("test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s");
        tally.read_line("test result: ok. 4 passed; 0 failed; 0 ignored");
        tally.read_line("test passed ... ok");
        assert_eq!((tally.passed, tally.failed, tally.skipped), (7, 2, 1));
        assert_eq!(tally.to_string(), "7 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn failures_go_with_the_counts() {
        let mut tally = Tally::default();
        tally.pass();
        tally.fail("rustfmt", "exit status: 1");
        let mut total = Tally::default();
        total.add(&tally);
        assert_eq!(total.to_string(), "1 passed, 1 failed, 0 skipped");
        assert!(total.failures.to_string().contains("rustfmt\n   exit status: 1\n"));
    }
}
