// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The pseudo-terminal of a command (pty(7)).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use protocol::exec::Size;
use rustix::fs::fchown;
use rustix::process::Uid;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Makes a terminal; returns the agent's end and the command's end, which belongs to `owner`.
pub fn open(size: Size, owner: Option<Uid>) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let agents = openpt(flags)?;
    unlockpt(&agents)?;
    let commands = ioctl_tiocgptpeer(&agents, flags)?;
    resize(&agents, size)?;
    fchown(&commands, owner, None)?;
    Ok((agents, commands))
}

/// Changes the size; the kernel tells the programs that use the terminal (SIGWINCH).
pub fn resize(terminal: impl AsFd, size: Size) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}
