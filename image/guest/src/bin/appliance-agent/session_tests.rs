// SPDX-License-Identifier: Apache-2.0 OR MIT
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;

use protocol::exec::{Bytes, Exec, Status};

use super::*;
use crate::watched::{LIMIT, wait_for_end};

/// What happens at the host's end, in the order in which the guest's kernel tells of it.
enum Event {
    Sends(Vec<u8>),
    Leaves,
    Comes,
}

/// Stands in for a port, with the kernel's rules: a read waits while a host is connected, and
/// returns nothing if none is.
struct StandIn {
    events: Receiver<Event>,
    is_there: AtomicBool,
    unread: Vec<u8>,
}

impl Read for StandIn {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.unread.is_empty() && self.is_there.load(Ordering::Relaxed) {
            match self.events.recv() {
                Ok(Event::Sends(sent)) => self.unread = sent,
                Ok(Event::Leaves) => self.is_there.store(false, Ordering::Relaxed),
                Ok(Event::Comes) => {}
                Err(_) => return Err(io::Error::other("the test is over")),
            }
        }
        let count = self.unread.len().min(bytes.len());
        bytes[..count].copy_from_slice(&self.unread[..count]);
        self.unread.drain(..count);
        Ok(count)
    }
}

impl Host for StandIn {
    fn is_there(&self) -> io::Result<bool> {
        Ok(self.is_there.load(Ordering::Relaxed))
    }

    fn wait(&self, limit: Option<Duration>) -> io::Result<()> {
        match self.events.recv_timeout(limit.unwrap_or(LIMIT)) {
            Ok(Event::Comes) => self.is_there.store(true, Ordering::Relaxed),
            Ok(Event::Leaves) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Event::Sends(_)) => panic!("nobody is there who could send"),
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("over")),
        }
        Ok(())
    }
}

fn machine() -> Arc<Machine> {
    Arc::new(Machine {
        boot_id: "boot".into(),
        pool: Pool::none(),
        batch: Batch::default(),
        slots: Default::default(),
        power_off: PowerOff::Systemd,
    })
}

/// What the guest says on a stream.
struct Replies {
    stream: UnixStream,
    lines: Lines,
}

impl Iterator for Replies {
    type Item = Reply;

    /// Waits for a reply; `None` at the end of the stream.
    fn next(&mut self) -> Option<Reply> {
        loop {
            match self.lines.next_line() {
                Some(line) => match &line.unwrap()[..] {
                    [] => {}
                    line => return Some(exec::decode(line).unwrap()),
                },
                None => {
                    let mut bytes = [0; 4096];
                    match self.stream.read(&mut bytes) {
                        Ok(0) => return None,
                        Ok(count) => self.lines.push(&bytes[..count]),
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                        Err(error) => panic!("no reply: {error}"),
                    }
                }
            }
        }
    }
}

/// A session on a stand-in for a port.
struct Bench {
    events: Option<Sender<Event>>,
    replies: Replies,
    server: Option<JoinHandle<()>>,
}

impl Bench {
    /// A host is connected.
    fn new() -> Self {
        let (events, received) = mpsc::channel();
        let (replies, writer) = UnixStream::pair().unwrap();
        replies.set_read_timeout(Some(LIMIT)).unwrap();
        let machine = machine();
        let port =
            StandIn { events: received, is_there: AtomicBool::new(true), unread: Vec::new() };
        let session = Session::new(0, &machine, Outlet::new(writer));
        let server = thread::spawn(move || drop(session.serve(port)));
        let replies = Replies { stream: replies, lines: Lines::default() };
        let mut bench = Self { events: Some(events), replies, server: Some(server) };
        assert_eq!(bench.reply(), Reply::Started {});
        bench
    }

    fn happens(&self, event: Event) {
        self.events.as_ref().unwrap().send(event).unwrap();
    }

    fn asks(&self, request: &Request) {
        self.happens(Event::Sends(exec::encode(request).unwrap()));
    }

    fn greets(&mut self, name: &str) {
        self.asks(&Request::Hello { version: exec::VERSION, session: name.into() });
        let reply = self.reply();
        assert!(matches!(&reply, Reply::Hello { session, .. } if session == name), "{reply:?}");
    }

    fn asks_for(&self, id: u64, argv: &[&str]) {
        let argv = argv.iter().copied().map(Into::into).collect();
        self.asks(&Request::Exec(Exec { id, argv, stdin: true, ..Exec::default() }));
    }

    /// Runs a command that ends with code 3 once [`Self::lets_end`] says so.
    fn runs_until_told(&mut self, id: u64) {
        self.runs(id, &["sh", "-c", "read line; exit 3"]);
    }

    fn lets_end(&mut self, id: u64) {
        self.asks(&Request::Stdin { id, data: Bytes(b"end\n".to_vec()) });
        let ended = Reply::Exit { id, status: Status::Code(3) };
        let replies = [self.reply(), self.reply()];
        let taken = Reply::Taken { id, bytes: 4 };
        assert!(replies.contains(&ended) && replies.contains(&taken), "{replies:?}");
    }

    fn runs(&mut self, id: u64, argv: &[&str]) {
        self.asks_for(id, argv);
        assert_eq!(self.reply(), Reply::Accepted { id });
        self.asks(&Request::Start { id });
    }

    /// Runs a command that does not end by itself; returns its process.
    fn runs_long(&mut self, id: u64) -> u32 {
        self.runs(id, &["sh", "-c", "echo $$; exec sleep 3600"]);
        match self.reply() {
            Reply::Output { data, .. } => {
                String::from_utf8(data.0).unwrap().trim().parse().unwrap()
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn reply(&mut self) -> Reply {
        self.replies.next().expect("no reply, but the end")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.events = None;
        let _ = self.server.take().map(JoinHandle::join);
    }
}

/// On a busy machine, the kernel says that the host before has left when the next one has long sent
/// its command.
#[test]
fn late_news_of_an_earlier_host_does_not_end_the_command_of_the_next() {
    let mut bench = Bench::new();
    bench.greets("late");
    bench.runs_until_told(1);
    bench.happens(Event::Leaves);
    bench.happens(Event::Comes);
    bench.lets_end(1);
}

#[test]
fn the_end_of_a_connection_ends_its_command_and_a_late_host_learns_of_it() {
    let mut bench = Bench::new();
    bench.greets("ends");
    let command = bench.runs_long(1);
    bench.happens(Event::Leaves);
    wait_for_end(command);
    bench.happens(Event::Comes);
    bench.asks(&Request::Ping {});
    assert_eq!(bench.reply(), Reply::Pong { session: None });
    // Nothing is started whose output would go nowhere.
    bench.asks_for(2, &["true"]);
    assert_eq!(bench.reply(), Reply::Pong { session: None });
    bench.greets("next");
    bench.runs(1, &["true"]);
    assert_eq!(bench.reply(), Reply::Exit { id: 1, status: Status::Code(0) });
}

#[test]
fn a_repeated_greeting_changes_nothing_and_another_ends_the_command() {
    let mut bench = Bench::new();
    bench.greets("one");
    bench.runs_until_told(1);
    bench.greets("one");
    bench.asks(&Request::Ping {});
    assert_eq!(bench.reply(), Reply::Pong { session: Some("one".into()) });
    bench.lets_end(1);
    let command = bench.runs_long(2);
    bench.greets("two");
    wait_for_end(command);
    bench.runs(1, &["true"]);
    assert_eq!(bench.reply(), Reply::Exit { id: 1, status: Status::Code(0) });
}

#[test]
fn what_an_earlier_agent_began_to_hear_starts_nothing() {
    let mut bench = Bench::new();
    bench.happens(Event::Sends(b"d\",\"data\":\"AAAA\"}\n".to_vec()));
    bench.asks_for(7, &["true"]);
    assert_eq!(bench.reply(), Reply::Pong { session: None });
    bench.greets("new");
}

/// The guest reads what a host has sent before it left, but only a host that is there starts it.
#[test]
fn a_command_starts_only_when_its_host_has_heard_that_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("started");
    let words = ["touch", file.to_str().unwrap()];
    let mut bench = Bench::new();
    bench.greets("left");
    bench.asks_for(1, &words);
    assert_eq!(bench.reply(), Reply::Accepted { id: 1 });
    bench.greets("next");
    bench.asks(&Request::Start { id: 1 });
    let reason = "no command 1 was accepted in this session".into();
    assert_eq!(bench.reply(), Reply::Refused { id: Some(1), reason });
    assert!(!file.exists());
    bench.runs(1, &words);
    assert_eq!(bench.reply(), Reply::Exit { id: 1, status: Status::Code(0) });
    assert!(file.exists());
}

#[path = "connection_tests.rs"]
mod connections;
