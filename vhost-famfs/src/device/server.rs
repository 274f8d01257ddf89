// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Serves one connection on a socket.

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

use super::lifecycle::StartError;
use super::listen::Socket;
use super::sandbox::{Entered, SandboxError};
use super::vhost_user::Device;
use crate::host::sys;
use crate::pool::{Pool, Window};

/// Why the device cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The process lacks a resource.
    #[error("cannot set up the device")]
    Setup(#[source] io::Error),
    /// The privileges cannot be given up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The vhost-user library failed to start.
    #[error("cannot serve the connection")]
    Daemon(#[source] Box<dyn Error + Send + Sync>),
    /// The front-end violated the protocol.
    #[error(
        "the connection ended with a protocol error; the VM keeps its memory but can no longer \
         flush: power it off"
    )]
    Protocol(#[source] VhostUserError),
    /// The front-end cannot show the pool to its guest.
    #[error("this VMM cannot map the pool for its guest, which sees no pool")]
    Unfit(#[source] StartError),
}

/// Why serving ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The VM disconnected.
    Disconnected,
    /// The process was asked to stop.
    Stopped,
}

/// Waits for a VMM on `socket`, serves it until it disconnects or `stop` becomes readable, and
/// returns.
///
/// `connecting` is called when a VMM connects. Then the sandbox is closed, before a byte from the
/// VMM is read. Threads that wait for work already exist by then; the sandbox applies to them too.
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
    // Do everything now that needs no VM: a VM waits for the rest.
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let (fit, unfit) = UnixStream::pair().map_err(ServerError::Setup)?;
    let device = Device::new(pool, window, memory.clone(), fit).map_err(ServerError::Setup)?;
    let mut daemon = VhostUserDaemon::new("vhost-user".to_owned(), device.clone(), memory)
        .map_err(daemon_error)?;
    let watched = device.as_ref();
    thread::scope(|scope| {
        let stopper = thread::Builder::new()
            .name("stopper".to_owned())
            .spawn_scoped(scope, move || shut_down_on(stop, &done, &unfit, &connection, watched))
            .map_err(ServerError::Setup)?;
        // Dropped together with this closure, however it ends; that ends the stopper.
        let (connected, finished) = (connected, finished);
        if wait_readable(&[socket.as_fd(), stop])? == 1 {
            info!("asked to stop before a VMM connected");
            return Ok(End::Stopped);
        }
        // One process serves one VM: a second VMM gets a clear error instead of waiting silently.
        let listener = socket.into_listener();
        connecting();
        sandbox.map_or(Ok(()), Entered::connecting)?;
        // A connection waits to be accepted. Log this now: from the next line on, another thread
        // serves its requests and logs.
        info!("connected");
        daemon.start(&mut Listener::from(listener)).map_err(daemon_error)?;
        sandbox.map_or(Ok(()), Entered::connected)?;
        // The stopper may already have ended, because it cannot wait.
        daemon.shutdown_handle().map(|handle| connected.send(handle));
        let result = daemon.wait();
        drop(finished);
        let stopped = stopper.join().unwrap_or(false);
        // Its threads have ended when this returns.
        drop(daemon);
        if let Some(number) = device.take_exit_descriptor() {
            sys::close_abandoned(number);
        }
        match device.unfit() {
            Some(reason) if !stopped => Err(ServerError::Unfit(reason)),
            _ => end(result, stopped),
        }
    })
}

/// Shuts down the connection when `stop` becomes readable or `unfit` is closed, and returns whether
/// it was `stop`. Returns as soon as `done` is closed.
fn shut_down_on(
    stop: BorrowedFd<'_>,
    done: &UnixStream,
    unfit: &UnixStream,
    connection: &Receiver<ShutdownHandle>,
    device: &Device,
) -> bool {
    let ready = wait_readable(&[done.as_fd(), unfit.as_fd(), stop]).unwrap_or(0);
    let (ended, stopped) = (ready == 0, ready == 2);
    // Without a connection there is nothing to shut down: the sender has been dropped.
    let Some(connection) = (!ended).then(|| connection.recv().ok()).flatten() else {
        return false;
    };
    if stopped && device.is_started() {
        warn!(
            "asked to stop while a VM uses the pool: the VM keeps its memory, but its flushes hang \
             from now on; power it off, as a reboot would abort QEMU"
        );
    }
    connection.shutdown();
    stopped
}

/// Why serving ended.
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

/// The cause of an error of the library, whose type does not implement the error trait.
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

/// Waits until one of the descriptors is readable and returns the last one's index: the stop
/// request comes last and takes precedence.
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
