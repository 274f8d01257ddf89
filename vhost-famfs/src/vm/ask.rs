// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Questions to other programs, as `--version`.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::MemfdFlags;

use super::deadline::Deadline;

/// How long an answer may take, on a busy host.
const LIMIT: Duration = Duration::from_secs(30);

/// How much of an answer is read, in bytes: far more than any has.
const MOST: u64 = 1 << 20;

/// Runs a program with one argument and returns what it writes to its standard output, whatever its
/// exit code.
///
/// # Errors
/// It does not start, or has not ended within half a minute ([`io::ErrorKind::TimedOut`]).
pub(super) fn ask(program: &Path, argument: &str) -> io::Result<String> {
    within(LIMIT, program, argument)
}

fn within(limit: Duration, program: &Path, argument: &str) -> io::Result<String> {
    // A file: with a pipe, an answer that is too long for it would have to be read meanwhile.
    let mut answer = File::from(rustix::fs::memfd_create("answer", MemfdFlags::CLOEXEC)?);
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null()).stdout(answer.try_clone()?).stderr(Stdio::null());
    let mut child = command.spawn()?;
    if Deadline::after(limit).poll(|| child.try_wait())?.is_none() {
        child.kill()?;
        child.wait()?;
        let seconds = limit.as_secs();
        let silent = format!("it has not ended after {seconds} s");
        return Err(io::Error::new(io::ErrorKind::TimedOut, silent));
    }
    answer.rewind()?;
    let mut bytes = Vec::new();
    answer.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_a_program_says() {
        assert_eq!(ask(Path::new("echo"), "yes").unwrap(), "yes\n");
        let error = ask(Path::new("/nowhere/program"), "-h").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_program_that_never_answers_is_ended() {
        let error = within(Duration::from_millis(50), Path::new("sleep"), "1000").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("has not ended"), "{error}");
    }
}
