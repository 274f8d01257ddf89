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

use super::raw::Before;
use vhost_famfs::vm::Size;

/// The terminal. A signal that ends this process restores it first.
pub struct Screen {
    /// Its size at the start.
    pub size: Size,
    /// Its state at the start.
    pub before: Before,
    /// Its later sizes.
    pub sizes: Receiver<Size>,
}

impl Screen {
    /// Looks at the terminal, without changing it.
    pub fn look() -> Result<Self> {
        // Before the terminal changes, so that no signal ends this process in between.
        let mut signals = Signals::new([SIGWINCH, SIGHUP, SIGINT, SIGQUIT, SIGTERM])
            .context("cannot catch signals")?;
        let state = Before::now().context("cannot ask the terminal for its state")?;
        let state = state.context(
            "--tty needs a terminal, and standard input is not one; leave --tty out, or run this \
             in a terminal",
        )?;
        let size = size_now().context("cannot ask the terminal for its size")?;
        let (sender, sizes) = mpsc::channel();
        let before = state.clone();
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
        Ok(Self { size, before: state, sizes })
    }
}

fn size_now() -> io::Result<Size> {
    let size = tcgetwinsize(io::stdin())?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}
