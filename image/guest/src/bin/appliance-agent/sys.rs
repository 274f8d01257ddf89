// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a child does between fork(2) and execve(2).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use crate::user::User;

/// Has a command run in a session of its own with this terminal, and as this user.
pub fn prepare(command: &mut Command, terminal: Option<OwnedFd>, user: Option<User>) {
    let act = move || -> io::Result<()> {
        if let Some(terminal) = &terminal {
            setsid()?;
            ioctl_tiocsctty(terminal)?;
        }
        if let Some(user) = &user {
            // The child has one thread, so these are its process's.
            set_thread_groups(&user.groups)?;
            set_thread_gid(user.gid)?;
            set_thread_uid(user.uid)?;
        }
        Ok(())
    };
    // SAFETY: `act` makes system calls with values that exist already: it allocates no memory and
    // takes no lock.
    unsafe { command.pre_exec(act) };
}
