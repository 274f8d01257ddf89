// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A command for a guest, and what it left.

use std::collections::BTreeMap;

use protocol::exec::{Exec, Request, Size, Status};

/// Maximum length of a command in a message.
const MAX_SHOWN: usize = 120;

/// A command for a guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command {
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    stdin: Vec<u8>,
    tty: Option<Size>,
    workdir: Option<String>,
    user: Option<String>,
}

impl Command {
    /// A program (searched for in the guest's `PATH`) and its arguments.
    pub fn new<W: Into<String>>(argv: impl IntoIterator<Item = W>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// A script for the guest's `bash`; it ends at the first command that fails.
    #[must_use]
    pub fn shell(script: &str) -> Self {
        Self::new(["bash", "-euo", "pipefail", "-c", script])
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Gives it a terminal of this size.
    #[must_use]
    pub fn tty(self, size: Size) -> Self {
        Self { tty: Some(size), ..self }
    }

    /// Sets the directory to run it in.
    #[must_use]
    pub fn workdir(self, directory: impl Into<String>) -> Self {
        Self { workdir: Some(directory.into()), ..self }
    }

    /// Sets whom to run it as: `NAME|UID[:GROUP|GID]`. The guest looks the names up.
    #[must_use]
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..self }
    }

    /// The command in the form of a request.
    pub(super) fn request(&self, id: u64, stdin: bool) -> Request {
        let Self { argv, env, stdin: _, tty, workdir, user } = self.clone();
        Request::Exec(Exec { id, argv, env, stdin, tty, workdir, user })
    }

    /// Its standard input, if all of it is known.
    pub(super) fn input(&self) -> &[u8] {
        &self.stdin
    }

    /// Sets its standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }
}

/// The command for messages: its first line, truncated to `MAX_SHOWN` characters.
impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = self.argv.join(" ");
        let shown: String =
            whole.trim_start().chars().take_while(|&c| c != '\n').take(MAX_SHOWN).collect();
        let rest = if shown.len() < whole.trim().len() { "..." } else { "" };
        write!(f, "{shown}{rest}")
    }
}

/// The output of a command, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: Status,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_on_one_short_line() {
        let table = [
            (Command::new(["cat", "/mnt/famfs/ä b"]), "cat /mnt/famfs/ä b".to_owned()),
            (Command::new(["sh", "-c", "one\ntwo"]), "sh -c one...".to_owned()),
            (Command::new(["x".repeat(1000)]), "x".repeat(MAX_SHOWN) + "..."),
        ];
        for (command, expected) in table {
            assert_eq!(command.to_string(), expected);
        }
    }
}
