// SPDX-License-Identifier: Apache-2.0 OR MIT
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::{self, JoinHandle};

use protocol::exec::{self, Bytes, CHUNK, Exec, Reply, Stream, WINDOW};

use super::super::guest::Guest;
use super::super::stream::Streams;
use super::*;

const LIMIT: Duration = Duration::from_secs(60);

/// A guest's agent: answers the greeting as given, accepts commands, then passes each request to
/// `answer`.
fn guest(
    socket: &Path,
    attach: Attach,
    answer: impl Fn(Request, &mut dyn FnMut(Reply)) + Send + 'static,
) -> JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut send = |reply: Reply| {
            // In some tests, the host has closed the connection.
            let _ = (&stream).write_all(&exec::encode(&reply).unwrap());
        };
        (&stream).write_all(b"left over from an earlier host\n").unwrap();
        let (mut name, mut accepted) = (None, None::<Exec>);
        for request in requests(&stream) {
            match request {
                Request::Hello { session, .. } => {
                    name = Some(session.clone());
                    send(hello(session, attach.clone()));
                }
                Request::Ping {} => send(Reply::Pong { session: name.clone() }),
                Request::Exec(exec) => {
                    send(Reply::Accepted { id: exec.id });
                    accepted = Some(exec);
                }
                // Once, and only for what was accepted.
                Request::Start { id } => {
                    let exec = accepted.take().filter(|exec| exec.id == id).unwrap();
                    answer(Request::Exec(exec), &mut send);
                }
                request => answer(request, &mut send),
            }
        }
    })
}

fn requests(stream: &UnixStream) -> impl Iterator<Item = Request> {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.filter(|line| !line.is_empty()).map(|line| exec::decode(line.as_bytes()).unwrap())
}

fn hello(session: String, attach: Attach) -> Reply {
    let (version, boot_id) = (exec::VERSION, "boot".into());
    Reply::Hello { version, session, boot_id, uptime_ms: 5, attach, ran: None }
}

fn output(id: u64, stream: Stream, text: &str) -> Reply {
    Reply::Output { id, stream, data: Bytes(text.into()) }
}

#[test]
fn a_command_runs_with_input_and_both_streams() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let guest = guest(&socket, Attach::Off, |request, send| match request {
        Request::Exec(Exec { id, argv, env, stdin, .. }) => {
            assert_eq!((argv, stdin), (vec!["tr".into(), "a".into()], true));
            send(output(id, Stream::Stdout, &env["LANG"]));
        }
        Request::Stdin { id, data } if data.0.is_empty() => {
            send(output(id, Stream::Stderr, "done"));
            send(Reply::Attach { attach: Attach::Mounted { uptime_ms: 9, took_ms: 4 } });
            send(Reply::Exit { id, status: Status::Code(3) });
        }
        Request::Stdin { id, data } => {
            send(output(id, Stream::Stdout, &format!(" {}", data.0.len())));
            send(Reply::Taken { id, bytes: data.0.len() as u64 });
        }
        other => panic!("unexpected {other:?}"),
    });
    let mut agent = Agent::new(socket);
    let command = Command::new(["tr", "a"]).env("LANG", "C").stdin(vec![b'x'; CHUNK + 1]);
    let result = agent.exec(&command, LIMIT).unwrap();
    assert_eq!(String::from_utf8(result.stdout).unwrap(), format!("C {CHUNK} 1"));
    assert_eq!((result.stderr, result.status), (b"done".to_vec(), Status::Code(3)));
    assert_eq!(agent.attached(LIMIT).unwrap().attach, Attach::Mounted { uptime_ms: 9, took_ms: 4 });
    drop(agent);
    guest.join().unwrap();
}

#[test]
fn a_refusal_leaves_the_session_open() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let guest = guest(&socket, Attach::Off, |request, send| match request {
        Request::Exec(Exec { id, .. }) if id == 1 => {
            send(Reply::Refused { id: Some(id), reason: "no such program".into() });
        }
        Request::Exec(Exec { id, .. }) => send(Reply::Exit { id, status: Status::Signal(9) }),
        other => panic!("unexpected {other:?}"),
    });
    let mut agent = Agent::new(socket);
    let error = agent.exec(&Command::new(["nothing"]), LIMIT).unwrap_err();
    assert_eq!(error.to_string(), "the guest refused: nothing: no such program");
    let output = agent.exec(&Command::new(["true"]), LIMIT).unwrap();
    assert_eq!(output.status, Status::Signal(9));
    drop(agent);
    guest.join().unwrap();
}

#[test]
fn silence_ends_with_the_limit_and_the_name_of_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let guest = guest(&socket, Attach::Pending, |_, _| {});
    let mut agent = Agent::new(socket);
    agent.hello(LIMIT).unwrap();
    let limit = Duration::from_millis(50);
    let error = agent.exec(&Command::new(["sleep", "9"]), limit).unwrap_err();
    assert_eq!(error.to_string(), "sleep 9: not finished after 50ms");
    // The connection was closed; that ends the command in the guest.
    guest.join().unwrap();
}

#[test]
fn a_lying_guest_is_an_error() {
    let lies: [fn(u64) -> Reply; 6] = [
        |id| Reply::Taken { id, bytes: 1 },
        |id| Reply::Taken { id, bytes: 0 },
        |id| Reply::Taken { id: id + 1, bytes: 1 },
        |id| output(id + 1, Stream::Stdout, "whose?"),
        |id| Reply::Exit { id: id + 1, status: Status::Code(0) },
        |id| Reply::Output { id, stream: Stream::Stdout, data: Bytes(vec![0; CHUNK + 1]) },
    ];
    for lie in lies {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let guest = guest(&socket, Attach::Off, move |request, send| {
            let Request::Exec(Exec { id, .. }) = request else { panic!("unexpected {request:?}") };
            send(lie(id));
        });
        let mut agent = Agent::new(socket);
        let error = agent.exec(&Command::new(["true"]), LIMIT).unwrap_err();
        assert!(matches!(error, ExecError::Protocol(_)), "{error}");
        guest.join().unwrap();
    }
}

#[test]
fn another_protocol_version_is_named() {
    let (host, mut guest) = UnixStream::pair().unwrap();
    let mut connection = Connection::open(host, Patience::default()).unwrap();
    let Some(Request::Hello { session, .. }) = requests(&guest).next() else { panic!("no hello") };
    let (boot_id, attach) = (String::new(), Attach::Off);
    let hello = Reply::Hello { version: 99, session, boot_id, uptime_ms: 0, attach, ran: None };
    guest.write_all(&exec::encode(&hello).unwrap()).unwrap();
    let wait = Wait { doing: "test", limit: LIMIT, deadline: Deadline::after(LIMIT) };
    let Err(Failure::Exec(error)) = connection.greeted(&wait) else { panic!("accepted") };
    let expected = format!("version 99, expected {}", exec::VERSION);
    assert!(error.to_string().contains(&expected), "{error}");
}

#[test]
fn no_more_input_is_sent_than_the_guest_takes() {
    const CHUNKS: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let held = std::sync::Mutex::new(0);
    let guest = guest(&socket, Attach::Off, move |request, send| match request {
        Request::Exec(_) => {}
        Request::Stdin { id, data: Bytes(data) } => {
            let mut held = held.lock().unwrap();
            *held += data.len() as u64;
            assert!(*held <= WINDOW, "{held} bytes are not taken");
            if data.is_empty() {
                send(Reply::Exit { id, status: Status::Code(0) });
            } else if *held + CHUNK as u64 > WINDOW {
                send(Reply::Taken { id, bytes: *held });
                *held = 0;
            }
        }
        other => panic!("unexpected {other:?}"),
    });
    let mut agent = Agent::new(socket);
    let command = Command::new(["cat"]).stdin(vec![b'x'; CHUNKS * CHUNK]);
    assert_eq!(agent.exec(&command, LIMIT).unwrap().status, Status::Code(0));
    drop(agent);
    guest.join().unwrap();
}

#[test]
fn a_new_agent_ends_the_command_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let guest = guest(&socket, Attach::Off, |_, send| {
        send(Reply::Attach { attach: Attach::Pending });
        send(Reply::Started {});
    });
    let error = Agent::new(socket).exec(&Command::new(["true"]), LIMIT).unwrap_err();
    assert!(matches!(error, ExecError::Restarted), "{error}");
    guest.join().unwrap();
}

#[test]
fn input_that_cannot_be_read_ends_the_command() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("it broke"))
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let guest = guest(&socket, Attach::Off, |_, _| {});
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let input: Option<Box<dyn Read + Send>> = Some(Box::new(Broken));
    let streams =
        Streams { input, sizes: None, begin: None, stdout: &mut stdout, stderr: &mut stderr };
    let error = Guest::new(socket).stream(&Command::new(["cat"]), streams, LIMIT).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the standard input of cat");
    guest.join().unwrap();
}

/// Messages without end, as long as the host listens.
#[test]
fn an_agent_that_only_talks_does_not_keep_a_command_for_ever() {
    let talk: [fn(u64) -> Reply; 3] = [
        |_| Reply::Attach { attach: Attach::Pending },
        |_| Reply::Ran { status: Status::Code(0) },
        |id| output(id, Stream::Stdout, ""),
    ];
    for say in talk {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let listener = UnixListener::bind(&socket).unwrap();
        let agent = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut requests = requests(&stream);
            let Some(Request::Hello { session, .. }) = requests.next() else { panic!("no hello") };
            (&stream).write_all(&exec::encode(&hello(session, Attach::Off)).unwrap()).unwrap();
            let accepted = Reply::Accepted { id: 1 };
            (&stream).write_all(&exec::encode(&accepted).unwrap()).unwrap();
            let line = exec::encode(&say(1)).unwrap();
            while (&stream).write_all(&line).is_ok() {}
        });
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let streams = Streams {
            input: None,
            sizes: None,
            begin: None,
            stdout: &mut stdout,
            stderr: &mut stderr,
        };
        let error = Guest::new(socket).stream(&Command::new(["true"]), streams, LIMIT).unwrap_err();
        assert!(error.to_string().contains("not output of true"), "{error}");
        agent.join().unwrap();
    }
}

#[test]
fn a_guest_tells_how_it_follows_the_pool() {
    let dir = tempfile::tempdir().unwrap();
    for (name, said, expected) in [
        (
            "fine",
            "master, following the log of /run/pool\n",
            Some("master, following the log of /run/pool"),
        ),
        ("hostile", "cannot follow\x1b]0;x\x07", Some("cannot follow\\u{1b}]0;x\\u{7}")),
        ("silent", "\n", None),
    ] {
        let socket = dir.path().join(name);
        let guest = guest(&socket, Attach::Off, move |request, send| {
            let Request::Exec(Exec { id, .. }) = request else { panic!("{request:?}") };
            send(output(id, Stream::Stdout, said));
            send(Reply::Exit { id, status: Status::Code(0) });
        });
        assert_eq!(Guest::new(socket).watch_status(LIMIT).as_deref(), expected);
        guest.join().unwrap();
    }
}

/// A VMM accepts a connection to the agent's vsock port.
fn accept_by_vsock(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = listener.accept().unwrap();
    let mut request = [0; "CONNECT 512\n".len()];
    stream.read_exact(&mut request).unwrap();
    assert_eq!(&request, b"CONNECT 512\n");
    stream.write_all(b"OK 1\n").unwrap();
    stream
}

#[test]
fn the_end_of_a_vsock_connection_is_not_that_of_the_vm() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("vsock");
    let listener = UnixListener::bind(&socket).unwrap();
    let vmm = thread::spawn(move || {
        // The guest has too many. Nothing was accepted, so the host asks again.
        drop(accept_by_vsock(&listener));
        let stream = accept_by_vsock(&listener);
        let send = |reply| (&stream).write_all(&exec::encode(&reply).unwrap()).unwrap();
        let mut name = None;
        for request in requests(&stream) {
            match request {
                Request::Hello { session, .. } => {
                    name = Some(session.clone());
                    send(hello(session, Attach::Off));
                }
                Request::Ping {} => send(Reply::Pong { session: name.clone() }),
                Request::Exec(Exec { id, .. }) => send(Reply::Accepted { id }),
                // The agent ends. The command may have run, so the host does not ask again.
                Request::Start { .. } => return,
                other => panic!("unexpected {other:?}"),
            }
        }
    });
    let mut agent = Agent::over(Channel::Vsock, socket);
    let error = agent.exec(&Command::new(["true"]), LIMIT).unwrap_err();
    assert!(matches!(error, ExecError::Closed), "{error}");
    vmm.join().unwrap();
    let error = agent.exec(&Command::new(["true"]), LIMIT).unwrap_err();
    assert!(matches!(error, ExecError::Ended), "nobody listens any more: {error}");
}
