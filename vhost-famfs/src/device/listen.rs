// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The socket that a VMM connects to: created here, passed by a parent process, or passed by
//! systemd.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use famfs::system::lock::{self, LockError};
use famfs::system::parent;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use tracing::{info, warn};

use crate::pool::Identity;

/// Longest wait for another program that checks a stale socket in the same directory.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// Length of the queue of connections; one connection is served.
const BACKLOG: i32 = 8;

/// Longest path of a Unix socket in bytes (`sun_path` of unix(7), less its final NUL).
pub const MAX_PATH: usize = 107;

/// Why it is not possible to listen on the socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program is listening on it.
    #[error("socket {}: another program is listening on it; each VM needs its own socket", .0.display())]
    Live(PathBuf),
    /// The file exists, but is not a socket.
    #[error("socket {}: exists and is not a socket, so it is not replaced", .0.display())]
    NotSocket(PathBuf),
    /// Its directory does not exist.
    #[error("socket {}: its directory does not exist; create it first", .0.display())]
    NoDirectory(PathBuf),
    /// The path is too long for the kernel.
    #[error(
        "socket {}: its path has {} bytes, but only {MAX_PATH} are allowed; a relative path may be \
         shorter",
        .0.display(), .0.as_os_str().len()
    )]
    TooLong(PathBuf),
    /// The descriptor is not a listening socket.
    #[error(
        "the descriptor is not a listening Unix stream socket: --fd needs a socket after \
         listen(2), as systemd passes it"
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
}

/// A listening socket. Its file is removed when a connection is made or the value is dropped.
#[derive(Debug)]
pub struct Socket {
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
        // Remove only our own: another socket may have taken the name meanwhile.
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

impl Socket {
    /// Listens on a new socket at `path`; replaces a socket on which no program is listening.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let io = |action| {
            let path = path.to_owned();
            move |source| ListenError::Io { path, action, source }
        };
        if path.as_os_str().len() > MAX_PATH {
            return Err(ListenError::TooLong(path.to_owned()));
        }
        let listener = loop {
            match listen(path) {
                Ok(listener) => break listener,
                Err(err) if err.kind() == io::ErrorKind::AddrInUse => remove_stale(path)?,
                Err(err) if err.kind() == io::ErrorKind::NotFound => {
                    return Err(ListenError::NoDirectory(path.to_owned()));
                }
                Err(err) => return Err(io("listen on it")(err)),
            }
        };
        let file = SocketFile::new(path).map_err(io("look at it"))?;
        info!(path = %path.display(), "listening");
        Ok(Self { listener, file: Some(file) })
    }

    /// Uses a socket that is already listening.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, ListenError> {
        match rustix::net::sockopt::socket_acceptconn(&fd) {
            Ok(true) => {
                info!("listening on the inherited socket");
                Ok(Self { listener: UnixListener::from(fd), file: None })
            }
            _ => Err(ListenError::NotListening),
        }
    }

    /// Returns the listener only; the socket's file is removed.
    pub fn into_listener(self) -> UnixListener {
        drop(self.file);
        self.listener
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// A listening socket for this user only, regardless of the umask: a socket's file gets the mode
/// that the socket had before it was bound (unix(7)).
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Removes the socket `path` if no program is listening on it.
///
/// If several programs find the same stale socket, only the one that holds the directory's lock
/// checks and removes it. Without the lock, a program could remove a socket that another one
/// created after the check.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let io = |action| move |source| ListenError::Io { path: path.to_owned(), action, source };
    let _held = lock_directory(path).map_err(io("lock its directory"))?;
    let found = identity_of(path).ok();
    match path.symlink_metadata() {
        Ok(meta) if !meta.file_type().is_socket() => Err(ListenError::NotSocket(path.to_owned())),
        Ok(_) if is_live(path).map_err(io("find out whether it is in use"))? => {
            Err(ListenError::Live(path.to_owned()))
        }
        // Without the lock, another program may just have created its own socket there.
        Ok(_) if identity_of(path).ok() != found => Ok(()),
        Ok(_) => {
            info!(path = %path.display(), "removing a stale socket");
            std::fs::remove_file(path).map_err(io("remove the stale socket"))
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(io("look at it")(err)),
    }
}

/// Locks the directory of `path` until the result is dropped. Holders only check and remove a
/// socket, so a program that holds the lock for longer is not one of ours: any user who may read
/// the directory can lock it. That must not keep a VM from starting, but is logged.
fn lock_directory(path: &Path) -> io::Result<File> {
    let directory = parent::of(path);
    let file = File::open(directory)?;
    let name = directory.display().to_string();
    match lock::exclusive(&file, &name, LOCK_LIMIT, |text| info!("{text}")) {
        Ok(()) => {}
        Err(error @ LockError::Busy { .. }) => {
            warn!(socket = %path.display(), "continuing without a lock: {error}");
        }
        Err(LockError::System { source, .. }) => return Err(source),
    }
    Ok(file)
}

/// Whether a program is listening on the socket. The check does not use up a connection: a bound
/// socket refuses a connection of the wrong type with another error.
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
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_live_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = Socket::bind(&path).unwrap();
        assert!(matches!(Socket::bind(&path), Err(ListenError::Live(_))));
        first.listener.set_nonblocking(true).unwrap();
        let err = first.listener.accept().unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::WouldBlock, "the probe used up a connection");
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _socket = Socket::bind(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Socket::bind(&path).unwrap();
    }

    #[test]
    fn a_locked_directory_keeps_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let reader = File::open(dir.path()).unwrap();
        lock::shared(&reader, "directory", Duration::ZERO, |_| {}).unwrap();
        Socket::bind(&path).unwrap();
    }

    #[test]
    fn of_many_that_find_a_stale_socket_one_listens() {
        for _ in 0..50 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("s");
            drop(UnixListener::bind(&path).unwrap());
            let start = std::sync::Barrier::new(4);
            let results: Vec<_> = std::thread::scope(|scope| {
                let bind = || {
                    start.wait();
                    Socket::bind(&path)
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(bind)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let (servers, losers): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
            assert_eq!(servers.len(), 1, "{losers:?}");
            assert!(losers.iter().all(|l| matches!(l, Err(ListenError::Live(_)))), "{losers:?}");
            UnixStream::connect(&path).expect("the winner's socket was removed");
        }
    }

    #[test]
    fn a_file_is_not_replaced() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Socket::bind(file.path()), Err(ListenError::NotSocket(_))));
        assert!(file.path().exists());
    }

    #[test]
    fn names_the_longest_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = |len: usize| dir.path().join("x".repeat(len - dir.path().as_os_str().len() - 1));
        Socket::bind(&path(MAX_PATH)).unwrap();
        let err = Socket::bind(&path(MAX_PATH + 1)).unwrap_err().to_string();
        assert!(err.contains("has 108 bytes, but only 107"), "{err}");
    }

    #[test]
    fn someone_elses_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let server = Socket::bind(&path).unwrap();
        // The old inode keeps a name, so the new socket cannot get its number.
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(server);
        assert!(path.exists());
    }

    #[test]
    fn only_listening_sockets_are_taken() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(matches!(Socket::from_fd(one.into()), Err(ListenError::NotListening)));
    }
}
