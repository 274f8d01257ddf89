// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sessions over connections that have an end, as those of vsock.
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use protocol::line::MAX_LINE;

use super::*;

/// A guest that serves connections. It ends with the test.
struct Guest {
    connections: Option<Sender<Connection>>,
    server: Option<JoinHandle<()>>,
}

impl Guest {
    fn new() -> Self {
        let (sender, connections) = mpsc::channel();
        let machine = machine();
        let server = thread::spawn(move || serve_connections(&machine, || connections.recv().ok()));
        Self { connections: Some(sender), server: Some(server) }
    }

    /// A host connects.
    fn host(&self) -> Peer {
        let (host, guest) = UnixStream::pair().unwrap();
        host.set_read_timeout(Some(LIMIT)).unwrap();
        let connection = Connection::new(OwnedFd::from(guest));
        self.connections.as_ref().unwrap().send(connection).unwrap();
        Peer(Replies { stream: host, lines: Lines::default() })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.connections = None;
        let _ = self.server.take().map(JoinHandle::join);
    }
}

/// The host's end of a connection.
struct Peer(Replies);

impl Peer {
    fn asks(&self, request: &Request) {
        (&self.0.stream).write_all(&exec::encode(request).unwrap()).unwrap();
    }

    /// Whether the guest greets; if not, it has closed the connection.
    fn is_greeted(&mut self) -> bool {
        let hello = Request::Hello { version: exec::VERSION, session: "s".into() };
        // Fails if it is closed already.
        let _ = (&self.0.stream).write_all(&exec::encode(&hello).unwrap());
        match self.0.next() {
            Some(Reply::Hello { session, .. }) => session == "s",
            Some(other) => panic!("unexpected {other:?}"),
            None => false,
        }
    }

    fn runs(&mut self, argv: &[&str]) {
        let argv = argv.iter().copied().map(Into::into).collect();
        self.asks(&Request::Exec(Exec { id: 1, argv, ..Exec::default() }));
        assert_eq!(self.0.next(), Some(Reply::Accepted { id: 1 }));
        self.asks(&Request::Start { id: 1 });
    }

    /// Runs a command that writes without end once it has told its process.
    fn runs_loud(&mut self) -> u32 {
        self.runs(&["sh", "-c", "echo $$; sleep 0.1; exec cat /dev/zero"]);
        let Some(Reply::Output { data, .. }) = self.0.next() else { panic!("no process") };
        String::from_utf8(data.0).unwrap().trim().parse().unwrap()
    }
}

#[test]
fn each_connection_runs_its_own_command() {
    let guest = Guest::new();
    let mut hosts: Vec<Peer> = (0..3).map(|_| guest.host()).collect();
    for host in &mut hosts {
        assert!(host.is_greeted());
        host.runs(&["sh", "-c", "exit 3"]);
    }
    for host in &mut hosts {
        assert_eq!(host.0.next(), Some(Reply::Exit { id: 1, status: Status::Code(3) }));
    }
}

/// The host reads nothing, so the guest waits in the middle of a reply.
#[test]
fn the_end_of_a_connection_ends_its_command_however_the_host_leaves() {
    let guest = Guest::new();
    let [mut leaves, mut stops] = [guest.host(), guest.host()];
    assert!(leaves.is_greeted() && stops.is_greeted());
    let (first, second) = (leaves.runs_loud(), stops.runs_loud());
    drop(leaves);
    wait_for_end(first);
    stops.0.stream.shutdown(Shutdown::Write).unwrap();
    wait_for_end(second);
    assert!(stops.0.all(|reply| matches!(reply, Reply::Output { .. })), "not output");
}

#[test]
fn too_many_connections_are_closed_and_places_become_free() {
    let guest = Guest::new();
    let mut hosts: Vec<Peer> = (0..CONNECTIONS).map(|_| guest.host()).collect();
    assert!(hosts.iter_mut().all(Peer::is_greeted));
    assert!(!guest.host().is_greeted());
    drop(hosts.pop());
    let begun = Instant::now();
    while !guest.host().is_greeted() {
        assert!(begun.elapsed() < LIMIT, "the place of a host that has left is not free");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(hosts.iter_mut().all(Peer::is_greeted), "the others have lost their connections");
}

#[test]
fn hostile_bytes_are_refused_and_the_connection_stays() {
    let guest = Guest::new();
    let mut host = guest.host();
    assert!(host.is_greeted());
    for line in [b"{\"request\":\"format-disk\"}\n".to_vec(), b"\xff\n".to_vec()] {
        (&host.0.stream).write_all(&line).unwrap();
        assert!(matches!(host.0.next(), Some(Reply::Refused { id: None, .. })));
    }
    let mut long = vec![b'x'; 2 * MAX_LINE];
    long.push(b'\n');
    (&host.0.stream).write_all(&long).unwrap();
    let Some(Reply::Refused { id: None, reason }) = host.0.next() else { panic!("not refused") };
    assert!(reason.contains("was dropped"), "{reason}");
    host.runs(&["true"]);
    assert_eq!(host.0.next(), Some(Reply::Exit { id: 1, status: Status::Code(0) }));
}
