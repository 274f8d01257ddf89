// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests `console` on a terminal created by script(1).

use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vhost_famfs::vm::shell_quoted;

use super::program::{Program, until};

const LIMIT: Duration = Duration::from_secs(120);

/// How long a command in the guest's shell may take.
const ANSWER: Duration = Duration::from_secs(30);

/// A terminal that runs a shell script; a file has the contents of its screen.
pub struct Terminal {
    script: Child,
    screen: tempfile::NamedTempFile,
}

impl Terminal {
    /// Starts a script in which `$PROGRAM` is `vhost-famfs`.
    pub fn start(program: &Program<'_>, script: &str) -> Result<Self> {
        let screen = tempfile::NamedTempFile::new().context("no temporary file")?;
        let program = program.command(&[]);
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", script, "/dev/null"]);
        command.env("PROGRAM", shell_quoted(&[program.get_program().into()]));
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::piped()).stdout(File::create(screen.path())?);
        Ok(Self { script: command.spawn().context("cannot run script")?, screen })
    }

    pub fn types(&mut self, keys: &[u8]) -> Result<()> {
        Ok(self.script.stdin.as_mut().context("no keyboard")?.write_all(keys)?)
    }

    pub fn shows(&self, text: &str) -> Result<()> {
        until(text, LIMIT, || self.has(text)).with_context(|| self.screen())
    }

    pub fn screen(&self) -> String {
        format!("the screen: {:?}", fs::read_to_string(self.screen.path()))
    }

    /// Types a command until the shell shows this.
    pub fn answers(&mut self, command: &str, text: &str) -> Result<()> {
        let before = self.count(text)?;
        let answer = until(text, LIMIT, || {
            self.types(format!("{command}\r").as_bytes())?;
            Ok(until(text, ANSWER, || Ok(self.count(text)? > before)).is_ok())
        });
        answer.with_context(|| self.screen())
    }

    fn has(&self, text: &str) -> Result<bool> {
        Ok(self.count(text)? > 0)
    }

    fn count(&self, text: &str) -> Result<usize> {
        let screen = fs::read(self.screen.path())?;
        Ok(String::from_utf8_lossy(&screen).matches(text).count())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// Uses the shell on a VM's console, leaves it with its key, and then by a signal.
pub fn check(program: &Program<'_>, vm: &str) -> Result<()> {
    // The signal must come after the console has changed the terminal: wait for that, and at most
    // until it waits for input.
    let script = format!(
        "before=$(stty -g); $PROGRAM console {vm}; echo code $?
         [ \"$before\" = \"$(stty -g)\" ] && echo restored by key
         timeout --foreground --preserve-status 2 $PROGRAM console {vm}; echo code $?
         [ \"$before\" = \"$(stty -g)\" ] && echo restored by signal"
    );
    let mut terminal = Terminal::start(program, &script)?;
    terminal.shows(&format!("Console of {vm}; press Ctrl-] to leave."))?;
    // Characters typed before the terminal is raw would be shown twice; that does no harm. Those
    // typed before the guest's shell reads may be discarded, and are typed again.
    terminal.answers("echo answer $((6 * 7))", "answer 42")?;
    terminal.types(b"echo sleeps $((6 * 8)); sleep 1000\r")?;
    terminal.shows("sleeps 48")?;
    // The interrupt must reach the guest: it ends the guest's command, but not the terminal's
    // script. If it comes before that command has the guest's terminal, it is typed again; whatever
    // is typed before the next prompt may be discarded.
    let prompt = format!("root@{vm}:");
    let answers = until("the shell answers again", LIMIT, || {
        let before = terminal.count(&prompt)?;
        terminal.types(b"\x03")?;
        if until("the prompt", ANSWER, || Ok(terminal.count(&prompt)? > before)).is_err() {
            return Ok(false);
        }
        terminal.types(b"echo awake $((6 * 9))\r")?;
        Ok(until("the answer", ANSWER, || terminal.has("awake 54")).is_ok())
    });
    answers.with_context(|| terminal.screen())?;
    terminal.types(b"\x1d")?;
    terminal.shows("Left the console; the VM keeps running.")?;
    terminal.shows("restored by key")?;
    terminal.shows("restored by signal")?;
    let status = terminal.script.wait()?;
    ensure!(status.success(), "the terminal's script: {status}");
    program.shell(vm, "true").map(drop)
}
