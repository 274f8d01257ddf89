// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The pseudo-terminal of a command (pty(7)).

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use protocol::exec::Size;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::fchown;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::Uid;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// How much is read after the command has ended, in bytes: more than the kernel keeps for a
/// terminal. Programs that remain in the background may write for ever.
const REST: usize = 64 * 1024;

/// The agent's end of a terminal, for several threads. The kernel hangs up the terminal when the
/// last of them drops it.
#[derive(Clone)]
pub struct Terminal(Arc<Ends>);

struct Ends {
    agents: OwnedFd,
    /// Keeps the terminal alive while no process of the command has it open.
    _commands: OwnedFd,
    /// Readable once the command has ended.
    ended: OwnedFd,
}

impl Terminal {
    /// Makes a terminal; also returns the command's end, which belongs to `owner`.
    pub fn open(size: Size, owner: Option<Uid>) -> io::Result<(Self, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let agents = openpt(flags)?;
        unlockpt(&agents)?;
        let commands = ioctl_tiocgptpeer(&agents, flags)?;
        fchown(&commands, owner, None)?;
        ioctl_fionbio(&agents, true)?;
        let ended = eventfd(0, EventfdFlags::CLOEXEC)?;
        let terminal = Self(Arc::new(Ends { agents, _commands: commands.try_clone()?, ended }));
        terminal.resize(size)?;
        Ok((terminal, commands))
    }

    /// Changes the size; the kernel tells the programs that use the terminal (SIGWINCH).
    pub fn resize(&self, size: Size) -> io::Result<()> {
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&self.0.agents, size)?)
    }

    /// The command has ended: reads return what is left, and then nothing; writes fail.
    pub fn end(&self) -> io::Result<()> {
        Ok(rustix::io::write(&self.0.ended, &1u64.to_ne_bytes()).map(drop)?)
    }

    /// What the terminal shows.
    pub fn output(&self) -> Output {
        Output { terminal: self.clone(), rest: REST }
    }

    /// Waits until the terminal is ready or the command has ended; returns whether it has ended.
    fn wait(&self, ready: PollFlags) -> io::Result<bool> {
        let mut fds =
            [PollFd::new(&self.0.agents, ready), PollFd::new(&self.0.ended, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => Ok(!fds[1].revents().is_empty()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Typed characters.
impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if self.wait(PollFlags::OUT)? {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            match rustix::io::write(&self.0.agents, bytes) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads what a terminal shows.
pub struct Output {
    terminal: Terminal,
    /// How much may still be read after the command has ended.
    rest: usize,
}

impl Read for Output {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let ended = self.terminal.wait(PollFlags::IN)?;
            let most = if ended { self.rest.min(bytes.len()) } else { bytes.len() };
            match rustix::io::read(&self.terminal.0.agents, &mut bytes[..most]) {
                Ok(count) => {
                    self.rest -= if ended { count } else { 0 };
                    return Ok(count);
                }
                Err(Errno::AGAIN) if ended => return Ok(0),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
