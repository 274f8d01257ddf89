// SPDX-License-Identifier: Apache-2.0 OR MIT
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use protocol::exec::{Exec, Status};

use super::super::agent::Agent;
use super::super::command::Output;
use super::*;

const LIMIT: Duration = Duration::from_secs(120);

/// Questions come quickly, and a guest has all the time it wants.
const QUICK: Patience = Patience { step: Duration::from_millis(20), silence: LIMIT };

/// What the guest does with a request of a kind, and what the host then hears.
enum Does {
    /// The port is closed, or the agent ends before it reads the request.
    Drops(Kind),
    /// The same, and another agent says that it has started.
    DropsAndStarts(Kind),
    /// Greets, accepts, or ends the command with code 7.
    Answers(Kind),
    /// As if its session had ended.
    HasNoSession(Kind),
}

use Does::{Answers, Drops, DropsAndStarts, HasNoSession};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hello,
    Exec,
    Ping,
}

const HELLO: Kind = Kind::Hello;
const EXEC: Kind = Kind::Exec;
const PING: Kind = Kind::Ping;

impl Does {
    fn kind(&self) -> Kind {
        let (Drops(kind) | DropsAndStarts(kind) | Answers(kind) | HasNoSession(kind)) = self;
        *kind
    }
}

/// A guest with a plan for each connection: what it does with the next requests of some kinds. A
/// host repeats its greetings and questions, more often if the guest is slow, so those that are not
/// next in the plan are answered without it. At the end of the plan, the guest is silent. Returns
/// how often it accepted a command.
fn guest(socket: &Path, connections: Vec<Vec<Does>>) -> JoinHandle<u32> {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let mut accepted = 0;
        for plan in connections {
            let (stream, _) = listener.accept().unwrap();
            // A host that has heard enough closes the connection.
            let say = |reply: &Reply| drop((&stream).write_all(&exec::encode(reply).unwrap()));
            let greet = |session: &str| {
                let (boot_id, attach) = ("boot".into(), Attach::Off);
                let (version, uptime_ms, ran) = (exec::VERSION, 5, None);
                let session = session.to_owned();
                say(&Reply::Hello { version, session, boot_id, uptime_ms, attach, ran });
            };
            let (mut plan, mut name) = (plan.into_iter().peekable(), None);
            for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                if line.is_empty() {
                    continue;
                }
                let request = exec::decode::<Request>(line.as_bytes()).unwrap();
                let kind = match &request {
                    Request::Hello { .. } => HELLO,
                    Request::Exec(_) => EXEC,
                    Request::Ping {} => PING,
                    Request::Start { .. } => continue,
                    other => panic!("unexpected {other:?}"),
                };
                let is_over = plan.peek().is_none();
                match (plan.next_if(|does| does.kind() == kind), request) {
                    (Some(Drops(_)), _) => {}
                    (Some(DropsAndStarts(_)), _) => say(&Reply::Started {}),
                    (Some(HasNoSession(_)), _) => say(&Reply::Pong { session: None }),
                    (Some(Answers(_)), Request::Hello { session, .. }) => {
                        greet(&session);
                        name = Some(session);
                    }
                    (Some(Answers(_)), Request::Exec(Exec { id, .. })) => {
                        accepted += 1;
                        say(&Reply::Accepted { id });
                    }
                    (Some(Answers(_)), _) => {
                        say(&Reply::Exit { id: 1, status: Status::Code(7) });
                    }
                    (None, Request::Hello { session, .. }) if name.as_ref() == Some(&session) => {
                        greet(&session);
                    }
                    (None, Request::Ping {}) if !is_over => {
                        say(&Reply::Pong { session: name.clone() });
                    }
                    (None, _) => {}
                }
            }
        }
        accepted
    })
}

/// Runs a command in such a guest; returns the result and how often the guest accepted it.
fn run(patience: Patience, connections: Vec<Vec<Does>>) -> (Result<Output, ExecError>, u32) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let guest = guest(&socket, connections);
    let mut agent = Agent::new(socket).patient(patience);
    let result = agent.exec(&Command::new(["false"]), LIMIT);
    drop(agent);
    (result, guest.join().unwrap())
}

#[test]
fn what_was_lost_before_the_command_was_accepted_is_asked_again() {
    let runs = || [Answers(HELLO), Answers(EXEC), Answers(PING)];
    let after = |first: Vec<Does>| first.into_iter().chain(runs()).collect::<Vec<_>>();
    let table = [
        // Bytes that were sent to a port which the guest had closed.
        vec![after(vec![Drops(HELLO)])],
        vec![after(vec![Drops(HELLO), Drops(HELLO), Drops(HELLO)])],
        vec![after(vec![DropsAndStarts(HELLO)])],
        // The agent ends between its greeting and the command.
        vec![vec![Answers(HELLO), DropsAndStarts(EXEC)], after(vec![])],
        vec![vec![Answers(HELLO), HasNoSession(EXEC)], after(vec![])],
        vec![vec![Answers(HELLO), Drops(EXEC), HasNoSession(PING)], after(vec![Drops(HELLO)])],
    ];
    for (number, connections) in table.into_iter().enumerate() {
        let (result, accepted) = run(QUICK, connections);
        let output = result.unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!((output.status, accepted), (Status::Code(7), 1), "{number}");
    }
}

#[test]
fn a_command_that_was_accepted_is_never_run_twice() {
    let restarted = "the guest's agent ended and was started again; the command has been killed, \
                     but not what that has started";
    let lost = "the guest took the connection for closed";
    for (end, expected) in [(DropsAndStarts(PING), restarted), (HasNoSession(PING), lost)] {
        let (result, accepted) = run(QUICK, vec![vec![Answers(HELLO), Answers(EXEC), end]]);
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(accepted, 1);
    }
}

#[test]
fn a_guest_that_is_silent_for_ever_is_an_error() {
    let patience = Patience { silence: Duration::from_secs(2), ..QUICK };
    let (result, accepted) = run(patience, vec![vec![Answers(HELLO), Answers(EXEC)]]);
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with("the guest has not answered for 2s"), "{error}");
    assert_eq!(accepted, 1);
}

#[test]
fn a_guest_that_never_greets_ends_with_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let guest = guest(&socket, vec![Vec::new()]);
    let mut agent = Agent::new(socket).patient(QUICK);
    let limit = Duration::from_millis(200);
    let error = agent.exec(&Command::new(["true"]), limit).unwrap_err();
    let expected = "the guest's agent has not accepted true within 200ms";
    assert_eq!(error.to_string(), expected);
    drop(agent);
    assert_eq!(guest.join().unwrap(), 0);
}

#[test]
fn answers_to_questions_are_not_talk() {
    let (host, guest) = UnixStream::pair().unwrap();
    let mut connection = Connection::open(host, QUICK).unwrap();
    let name = connection.session.clone();
    connection.hello =
        Some(Hello { boot_id: String::new(), uptime_ms: 0, attach: Attach::Off, ran: None });
    let deadline = super::super::deadline::Deadline::after(LIMIT);
    let wait = Wait { doing: "test", limit: LIMIT, deadline };
    // As many as a stack would not hold.
    connection.questions = 100_000;
    let pong = exec::encode(&Reply::Pong { session: Some(name.clone()) }).unwrap();
    let writer = guest.try_clone().unwrap();
    let writing = thread::spawn(move || {
        for _ in 0..=100_000 {
            (&writer).write_all(&pong).unwrap();
        }
    });
    let exit = Reply::Exit { id: 1, status: Status::Code(0) };
    let Ok(first) = connection.receive(&wait) else { panic!("an error") };
    writing.join().unwrap();
    (&guest).write_all(&exec::encode(&exit).unwrap()).unwrap();
    let Ok(second) = connection.receive(&wait) else { panic!("an error") };
    // One answer too many, and the message.
    assert_eq!([first, second], [Some(Reply::Pong { session: Some(name) }), Some(exit)]);
}

/// A guest that reads nothing gets no more questions than it can have.
#[test]
fn only_questions_that_were_sent_have_answers() {
    let (host, _guest) = UnixStream::pair().unwrap();
    let mut connection = Connection::open(host, QUICK).unwrap();
    connection.hello =
        Some(Hello { boot_id: String::new(), uptime_ms: 0, attach: Attach::Off, ran: None });
    for _ in 0..2 * MOST_QUESTIONS {
        assert!(connection.wonder().is_ok());
    }
    assert_eq!(connection.questions, MOST_QUESTIONS);
    connection.questions = 0;
    while connection.sender.offer(&connection.greeting()).unwrap() {}
    assert!(connection.wonder().is_ok());
    assert_eq!(connection.questions, 0);
}

/// A guest that was started for one command says how that ended, and powers off. It may have done
/// so before the host looks.
#[test]
fn what_a_guest_said_before_its_end_is_heard() {
    let (host, guest) = UnixStream::pair().unwrap();
    let mut connection = Connection::open(host, QUICK).unwrap();
    let session = connection.session.clone();
    let (boot_id, attach, ran) = (String::new(), Attach::Off, None);
    let version = exec::VERSION;
    for reply in [
        Reply::Started {},
        Reply::Hello { version, session, boot_id, uptime_ms: 0, attach, ran },
        Reply::Ran { status: Status::Code(2) },
    ] {
        (&guest).write_all(&exec::encode(&reply).unwrap()).unwrap();
    }
    drop(guest);
    let deadline = super::super::deadline::Deadline::after(LIMIT);
    let wait = Wait { doing: "test", limit: LIMIT, deadline };
    assert!(connection.greeted(&wait).is_ok());
    assert!(connection.listen(&wait).is_ok());
    assert_eq!(connection.hello.as_ref().unwrap().ran, Some(Status::Code(2)));
    assert!(matches!(connection.listen(&wait), Err(Failure::Exec(ExecError::Ended))));
}
