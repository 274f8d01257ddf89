// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The socket, and the one connection that is served on it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing::{info, warn};
use vhost::vhost_user::{Error as VhostUserError, Listener};
use vhost_user_backend::{Error as DaemonError, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::device::Device;
use crate::pool::{Identity, Pool};
use crate::window::Window;

/// Why the device cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another program listens there.
    #[error("socket {}: another program is listening on it; every VM needs a socket of its own", .0.display())]
    Live(PathBuf),
    /// There is a file, but not a socket.
    #[error("socket {}: exists and is not a socket; it is not replaced", .0.display())]
    NotSocket(PathBuf),
    /// The descriptor is not a listening socket.
    #[error(
        "descriptor is not a listening unix stream socket: --fd takes a socket after listen(2), as systemd passes it"
    )]
    NotListening,
    /// A system call failed.
    #[error("socket {}: cannot {action}", .path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The process ran out of something.
    #[error("cannot set up the device")]
    Setup(#[source] io::Error),
    /// The library refused to start.
    #[error("cannot serve the connection: {0}")]
    Daemon(String),
    /// The front-end broke the protocol.
    #[error(
        "connection ended by a protocol error: {0}; the VM keeps its memory but has lost flush: power it off"
    )]
    Protocol(String),
}

/// How serving ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The VM went away.
    Disconnected,
    /// The process was asked to stop.
    Stopped,
}

/// A listening socket; the file goes when the connection is made or the server dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    file: Option<SocketFile>,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity_of(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Only ours: somebody else's socket may have taken the name meanwhile.
        if identity_of(&self.path).is_ok_and(|now| now == self.identity)
            && let Err(err) = std::fs::remove_file(&self.path)
        {
            warn!(path = %self.path.display(), %err, "cannot remove the socket");
        }
    }
}

fn identity_of(path: &Path) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    path.symlink_metadata().map(|meta| Identity { dev: meta.dev(), ino: meta.ino() })
}

impl Server {
    /// Listens on a new socket at `path`, replacing one that nobody listens on any more.
    pub fn bind(path: &Path) -> Result<Self, ServerError> {
        let io = |action| {
            let path = path.to_owned();
            move |source| ServerError::Io { path, action, source }
        };
        match path.symlink_metadata() {
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(ServerError::NotSocket(path.to_owned()));
            }
            Ok(_) if is_live(path).map_err(io("find out whether it is in use"))? => {
                return Err(ServerError::Live(path.to_owned()));
            }
            Ok(_) => {
                info!(path = %path.display(), "removing a socket that nobody listens on");
                std::fs::remove_file(path).map_err(io("remove the stale socket"))?;
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(io("look at it")(err)),
        }
        let listener = UnixListener::bind(path).map_err(io("listen on it"))?;
        let file = SocketFile::new(path).map_err(io("look at it"))?;
        info!(path = %path.display(), "listening");
        Ok(Self { listener, file: Some(file) })
    }

    /// Takes over a socket that listens already.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, ServerError> {
        match rustix::net::sockopt::socket_acceptconn(&fd) {
            Ok(true) => {
                info!("listening on the inherited socket");
                Ok(Self { listener: UnixListener::from(fd), file: None })
            }
            _ => Err(ServerError::NotListening),
        }
    }

    /// Waits for a VMM, serves it until it disconnects or `stop` becomes readable, and returns.
    pub fn run(mut self, pool: Pool, window: Window, stop: impl AsFd) -> Result<End, ServerError> {
        let stop = stop.as_fd();
        if wait_readable(&[self.listener.as_fd(), stop])? == 1 {
            info!("asked to stop before a VMM connected");
            return Ok(End::Stopped);
        }
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let device = Device::new(pool, window, memory.clone()).map_err(ServerError::Setup)?;
        let mut daemon = VhostUserDaemon::new("vhost-user".to_owned(), device.clone(), memory)
            .map_err(daemon_error)?;
        daemon.start(&mut Listener::from(self.listener)).map_err(daemon_error)?;
        // One process serves one VM: a second one gets a clear error instead of a silent wait.
        drop(self.file.take());
        info!("connected");
        let result = wait(&mut daemon, &device, stop);
        drop(daemon);
        result
    }
}

fn wait(
    daemon: &mut VhostUserDaemon<Arc<Device>>,
    device: &Device,
    stop: BorrowedFd<'_>,
) -> Result<End, ServerError> {
    let (done, finished) = UnixStream::pair().map_err(ServerError::Setup)?;
    let shutdown = daemon.shutdown_handle();
    std::thread::scope(|scope| {
        let stopper = scope.spawn(move || {
            let stopped = matches!(wait_readable(&[done.as_fd(), stop]), Ok(1));
            if stopped {
                if device.is_started() {
                    warn!(
                        "asked to stop while a VM uses the pool: the VM keeps its memory, its \
                         flushes hang from now on; power it off, a reboot would abort QEMU"
                    );
                }
                if let Some(shutdown) = shutdown {
                    shutdown.shutdown();
                }
            }
            stopped
        });
        let result = daemon.wait();
        drop(finished);
        let stopped = stopper.join().unwrap_or(false);
        match result {
            _ if stopped => {
                info!("stopped on request");
                Ok(End::Stopped)
            }
            Ok(())
            | Err(DaemonError::HandleRequest(
                VhostUserError::Disconnected
                | VhostUserError::PartialMessage
                | VhostUserError::SocketBroken(_),
            )) => {
                info!("disconnected");
                Ok(End::Disconnected)
            }
            Err(DaemonError::HandleRequest(err)) => Err(ServerError::Protocol(err.to_string())),
            Err(err) => Err(daemon_error(err)),
        }
    })
}

fn daemon_error(err: DaemonError) -> ServerError {
    ServerError::Daemon(err.to_string())
}

/// Waits until one of the descriptors is readable and returns the last such one's index: the
/// request to stop comes last and wins.
fn wait_readable(fds: &[BorrowedFd<'_>]) -> Result<usize, ServerError> {
    let mut polls: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    loop {
        match poll(&mut polls, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(ServerError::Setup(errno.into())),
        }
        if let Some(index) = polls.iter().rposition(|p| !p.revents().is_empty()) {
            return Ok(index);
        }
    }
}

/// Whether a program listens on the socket, found out without using up a connection: a
/// connection of the wrong type is refused differently by a socket that is bound.
fn is_live(path: &Path) -> io::Result<bool> {
    let probe = UnixDatagram::unbound()?;
    match probe.connect(path) {
        Ok(()) => Ok(true),
        Err(err) if err.raw_os_error() == Some(Errno::PROTOTYPE.raw_os_error()) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = Server::bind(&path).unwrap();
        assert!(matches!(Server::bind(&path), Err(ServerError::Live(_))));
        first.listener.set_nonblocking(true).unwrap();
        let err = first.listener.accept().unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::WouldBlock, "the probe used up a connection");
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Server::bind(&path).unwrap();
    }

    #[test]
    fn a_file_is_not_replaced() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Server::bind(file.path()), Err(ServerError::NotSocket(_))));
        assert!(file.path().exists());
    }

    #[test]
    fn someone_elses_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let server = Server::bind(&path).unwrap();
        // The old inode keeps a name, so that the new socket cannot get its number.
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(server);
        assert!(path.exists());
    }

    #[test]
    fn only_listening_sockets_are_taken() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(matches!(Server::from_fd(one.into()), Err(ServerError::NotListening)));
    }
}
