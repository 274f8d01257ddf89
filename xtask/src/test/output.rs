// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the output of a suite goes: to this program's own, or, of a suite that runs beside another
//! one, into memory until both can be told apart.

use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result};
use vm_tests::interrupt;

/// The output of a suite.
#[derive(Debug, Default)]
pub enum Output {
    /// Printed at once.
    #[default]
    Direct,
    /// Kept until the suite has ended.
    Kept(String),
}

impl Output {
    /// Says a line, or several.
    pub fn say(&mut self, text: &str) {
        match self {
            Self::Direct => println!("{text}"),
            Self::Kept(kept) => {
                kept.push_str(text);
                kept.push('\n');
            }
        }
    }

    /// Prints what was kept.
    pub fn print(&self) {
        if let Self::Kept(kept) = self {
            print!("{kept}");
        }
    }

    /// Runs a command to its end and says what it prints; `each` sees the lines of its standard
    /// output.
    pub fn run(&mut self, command: &mut Command, mut each: impl FnMut(&str)) -> Result<Child> {
        let (lines, stdout) = io::pipe().context("no pipe")?;
        command.stdout(stdout);
        let errors = match self {
            Self::Direct => None,
            Self::Kept(_) => {
                let (errors, stderr) = io::pipe().context("no pipe")?;
                command.stderr(stderr);
                Some(errors)
            }
        };
        let child = interrupt::spawn(command)?;
        // The command has ends of the pipes for writing, too, which must be closed.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let errors = errors.map(|pipe| thread::spawn(move || everything(pipe)));
        // Whether it comes to its end or not, what it says is read.
        for line in BufReader::new(lines).lines() {
            let line = line.context("cannot read what a command prints")?;
            self.say(&line);
            each(&line);
        }
        if let Some(errors) = errors {
            let text = errors.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.say(text.context("cannot read the errors of a command")?.trim_end());
        }
        Ok(child)
    }
}

fn everything(mut pipe: PipeReader) -> io::Result<String> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_has_both_streams_and_only_one_is_read() {
        let mut output = Output::Kept(String::new());
        output.say("before");
        let mut seen = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo wrong >&2; echo two; exit 3"]);
        let mut child = output.run(&mut command, |line| seen.push(line.to_owned())).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(3));
        assert_eq!(seen, ["one", "two"]);
        let Output::Kept(text) = output else { panic!("kept") };
        assert_eq!(text, "before\none\ntwo\nwrong\n");
    }
}
