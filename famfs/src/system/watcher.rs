// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The one program that follows the log of a mounted file system: finds it, wakes it, and asks it
//! to end, because it keeps the file system from being unmounted.
//!
//! It holds the lock of a file below /run/famfs, named after the file system's device number, and
//! writes its process id there. The lock says whether it lives; the id says which process it is.
//! Beside it is a socket for wake-ups.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Signal;

use crate::system::lock::{self, Mode};
use crate::system::process::Handle;
use crate::system::wake::{self, WakeSocket};

/// Directory of the files; a boot removes it, and ends the watchers.
const DIR: &str = "/run/famfs";
/// Extension of the sockets.
const WAKE: &str = "wake";
/// How long a watcher may take to write its id.
const BEGINNING: Duration = Duration::from_secs(1);
/// How long a watcher may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a watcher can neither start nor be asked to end.
#[derive(Debug, thiserror::Error)]
pub enum WatcherError {
    /// There is one already.
    #[error("{} is already followed by process {pid}", mount_point.display())]
    Busy {
        /// The mount point.
        mount_point: PathBuf,
        /// Process id of the other.
        pid: u32,
    },
    /// The watcher did not end.
    #[error("process {pid}, which follows the log, did not end within {} s", PATIENCE.as_secs())]
    Stays {
        /// Process id of the watcher.
        pid: u32,
    },
    /// A file or process could not be used.
    #[error("cannot {action} {}", path.display())]
    System {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// The right to follow a mounted file system, until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    _lock: File,
}

impl Watcher {
    /// Becomes the one watcher of the file system that is mounted at a directory.
    pub fn begin(mount_point: &Path) -> Result<Self, WatcherError> {
        fs::create_dir_all(DIR).map_err(|err| system("make", Path::new(DIR), err))?;
        let path = file_of(mount_point)?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o644);
        let mut file = options.open(&path).map_err(|err| system("open", &path, err))?;
        if !lock::within(&file, Mode::Exclusive, Duration::ZERO)
            .map_err(|err| system("lock", &path, err))?
        {
            let pid = read_pid(&mut file).unwrap_or(0);
            return Err(WatcherError::Busy { mount_point: mount_point.to_owned(), pid });
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|err| system("write", &path, err))?;
        Ok(Self { _lock: file })
    }

    /// Begins to be woken by [`wake`].
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(&self, mount_point: &Path) -> Result<WakeSocket, WatcherError> {
        let path = file_of(mount_point)?.with_extension(WAKE);
        // That of an earlier watcher; this one holds the lock.
        let _ = fs::remove_file(&path);
        WakeSocket::bind(&path).map_err(|err| system("make", &path, err))
    }

    /// The process that follows a mounted file system, if there is one.
    pub fn of(mount_point: &Path) -> Result<Option<u32>, WatcherError> {
        find(mount_point)
    }
}

/// Wakes who follows the file system with that device number, if there is somebody: something was
/// published.
pub fn wake(device: u64) {
    // Who cannot be woken finds it at the next look.
    let _ = wake::wake(&file_of_device(device).with_extension(WAKE));
}

/// A process that follows a mounted file system, held so that its id cannot pass to another.
#[derive(Debug)]
pub struct Running {
    process: Handle,
    path: PathBuf,
}

impl Running {
    /// The watcher of the file system that is mounted at a directory, if there is one.
    pub fn find(mount_point: &Path) -> Result<Option<Self>, WatcherError> {
        let Some(pid) = find(mount_point)? else { return Ok(None) };
        let path = file_of(mount_point)?;
        let process = match Handle::open(pid) {
            Err(err) if Errno::from_io_error(&err) == Some(Errno::SRCH) => return Ok(None),
            process => process.map_err(|err| system("find the process of", &path, err))?,
        };
        // Another process may have got the id between reading and opening, but not if the lock is
        // still held by the one that wrote it.
        let same = find(mount_point)? == Some(pid);
        Ok(same.then_some(Self { process, path }))
    }

    /// Asks it to end, and waits until it has.
    pub fn end(&self) -> Result<(), WatcherError> {
        let error = |err| system("end the process of", &self.path, err);
        self.process.signal(Signal::TERM).map_err(error)?;
        match self.process.wait(PATIENCE) {
            true => Ok(()),
            false => Err(WatcherError::Stays { pid: self.process.pid() }),
        }
    }
}

fn find(mount_point: &Path) -> Result<Option<u32>, WatcherError> {
    let path = file_of(mount_point)?;
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(system("open", &path, err)),
    };
    let deadline = Instant::now() + BEGINNING;
    loop {
        if lock::within(&file, Mode::Shared, Duration::ZERO)
            .map_err(|err| system("lock", &path, err))?
        {
            return Ok(None);
        }
        // A watcher that has just started has not written its id yet.
        match read_pid(&mut file) {
            Some(pid) => return Ok(Some(pid)),
            None if Instant::now() >= deadline => return Ok(None),
            None => sleep(Duration::from_millis(1)),
        }
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 1)
}

fn file_of(mount_point: &Path) -> Result<PathBuf, WatcherError> {
    let found = fs::metadata(mount_point).map_err(|err| system("examine", mount_point, err))?;
    Ok(file_of_device(found.dev()))
}

fn file_of_device(device: u64) -> PathBuf {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    Path::new(DIR).join(format!("watch-{major}-{minor}.pid"))
}

fn system(action: &'static str, path: &Path, source: io::Error) -> WatcherError {
    WatcherError::System { action, path: path.to_owned(), source }
}
