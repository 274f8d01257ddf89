// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starts the process of a command.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use protocol::exec::Exec;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::sys;
use crate::terminal::Terminal;
use crate::user::User;

/// Exit codes for commands that were not run, as in shells (POSIX, "Exit Status for Commands").
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// A process and the agent's ends of its streams.
pub struct Started {
    pub child: Child,
    pub stdin: Option<Box<dyn Write + Send>>,
    pub stdout: Option<Box<dyn Read + Send>>,
    pub stderr: Option<Box<dyn Read + Send>>,
    /// Its terminal, if it has one; all streams are that.
    pub terminal: Option<Terminal>,
}

/// Why a command was not run.
pub struct NotRun {
    /// Its exit code; `None` if the guest is the reason, not the command.
    pub code: Option<i32>,
    /// The reason, for people.
    pub reason: String,
}

/// Starts a command.
pub fn spawn(exec: &Exec) -> Result<Started, NotRun> {
    let not_executable = |reason| NotRun { code: Some(NOT_EXECUTABLE), reason };
    let [program, arguments @ ..] = &exec.argv[..] else {
        return Err(NotRun { code: None, reason: "no program to run".into() });
    };
    let user = exec.user.as_deref().map(User::find).transpose().map_err(not_executable)?;
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(user) = &user {
        command.env("HOME", &user.home);
        for variable in ["USER", "LOGNAME"] {
            match &user.name {
                Some(name) => command.env(variable, name),
                None => command.env_remove(variable),
            };
        }
    }
    command.envs(&exec.env);
    let workdir = exec.workdir.as_deref().map(|path| {
        let no_directory = |error| not_executable(format!("cannot enter {path}: {error}"));
        CString::new(path).map_err(|error| no_directory(io::Error::other(error)))
    });
    let workdir = workdir.transpose()?;
    let failed = |error: io::Error| NotRun {
        code: not_run(&error),
        reason: format!("cannot run {program}: {error}"),
    };
    // An error of a child does not say what it was about.
    let not_entered = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|errno| failed(errno.into()))?;
    let told = not_entered.try_clone().map_err(failed)?;
    let failed =
        |error: io::Error| match (&exec.workdir, rustix::io::read(&not_entered, &mut [0; 8])) {
            (Some(path), Ok(_)) => not_executable(format!("cannot enter {path}: {error}")),
            _ => failed(error),
        };
    let mut setup = sys::Setup { user, workdir, not_entered: Some(told), ..Default::default() };
    let no_terminal = |error: io::Error| not_executable(format!("cannot make a terminal: {error}"));
    let Some(size) = exec.tty else {
        command.stdin(if exec.stdin { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        setup.pipes = if exec.stdin { &[0, 1, 2] } else { &[1, 2] };
        sys::prepare(&mut command, setup);
        let mut child = command.spawn().map_err(failed)?;
        return Ok(Started {
            stdin: child.stdin.take().map(|pipe| Box::new(pipe) as _),
            stdout: child.stdout.take().map(|pipe| Box::new(pipe) as _),
            stderr: child.stderr.take().map(|pipe| Box::new(pipe) as _),
            child,
            terminal: None,
        });
    };
    let owner = setup.user.as_ref().map(|user| user.uid);
    let (terminal, commands) = Terminal::open(size, owner).map_err(no_terminal)?;
    let clone = |end: &OwnedFd| end.try_clone().map(File::from).map_err(no_terminal);
    command.stdin(clone(&commands)?).stdout(clone(&commands)?).stderr(clone(&commands)?);
    setup.terminal = Some(commands);
    sys::prepare(&mut command, setup);
    Ok(Started {
        child: command.spawn().map_err(failed)?,
        stdin: exec.stdin.then(|| Box::new(terminal.clone()) as _),
        stdout: Some(Box::new(terminal.output())),
        stderr: None,
        terminal: Some(terminal),
    })
}

/// The exit code for a program that cannot be run; `None` if the program is not the reason.
fn not_run(error: &io::Error) -> Option<i32> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Some(NOT_FOUND),
        io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => Some(NOT_EXECUTABLE),
        _ => (error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error())).then_some(NOT_EXECUTABLE),
    }
}
