// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The user's terminal in raw mode: every key goes to the guest.

use std::io::{self, IsTerminal};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Keeps the terminal on standard input in raw mode until dropped.
pub struct Raw(Before);

/// The state of the terminal before that.
#[derive(Clone)]
pub struct Before(Termios);

impl Raw {
    /// `None` if standard input is not a terminal.
    pub fn enter() -> io::Result<Option<Self>> {
        Before::now()?.map(Before::make_raw).transpose()
    }
}

impl Before {
    /// The present state; `None` if standard input is not a terminal.
    pub fn now() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        Ok(Some(Self(tcgetattr(&stdin)?)))
    }

    /// Changes the terminal.
    pub fn make_raw(self) -> io::Result<Raw> {
        let mut raw = self.0.clone();
        raw.make_raw();
        // At once: a terminal that the user has stopped would be waited for.
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw(self))
    }

    /// Brings that state back.
    pub fn restore(&self) {
        // What was a terminal may be gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.0.restore();
    }
}
