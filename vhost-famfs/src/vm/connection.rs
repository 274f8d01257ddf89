// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A session with a guest's agent, on one connection. What is sent to a guest is lost if its agent
//! ends before it reads it, so this end asks again until it hears that it was not.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::attach::Attach;
use protocol::exec::{self, Reply, Request, Status};
use protocol::line::Lines;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use uuid::Uuid;

use super::command::Command;
use super::exec_error::{ExecError, Failure};
use super::wait::Wait;

/// Maximum number of questions that are unanswered at a time: more than a guest gets before its
/// silence is an error.
const MOST_QUESTIONS: u32 = 100;

/// Sends whole requests, from any thread.
#[derive(Debug, Clone)]
pub(super) struct Sender(Arc<Mutex<UnixStream>>);

impl Sender {
    /// Sends a request, however long the guest takes.
    pub(super) fn send(&self, request: &Request) -> io::Result<()> {
        let line = exec::encode(request)?;
        self.stream().write_all(&line)
    }

    /// Sends a short request if that is possible at once; returns whether it was. It is not while
    /// the guest does not read.
    fn offer(&self, request: &Request) -> io::Result<bool> {
        let line = exec::encode(request)?;
        // Another thread that sends holds the lock, and waits for the guest as this one would.
        let Ok(stream) = self.0.try_lock() else { return Ok(false) };
        match send(&*stream, &line, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) if count < line.len() => Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Ends the connection, and so the command.
    pub(super) fn close(&self) {
        // Fails only if the connection has ended already.
        let _ = self.stream().shutdown(Shutdown::Both);
    }

    fn stream(&self) -> MutexGuard<'_, UnixStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How to make sure that the guest still has what it was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Pause between two greetings, or two questions for the session.
    pub(super) step: Duration,
    /// How long a guest that has greeted may leave such questions unanswered. Longer than any busy
    /// host lets a guest wait.
    pub(super) silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { step: Duration::from_secs(5), silence: Duration::from_secs(300) }
    }
}

/// The agent's message at the start of a session.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    pub(super) boot_id: String,
    pub(super) uptime_ms: u64,
    pub(super) attach: Attach,
    pub(super) ran: Option<Status>,
}

/// An open session.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    sender: Sender,
    lines: Lines,
    session: String,
    hello: Option<Hello>,
    last_id: u64,
    patience: Patience,
    /// Since when a question for the session is unanswered.
    asked: Option<Instant>,
    /// Number of such questions.
    questions: u32,
}

impl Connection {
    /// Starts a session without waiting. The guest answers once it is up.
    pub(super) fn open(stream: UnixStream, patience: Patience) -> io::Result<Self> {
        let sender = Sender(Arc::new(Mutex::new(stream.try_clone()?)));
        // The line feed ends a message that an earlier host left incomplete.
        (&stream).write_all(b"\n")?;
        let connection = Self {
            stream,
            sender,
            lines: Lines::default(),
            session: Uuid::new_v4().to_string(),
            hello: None,
            last_id: 0,
            patience,
            asked: None,
            questions: 0,
        };
        connection.sender.send(&connection.greeting())?;
        Ok(connection)
    }

    fn greeting(&self) -> Request {
        Request::Hello { version: exec::VERSION, session: self.session.clone() }
    }

    /// Waits for the answer to the first message.
    pub(super) fn greeted(&mut self, wait: &Wait<'_>) -> Result<&Hello, Failure> {
        while self.hello.is_none() {
            self.receive(wait)?;
        }
        self.hello.as_ref().ok_or_else(|| Failure::Exec(wait.timeout()))
    }

    /// Waits for news of the guest; there is none if the agent was started again, and must be
    /// greeted.
    pub(super) fn listen(&mut self, wait: &Wait<'_>) -> Result<(), Failure> {
        match self.receive(wait) {
            Err(Failure::Exec(ExecError::Restarted | ExecError::Lost)) => {
                self.hello = None;
                self.offer(&self.greeting()).map(drop)
            }
            result => result.map(drop),
        }
    }

    /// Asks for a command; returns its id once the guest has accepted it. It does not run yet.
    pub(super) fn ask(
        &mut self,
        command: &Command,
        stdin: bool,
        wait: &Wait<'_>,
    ) -> Result<u64, Failure> {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&command.request(id, stdin), wait)?;
        loop {
            match self.receive(wait)? {
                Some(Reply::Accepted { id: of }) if of == id => return Ok(id),
                Some(Reply::Refused { id: of, reason }) if of.is_none_or(|of| of == id) => {
                    let command = command.to_string();
                    return Err(ExecError::Refused { command, reason }.into());
                }
                // Of an earlier command that did not wait for its input.
                Some(Reply::Taken { id: of, .. }) if of < id => {}
                Some(other) => return Err(ExecError::Protocol(format!("{other:?}")).into()),
                None => {}
            }
        }
    }

    /// A handle for other threads, which only send, however long the guest takes.
    pub(super) fn sender(&self) -> io::Result<Sender> {
        self.stream.set_write_timeout(None)?;
        Ok(self.sender.clone())
    }

    pub(super) fn send(&mut self, request: &Request, wait: &Wait<'_>) -> Result<(), Failure> {
        self.stream.set_write_timeout(Some(wait.left()?)).map_err(Failure::Io)?;
        self.sender.send(request).map_err(|error| io_failure(error, wait))
    }

    fn offer(&self, request: &Request) -> Result<bool, Failure> {
        match self.sender.offer(request) {
            // The guest has ended. What it sent before is still to be read; then a read finds the
            // end.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(false)
            }
            offered => offered.map_err(Failure::Io),
        }
    }

    /// Receives the next message. Greetings, answers to questions and changes of the pool's state
    /// are recorded, not returned; messages of an earlier session are ignored.
    pub(super) fn receive(&mut self, wait: &Wait<'_>) -> Result<Option<Reply>, Failure> {
        loop {
            let line = self.line(wait)?;
            match self.take(line)? {
                Some(Reply::Pong { .. }) if self.questions > 0 => self.questions -= 1,
                reply => return Ok(reply),
            }
        }
    }

    /// Waits for a line that is not empty.
    fn line(&mut self, wait: &Wait<'_>) -> Result<Result<Vec<u8>, String>, Failure> {
        loop {
            match self.lines.next_line() {
                // It ends what an earlier agent left incomplete.
                Some(Ok(line)) if line.is_empty() => {}
                Some(line) => return Ok(line.map_err(|error| error.to_string())),
                None => self.read(wait)?,
            }
        }
    }

    /// Records what a line says about the guest; returns what it says about commands.
    fn take(&mut self, line: Result<Vec<u8>, String>) -> Result<Option<Reply>, Failure> {
        let reply = line.and_then(|line| {
            if exec::says_started(&line) {
                return Ok(Reply::Started {});
            }
            exec::decode::<Reply>(&line).map_err(|error| error.to_string())
        });
        match reply {
            Ok(Reply::Hello { version, session, boot_id, uptime_ms, attach, ran })
                if session == self.session =>
            {
                if version != exec::VERSION {
                    let expected = exec::VERSION;
                    return Err(ExecError::Version { found: version, expected }.into());
                }
                self.hello = Some(Hello { boot_id, uptime_ms, attach, ran });
                Ok(None)
            }
            // The greeting may have gone to the agent before.
            Ok(Reply::Started {}) if self.hello.is_none() => {
                self.offer(&self.greeting()).map(|_| None)
            }
            // Everything else before the greeting belongs to an earlier session.
            _ if self.hello.is_none() => Ok(None),
            Ok(Reply::Pong { session }) if session.as_ref() != Some(&self.session) => {
                Err(ExecError::Lost.into())
            }
            Ok(Reply::Attach { attach: new }) => {
                if let Some(hello) = &mut self.hello {
                    hello.attach = new;
                }
                Ok(None)
            }
            Ok(Reply::Ran { status }) => {
                if let Some(hello) = &mut self.hello {
                    hello.ran = Some(status);
                }
                Ok(None)
            }
            Ok(Reply::Started {}) => Err(ExecError::Restarted.into()),
            Ok(reply) => Ok(Some(reply)),
            Err(error) => Err(ExecError::Protocol(error).into()),
        }
    }

    /// Reads what there is. If there is nothing for a while, asks the guest.
    fn read(&mut self, wait: &Wait<'_>) -> Result<(), Failure> {
        let limit = wait.left()?.min(self.patience.step);
        self.stream.set_read_timeout(Some(limit)).map_err(Failure::Io)?;
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(ExecError::Ended.into()),
            Ok(count) => {
                self.lines.push(&bytes[..count]);
                self.asked = None;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if is_timeout(&error) => self.wonder(),
            Err(error) => Err(io_failure(error, wait)),
        }
    }

    /// Asks a silent guest for the session, or greets it again if it has not greeted.
    fn wonder(&mut self) -> Result<(), Failure> {
        if self.hello.is_none() {
            return self.offer(&self.greeting()).map(drop);
        }
        let since = *self.asked.get_or_insert_with(Instant::now);
        if since.elapsed() > self.patience.silence {
            return Err(ExecError::Silent(self.patience.silence).into());
        }
        if self.questions < MOST_QUESTIONS && self.offer(&Request::Ping {})? {
            self.questions += 1;
        }
        Ok(())
    }
}

/// Another thread may hold the stream; the guest must learn of the end nevertheless.
impl Drop for Connection {
    fn drop(&mut self) {
        // Fails only if the connection has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A closed connection and an expired timeout have their own errors.
fn io_failure(error: io::Error, wait: &Wait<'_>) -> Failure {
    match error.kind() {
        _ if is_timeout(&error) => Failure::Exec(wait.timeout()),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            Failure::Exec(ExecError::Ended)
        }
        _ => Failure::Io(error),
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
