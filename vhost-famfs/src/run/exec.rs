// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `exec`.

use std::io::{self, Read};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use signal_hook::consts::SIGPIPE;

use super::notice;
use super::screen::Screen;
use vhost_famfs::args::ExecConfig;
use vhost_famfs::cluster::host::runtime_dir;
use vhost_famfs::cluster::{find, running_vm, state_of};
use vhost_famfs::vm::{Begin, Command, ExecError, Guest, Status, Streams};

/// Exit code if the command was not run, as in other programs that run commands (env(1), docker).
const NOT_RUN: u8 = 125;

/// Added to the number of the signal that ended a command, as shells do.
const SIGNALLED: i32 = 128;

pub(super) fn run(config: ExecConfig) -> Result<ExitCode> {
    match status(config) {
        Ok(Status::Code(code)) => Ok(exit_code(code)),
        Ok(Status::Signal(signal)) => Ok(exit_code(SIGNALLED + signal)),
        Err(error) => {
            notice(format_args!("{error:#}"));
            Ok(ExitCode::from(NOT_RUN))
        }
    }
}

fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn status(config: ExecConfig) -> Result<Status> {
    let directory = find(&runtime_dir()?, config.cluster.as_deref())?;
    let state = state_of(&directory)?;
    let channel = running_vm(&state, &directory, &config.vm)?.channel;
    let mut command = Command::new(config.command);
    if let Some(workdir) = config.workdir {
        command = command.workdir(workdir);
    }
    if let Some(user) = config.user {
        command = command.user(user);
    }
    let mut raw = None;
    let (mut sizes, mut begin): (_, Option<Begin<'_>>) = (None, None);
    if config.tty {
        let screen = Screen::look()?;
        let kind = std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned());
        command = command.tty(screen.size).env("TERM", kind);
        sizes = Some(screen.sizes);
        // Until the guest takes the keys, Ctrl-C ends this process.
        begin = Some(Box::new(|| {
            raw = Some(screen.before.make_raw()?);
            Ok(())
        }));
    }
    for (name, value) in config.env {
        command = command.env(name, value);
    }
    let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
    let input: Option<Box<dyn Read + Send>> = match config.stdin {
        true => Some(Box::new(io::stdin())),
        false => None,
    };
    let streams = Streams { input, sizes, begin, stdout: &mut stdout, stderr: &mut stderr };
    let name = &config.vm;
    let of_vm = || format!("VM {name}");
    let mut guest =
        Guest::on_free_port(&directory.vm(name), channel, config.timeout).with_context(of_vm)?;
    match guest.stream(&command, streams, config.timeout) {
        Err(ExecError::Timeout { limit, .. }) => bail!(
            "VM {name}: the guest did not accept the command within {limit:?}; see `vhost-famfs \
             logs {name}` for what it does"
        ),
        // Like a program that writes to a closed pipe.
        Err(ExecError::Output { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
            Ok(Status::Signal(SIGPIPE))
        }
        result => result.with_context(of_vm),
    }
}
