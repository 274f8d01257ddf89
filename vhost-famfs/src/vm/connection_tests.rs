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

/// What the guest does with a request, and what the host then hears.
enum Does {
    /// The port is closed, or the agent ends before it reads the request.
    Drops,
    /// The same, and another agent says that it has started.
    DropsAndStarts,
    /// Greets, accepts, or ends the command with code 7.
    Answers,
    /// As if its session had ended.
    HasNoSession,
}

use Does::{Answers, Drops, DropsAndStarts, HasNoSession};

/// A guest that does this with the requests that it gets, on as many connections as there are
/// lists. A command that is accepted ends at the next request. Returns how often it accepted one.
fn guest(socket: &Path, connections: Vec<Vec<Does>>) -> JoinHandle<u32> {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let mut accepted = 0;
        for plan in connections {
            let (stream, _) = listener.accept().unwrap();
            let say = |reply: &Reply| (&stream).write_all(&exec::encode(reply).unwrap()).unwrap();
            let mut plan = plan.into_iter();
            for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                if line.is_empty() {
                    continue;
                }
                let request = exec::decode::<Request>(line.as_bytes()).unwrap();
                match (plan.next(), request) {
                    (None | Some(Drops), _) => {}
                    (Some(DropsAndStarts), _) => say(&Reply::Started {}),
                    (Some(HasNoSession), _) => say(&Reply::Pong { session: None }),
                    (Some(Answers), Request::Hello { version, session }) => {
                        let (boot_id, attach) = ("boot".into(), Attach::Off);
                        let (uptime_ms, ran) = (5, None);
                        say(&Reply::Hello { version, session, boot_id, uptime_ms, attach, ran });
                    }
                    (Some(Answers), Request::Exec(Exec { id, .. })) => {
                        accepted += 1;
                        say(&Reply::Accepted { id });
                    }
                    (Some(Answers), Request::Ping {}) => {
                        say(&Reply::Exit { id: 1, status: Status::Code(7) });
                    }
                    (Some(Answers), other) => panic!("unexpected {other:?}"),
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
    let table = [
        // Bytes that were sent to a port which the guest had closed.
        vec![vec![Drops, Answers, Answers, Answers]],
        vec![vec![Drops, Drops, Drops, Answers, Answers, Answers]],
        vec![vec![DropsAndStarts, Answers, Answers, Answers]],
        // The agent ends between its greeting and the command.
        vec![vec![Answers, DropsAndStarts], vec![Answers, Answers, Answers]],
        vec![vec![Answers, HasNoSession], vec![Answers, Answers, Answers]],
        vec![vec![Answers, Drops, HasNoSession], vec![Drops, Answers, Answers, Answers]],
    ];
    for (number, connections) in table.into_iter().enumerate() {
        let (result, accepted) = run(QUICK, connections);
        let output = result.unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!((output.status, accepted), (Status::Code(7), 1), "{number}");
    }
}

#[test]
fn a_command_that_was_accepted_is_never_run_twice() {
    let restarted = "the guest's agent has ended, and with it the command; it runs again";
    let lost = "the guest took the connection for closed";
    for (end, expected) in [(DropsAndStarts, restarted), (HasNoSession, lost)] {
        let (result, accepted) = run(QUICK, vec![vec![Answers, Answers, end]]);
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(accepted, 1);
    }
}

#[test]
fn a_guest_that_is_silent_for_ever_is_an_error() {
    let patience = Patience { silence: Duration::from_millis(200), ..QUICK };
    let (result, accepted) = run(patience, vec![vec![Answers, Answers]]);
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with("the guest has not answered for 200ms"), "{error}");
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
    assert_eq!(error.to_string(), "true: not finished after 200ms");
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
    connection.questions = 2;
    for _ in 0..3 {
        let pong = Reply::Pong { session: Some(name.clone()) };
        (&guest).write_all(&exec::encode(&pong).unwrap()).unwrap();
    }
    let exit = Reply::Exit { id: 1, status: Status::Code(0) };
    (&guest).write_all(&exec::encode(&exit).unwrap()).unwrap();
    let mut received = Vec::new();
    while received.len() < 2 {
        let Ok(reply) = connection.receive(&wait) else { panic!("an error") };
        received.push(reply);
    }
    // One answer too many, and the message.
    assert_eq!(received, [Some(Reply::Pong { session: Some(name) }), Some(exit)]);
}
