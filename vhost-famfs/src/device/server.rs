// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The one connection that is served on a socket.

use std::error::Error;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing::{info, warn};
use vhost::vhost_user::{Error as VhostUserError, Listener};
use vhost_user_backend::{Error as DaemonError, ShutdownHandle, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use super::listen::Socket;
use super::sandbox::{Entered, SandboxError};
use super::vhost_user::Device;
use crate::host::sys;
use crate::pool::{Pool, Window};

/// Why the device cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The process ran out of something.
    #[error("cannot set up the device")]
    Setup(#[source] io::Error),
    /// The privileges cannot be given up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The library refused to start.
    #[error("cannot serve the connection")]
    Daemon(#[source] Box<dyn Error + Send + Sync>),
    /// The front-end broke the protocol.
    #[error(
        "connection ended by a protocol error; the VM keeps its memory but has lost flush: power it off"
    )]
    Protocol(#[source] VhostUserError),
}

/// How serving ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The VM went away.
    Disconnected,
    /// The process was asked to stop.
    Stopped,
}

/// Waits for a VMM on `socket`, serves it until it disconnects or `stop` becomes readable, and
/// returns.
///
/// `connecting` is called when a VMM connects. Then the sandbox is closed, before a byte from the VMM is read;
/// threads that wait for work are there already, and it is for them too.
pub fn serve(
    socket: Socket,
    pool: Pool,
    window: Window,
    stop: impl AsFd,
    sandbox: Option<&Entered>,
    connecting: impl FnOnce(),
) -> Result<End, ServerError> {
    let stop = stop.as_fd();
    let (done, finished) = UnixStream::pair().map_err(ServerError::Setup)?;
    let (connected, connection) = channel();
    // All that can be had before there is a VM, which waits for the rest.
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let device = Device::new(pool, window, memory.clone()).map_err(ServerError::Setup)?;
    let mut daemon = VhostUserDaemon::new("vhost-user".to_owned(), device.clone(), memory)
        .map_err(daemon_error)?;
    let watched = device.as_ref();
    thread::scope(|scope| {
        let stopper = thread::Builder::new()
            .name("stopper".to_owned())
            .spawn_scoped(scope, move || shut_down_on(stop, &done, &connection, watched))
            .map_err(ServerError::Setup)?;
        // Dropped with this closure, whatever ends it: that ends the stopper.
        let (connected, finished) = (connected, finished);
        if wait_readable(&[socket.as_fd(), stop])? == 1 {
            info!("asked to stop before a VMM connected");
            return Ok(End::Stopped);
        }
        // One process serves one VM: a second one gets a clear error instead of a silent wait.
        let listener = socket.into_listener();
        connecting();
        sandbox.map_or(Ok(()), Entered::connecting)?;
        // A connection waits to be accepted. Said now, because what it asks for is served, and logged,
        // by another thread from the next line on.
        info!("connected");
        daemon.start(&mut Listener::from(listener)).map_err(daemon_error)?;
        sandbox.map_or(Ok(()), Entered::connected)?;
        // The stopper may have ended already, because it cannot wait.
        daemon.shutdown_handle().map(|handle| connected.send(handle));
        let result = daemon.wait();
        drop(finished);
        let stopped = stopper.join().unwrap_or(false);
        // Its threads have ended when this returns.
        drop(daemon);
        if let Some(number) = device.take_exit_descriptor() {
            sys::close_abandoned(number);
        }
        end(result, stopped)
    })
}

/// Shuts the connection down when `stop` becomes readable, and returns whether it did; returns as
/// soon as `done` is closed.
fn shut_down_on(
    stop: BorrowedFd<'_>,
    done: &UnixStream,
    connection: &Receiver<ShutdownHandle>,
    device: &Device,
) -> bool {
    let stopped = matches!(wait_readable(&[done.as_fd(), stop]), Ok(1));
    // Without a connection there is nothing to shut down: the sender is dropped.
    let Some(connection) = stopped.then(|| connection.recv().ok()).flatten() else { return false };
    if device.is_started() {
        warn!(
            "asked to stop while a VM uses the pool: the VM keeps its memory, its flushes hang \
             from now on; power it off, a reboot would abort QEMU"
        );
    }
    connection.shutdown();
    true
}

/// How serving ended.
fn end(result: Result<(), DaemonError>, stopped: bool) -> Result<End, ServerError> {
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
        Err(DaemonError::HandleRequest(err)) => Err(ServerError::Protocol(err)),
        Err(err) => Err(daemon_error(err)),
    }
}

/// The cause in an error of the library, which is not an error type itself.
fn daemon_error(err: DaemonError) -> ServerError {
    ServerError::Daemon(match err {
        DaemonError::NewVhostUserHandler(err) => Box::new(err),
        DaemonError::StartDaemon(err) => Box::new(err),
        DaemonError::CreateBackendListener(err)
        | DaemonError::CreateBackendReqHandler(err)
        | DaemonError::CreateVhostUserListener(err)
        | DaemonError::HandleRequest(err) => Box::new(err),
        panicked @ DaemonError::WaitDaemon(_) => panicked.to_string().into(),
    })
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
