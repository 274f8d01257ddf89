// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where replies go: whole lines, of the current session only.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use appliance::exec::{self, Reply};

/// A way to send replies, shared by all threads.
#[derive(Clone)]
pub struct Outlet {
    state: Arc<Mutex<State>>,
}

struct State {
    port: Box<dyn Write + Send>,
    /// Number of the session that is open; nothing of another one is sent.
    session: Option<u64>,
}

impl Outlet {
    /// Replies go to `port`, once a session is open.
    pub fn new(port: impl Write + Send + 'static) -> Self {
        Self { state: Arc::new(Mutex::new(State { port: Box::new(port), session: None })) }
    }

    /// Changes the session.
    pub fn set_session(&self, session: Option<u64>) {
        self.state().session = session;
    }

    /// Sends a reply of one session.
    pub fn send(&self, session: u64, reply: &Reply) {
        let mut state = self.state();
        if state.session == Some(session) {
            state.write(reply);
        }
    }

    /// Sends what concerns whichever session is open.
    pub fn announce(&self, reply: &Reply) {
        let mut state = self.state();
        if state.session.is_some() {
            state.write(reply);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, reply: &Reply) {
        let written =
            exec::encode(reply).map_err(Into::into).and_then(|line| self.port.write_all(&line));
        if let Err(error) = written {
            eprintln!("appliance-agent: cannot reply to the host: {error}");
        }
    }
}
