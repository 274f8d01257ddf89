// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Connects the terminal to the serial console of a VM.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::raw::Raw;
use vhost_famfs::host::signals;

/// Ctrl-], as in telnet: ends the connection.
pub const ESCAPE: u8 = 0x1d;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The VM has ended.
    Vm,
    /// The user left, or a signal asked this program to stop.
    User,
}

/// Connects the terminal to a console until either ends.
///
/// # Errors
/// The console, or standard input or output, cannot be used.
pub fn attach(socket: &Path) -> io::Result<End> {
    let mut console = UnixStream::connect(socket)?;
    // Catch signals before changing the terminal: from then on, a signal makes this function
    // return, which restores it. In raw mode, Ctrl-C is a character, not a signal.
    let stop = signals::stop_requests()?;
    let raw = Raw::enter()?;
    let (stdin, mut stdout) = (io::stdin(), io::stdout());
    let (mut listening, mut buffer) = (true, [0; 4096]);
    loop {
        let (from_vm, stopped, from_user) = {
            let mut fds = vec![
                PollFd::from_borrowed_fd(console.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
            ];
            if listening {
                fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
            (ready(0), ready(1), ready(2))
        };
        if stopped {
            return Ok(End::User);
        }
        if from_vm {
            match console.read(&mut buffer) {
                Ok(0) => return Ok(End::Vm),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(End::Vm),
                count => {
                    stdout.write_all(&buffer[..count?])?;
                    stdout.flush()?;
                }
            }
        }
        if from_user {
            // Bypass the library's buffer: poll does not see its contents.
            let count = rustix::io::read(&stdin, &mut buffer)?;
            let typed = &buffer[..count];
            let escape = typed.iter().position(|byte| *byte == ESCAPE).filter(|_| raw.is_some());
            console.write_all(&typed[..escape.unwrap_or(count)])?;
            if escape.is_some() {
                return Ok(End::User);
            }
            // The piped input has been sent; answers may still come.
            listening = count > 0;
        }
    }
}
