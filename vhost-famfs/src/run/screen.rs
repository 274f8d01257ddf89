// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The user's terminal while a command in a guest has it.

use std::io;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use anyhow::{Context, Result};
use rustix::termios::tcgetwinsize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::raw::Raw;
use vhost_famfs::vm::Size;

/// The terminal, in raw mode until dropped. A signal that ends this process restores it first.
pub struct Screen {
    /// Its size at the start.
    pub size: Size,
    _raw: Raw,
}

impl Screen {
    /// Takes the terminal; the second value is its later sizes.
    pub fn take() -> Result<(Self, Receiver<Size>)> {
        // Before the terminal changes, so that no signal ends this process in between.
        let mut signals = Signals::new([SIGWINCH, SIGHUP, SIGINT, SIGQUIT, SIGTERM])
            .context("cannot catch signals")?;
        let raw = Raw::enter().context("cannot change the terminal")?;
        let raw = raw.context(
            "--tty needs a terminal, and standard input is not one; leave --tty out, or run this \
             in a terminal",
        )?;
        let size = size_now().context("cannot ask the terminal for its size")?;
        let (sender, sizes) = mpsc::channel();
        let before = raw.before();
        thread::spawn(move || {
            for signal in signals.forever() {
                if signal == SIGWINCH {
                    // Nobody asks any more once the command has ended.
                    let _ = size_now().map(|size| sender.send(size));
                } else {
                    before.restore();
                    let _ = emulate_default_handler(signal);
                }
            }
        });
        Ok((Self { size, _raw: raw }, sizes))
    }
}

fn size_now() -> io::Result<Size> {
    let size = tcgetwinsize(io::stdin())?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}
