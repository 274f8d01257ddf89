// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a child does between fork(2) and execve(2).
#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::fchown;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, chdir, getpid, getppid, ioctl_tiocsctty, set_parent_process_death_signal, setsid,
};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use crate::user::User;

/// What a child sets up before it executes a program.
#[derive(Default)]
pub struct Setup {
    /// The terminal of its session.
    pub terminal: Option<OwnedFd>,
    /// Whom it runs as.
    pub user: Option<User>,
    /// The standard streams that are its own pipes, and so belong to that user.
    pub pipes: &'static [i32],
    /// The directory to enter as that user.
    pub workdir: Option<CString>,
    /// Gets a value if that directory cannot be entered.
    pub not_entered: Option<OwnedFd>,
}

/// Has a command set this up, and end with the thread that starts it.
pub fn prepare(command: &mut Command, setup: Setup) {
    let agent = getpid();
    // SAFETY: `Setup::apply` makes system calls with values that exist already: it allocates no
    // memory and takes no lock.
    unsafe { command.pre_exec(move || Ok(setup.apply(agent)?)) };
}

impl Setup {
    fn apply(&self, agent: Pid) -> rustix::io::Result<()> {
        if let Some(terminal) = &self.terminal {
            setsid()?;
            ioctl_tiocsctty(terminal)?;
        }
        if let Some(user) = &self.user {
            for stream in self.pipes {
                // SAFETY: the child's standard streams are open until it executes a program.
                let stream = unsafe { BorrowedFd::borrow_raw(*stream) };
                fchown(stream, Some(user.uid), None)?;
            }
            // The child has one thread, so these are its process's.
            set_thread_groups(&user.groups)?;
            set_thread_gid(user.gid)?;
            set_thread_uid(user.uid)?;
        }
        if let Some(workdir) = &self.workdir
            && let Err(error) = chdir(workdir)
        {
            if let Some(event) = &self.not_entered {
                rustix::io::write(event, &1u64.to_ne_bytes())?;
            }
            return Err(error);
        }
        // A change of the user would clear it.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        match getppid() {
            Some(parent) if parent == agent => Ok(()),
            // The agent ended before that.
            _ => Err(Errno::SRCH),
        }
    }
}
