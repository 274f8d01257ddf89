// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Repeats the messages of failed tests at the end of a run: the log of all suites is long, and
//! often only its end is shown.

use std::fmt;

/// How many lines of a failed test to keep; the log has all of them.
const MOST_LINES: usize = 30;

/// A failed test.
#[derive(Clone, Debug)]
struct Failure {
    suite: String,
    name: String,
    said: Vec<String>,
}

/// The failed tests of a run, in the order in which they failed.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    list: Vec<Failure>,
    /// Index of the first failure of the test program that is being read.
    program: usize,
    /// The failure whose message is being read.
    open: Option<usize>,
}

impl Failures {
    /// Adds a failed test with its message.
    pub fn add(&mut self, name: &str, said: &str) {
        self.list.push(Failure { suite: String::new(), name: name.to_owned(), said: Vec::new() });
        let last = self.list.len() - 1;
        said.lines().for_each(|line| self.say(last, line));
    }

    /// Adds the failures of another run.
    pub fn append(&mut self, other: &Self) {
        self.list.extend_from_slice(&other.list);
        self.end_program();
    }

    /// Sets the suite of all failures that have none yet.
    pub fn set_suite(&mut self, suite: &str) {
        for failure in self.list.iter_mut().filter(|failure| failure.suite.is_empty()) {
            suite.clone_into(&mut failure.suite);
        }
    }

    /// Reads a line of a test program's output. Our programs print what is wrong directly after
    /// `test NAME ... FAILED`. libtest prints it at the end, in sections that begin with `---- NAME
    /// stdout ----`; libtest-mimic's sections begin with `---- NAME ----`, and it pads names with
    /// spaces.
    pub fn read_line(&mut self, line: &str) {
        let section = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" ----"));
        let section = section.map(|name| name.strip_suffix(" stdout").unwrap_or(name));
        if let Some(name) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED")) {
            // Not part of the name in the section's heading.
            let name = name.strip_suffix(" - should panic").unwrap_or(name).trim_end();
            self.open = Some(self.find_or_add(name));
        } else if let Some(name) = section {
            self.open = Some(self.find_or_add(name));
        } else if line.starts_with("test result: ") {
            self.end_program();
        } else if line == "failures:" || line.starts_with("-- ") || is_outcome(line) {
            self.open = None;
        } else if let Some(index) = self.open {
            self.say(index, line);
        }
    }

    /// All following lines belong to another program, which may have tests with the same names.
    pub fn end_program(&mut self) {
        self.open = None;
        self.program = self.list.len();
    }

    fn find_or_add(&mut self, name: &str) -> usize {
        let of_program = &self.list[self.program..];
        match of_program.iter().position(|failure| failure.name == name) {
            Some(position) => self.program + position,
            None => {
                self.add(name, "");
                self.list.len() - 1
            }
        }
    }

    fn say(&mut self, index: usize, line: &str) {
        let said = &mut self.list[index].said;
        if said.len() < MOST_LINES && !(said.is_empty() && line.is_empty()) {
            said.push(line.to_owned());
        }
    }
}

/// Whether a line reports how a test ended; a message can begin with the same word.
fn is_outcome(line: &str) -> bool {
    line.starts_with("test ") && line.contains(" ... ")
}

/// Empty if nothing failed.
impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.list.is_empty() {
            writeln!(f, "== failed")?;
        }
        for Failure { suite, name, said } in &self.list {
            writeln!(f, "-- {suite}: {name}")?;
            let end = said.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
            for line in &said[..end] {
                writeln!(f, "{}", format!("   {line}").trim_end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Failures, MOST_LINES};

    fn read(text: &str) -> Failures {
        let mut failures = Failures::default();
        text.lines().for_each(|line| failures.read_line(line));
        failures.set_suite("s");
        failures
    }

    #[test]
    fn nothing_failed() {
        let failures = read("running 1 test\ntest a ... ok\n\ntest result: ok. 1 passed; 0 failed");
        assert_eq!(failures.to_string(), "");
    }

    #[test]
    fn libtest_says_it_in_sections() {
        let failures = read(
            "running 3 tests\ntest one ... FAILED\ntest two - should panic ... FAILED\n\
             test three ... ok\n\nfailures:\n\n---- one stdout ----\n\nthread 'one' panicked\nleft: 1\n\n\
             ---- two stdout ----\nnote: it did not panic\n\nfailures:\n    one\n    two\n\n\
             test result: FAILED. 1 passed; 2 failed\n\nrunning 1 test\ntest one ... FAILED\n",
        );
        let expected = "== failed\n-- s: one\n   thread 'one' panicked\n   left: 1\n\
                        -- s: two\n   note: it did not panic\n-- s: one\n";
        assert_eq!(failures.to_string(), expected);
    }

    #[test]
    fn mimic_says_it_in_sections_without_a_word_for_the_stream() {
        let failures = read(
            "running 2 tests\ntest one   ... FAILED\ntest three ... ok\n\nfailures:\n\n---- one ----\n\
             test panicked: left: 1\n\n\nfailures:\n    one\n\ntest result: FAILED. 1 passed; 1 failed\n",
        );
        assert_eq!(failures.to_string(), "== failed\n-- s: one\n   test panicked: left: 1\n");
    }

    #[test]
    fn sessions_say_it_at_once() {
        let failures = read(
            "-- boot\ntest the guest is up ... ok\ntest it is fast ... FAILED\nVM one: 3 s\n\nat most 2 s\n\
             test it is small ... ok\n# a note\n-- boot: 3.0 s\ntest boot ... FAILED\nno VM\n-- boot: 1 s\n\
             test result: FAILED. 2 passed; 2 failed; 0 ignored\nerror: 1 target failed\n",
        );
        let expected =
            "== failed\n-- s: it is fast\n   VM one: 3 s\n\n   at most 2 s\n-- s: boot\n   no VM\n";
        assert_eq!(failures.to_string(), expected);
    }

    #[test]
    fn suites_keep_their_names_and_texts_are_cut() {
        let mut failures = read("test long ... FAILED\n");
        failures.add("clippy", &"line\n".repeat(MOST_LINES + 9));
        failures.set_suite("t");
        let mut all = Failures::default();
        all.append(&failures);
        let text = all.to_string();
        assert!(text.starts_with("== failed\n-- s: long\n-- t: clippy\n   line\n"), "{text}");
        assert_eq!(text.lines().count(), 3 + MOST_LINES);
    }
}
