// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sends replies: whole lines, and only those of the current session.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::exec::{self, Reply};

/// A way to send replies, shared by all threads.
#[derive(Clone)]
pub struct Outlet {
    state: Arc<Mutex<State>>,
}

struct State {
    port: Box<dyn Write + Send>,
    /// Number of the open session; replies of other sessions are not sent.
    session: Option<u64>,
}

impl Outlet {
    /// Sends replies to `port` once a session is open.
    pub fn new(port: impl Write + Send + 'static) -> Self {
        Self { state: Arc::new(Mutex::new(State { port: Box::new(port), session: None })) }
    }

    /// Sends later replies to another port.
    pub fn move_to(&self, port: impl Write + Send + 'static) {
        self.state().port = Box::new(port);
    }

    /// Opens a session with a greeting, on a line of its own even if an earlier agent ended in the
    /// middle of a message. The greeting is created and sent before any other reply, so changes
    /// that happen after it was created follow it.
    pub fn open(&self, session: u64, greeting: impl FnOnce() -> Reply) {
        let mut state = self.state();
        state.session = Some(session);
        state.write(b"\n", &greeting());
    }

    /// Sends a reply outside any session.
    pub fn tell(&self, reply: &Reply) {
        self.state().write(b"", reply);
    }

    /// Ends the session.
    pub fn close(&self) {
        self.state().session = None;
    }

    /// Sends a reply of one session.
    pub fn send(&self, session: u64, reply: &Reply) {
        let mut state = self.state();
        if state.session == Some(session) {
            state.write(b"", reply);
        }
    }

    /// Sends a reply to whichever session is open; `false` if none is.
    pub fn announce(&self, reply: &Reply) -> bool {
        let mut state = self.state();
        if state.session.is_some() {
            state.write(b"", reply);
        }
        state.session.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, before: &[u8], reply: &Reply) {
        let written = exec::encode(reply)
            .map_err(Into::into)
            .and_then(|line| self.port.write_all(&[before, &line].concat()));
        if let Err(error) = written {
            eprintln!("appliance-agent: cannot reply to the host: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::attach::Attach;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    struct Port(mpsc::Sender<Vec<u8>>);

    impl Write for Port {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The host drops everything before the greeting, so a change of the pool's state must not come
    /// there.
    #[test]
    fn nothing_comes_between_a_greeting_and_its_state() {
        let (sender, written) = mpsc::channel();
        let outlet = Outlet::new(Port(sender));
        let greeting = Reply::Refused { id: None, reason: "stands for a greeting".into() };
        let change = Reply::Attach { attach: Attach::Mounted { uptime_ms: 1, took_ms: 0 } };
        thread::scope(|scope| {
            outlet.open(1, || {
                scope.spawn(|| outlet.announce(&change));
                assert!(
                    written.recv_timeout(Duration::from_millis(100)).is_err(),
                    "a reply overtook the greeting"
                );
                greeting.clone()
            });
        });
        let replies: Vec<Reply> =
            written.try_iter().map(|line| exec::decode(&line).unwrap()).collect();
        assert_eq!(replies, [greeting, change]);
    }
}
