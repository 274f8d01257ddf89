// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Connections of the host by vsock(7), for machines without virtio-serial ports.

mod sys;

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use guest::given;
use protocol::credentials::VSOCK;
use protocol::exec::{CONNECTIONS, VSOCK_PORT};
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, acceptfrom_with, bind, listen, shutdown,
    socket_with,
};

use crate::port::Host;
use sys::Address;

/// The host's address, and that of every machine (vsock(7)).
const HOST: u32 = libc::VMADDR_CID_HOST;
const ANY: u32 = libc::VMADDR_CID_ANY;

/// Pause after the kernel could not accept a connection, for instance for lack of memory.
const PAUSE: Duration = Duration::from_secs(1);

/// Waits for connections of the host.
pub struct Listener {
    socket: OwnedFd,
    /// Whether a refused peer was reported: a program of this machine may connect without end.
    reported: bool,
}

impl Listener {
    /// Listens if the host has asked for it. If this machine cannot, the ports remain.
    pub fn asked_for() -> Option<Self> {
        if !given::has(VSOCK) {
            return None;
        }
        let listener = Self::at(VSOCK_PORT);
        listener
            .inspect_err(|error| {
                eprintln!(
                    "appliance-agent: {VSOCK}: cannot listen at vsock port {VSOCK_PORT}: {error}; \
                     the kernel needs vmw_vsock_virtio_transport, and no other program may have \
                     the port"
                );
            })
            .ok()
    }

    fn at(port: u32) -> io::Result<Self> {
        let (family, kind) = (AddressFamily::VSOCK, SocketType::STREAM);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &Address { cid: ANY, port })?;
        listen(&socket, CONNECTIONS.try_into().unwrap_or(i32::MAX))?;
        Ok(Self { socket, reported: false })
    }

    /// Waits for the next connection of the host. Closes those of others.
    pub fn accept(&mut self) -> Connection {
        loop {
            match acceptfrom_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok((stream, peer)) => {
                    let peer = peer.as_ref().and_then(sys::read);
                    if is_host(peer) {
                        return Connection::new(stream);
                    }
                    if !std::mem::replace(&mut self.reported, true) {
                        eprintln!(
                            "appliance-agent: vsock: closed a connection from {peer:?}, expected \
                             cid {HOST}, the host; more of them are not reported"
                        );
                    }
                }
                Err(error) => {
                    let error = io::Error::from(error);
                    if !matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) {
                        eprintln!("appliance-agent: vsock: cannot accept a connection: {error}");
                        thread::sleep(PAUSE);
                    }
                }
            }
        }
    }
}

fn is_host(peer: Option<Address>) -> bool {
    peer.is_some_and(|peer| peer.cid == HOST)
}

/// A connection of the host, which ends for ever when the host leaves.
pub struct Connection(File);

impl Connection {
    /// A connection over a socket of any family.
    pub fn new(socket: OwnedFd) -> Self {
        Self(File::from(socket))
    }

    /// A handle for writing.
    pub fn writer(&self) -> io::Result<File> {
        self.0.try_clone()
    }
}

impl Host for Connection {
    fn has_end(&self) -> bool {
        true
    }

    fn is_there(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// A read waits.
    fn wait(&self, _limit: Option<Duration>) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Connection {
    /// Waits for bytes; there are none if the host has left, however that was.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = match self.0.read(bytes) {
            Ok(count) if count > 0 => return Ok(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
            read => read,
        };
        // A host that has only stopped sending may not read, and a thread may wait for that.
        let _ = shutdown(&self.0, Shutdown::Both);
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_may_connect() {
        let from = |cid| is_host(Some(Address { cid, port: 1023 }));
        assert!(from(HOST));
        // The hypervisor of old, this machine itself, a sibling, and no address of vsock.
        for cid in [0, 1, 3, ANY] {
            assert!(!from(cid), "{cid}");
        }
        assert!(!is_host(None));
    }
}
