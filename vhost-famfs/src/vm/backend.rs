// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The back-end processes of a pool, one per VM.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::deadline::Deadline;
use super::process::{self, Lifetime};
use crate::bounded_log::open_for_writing;

/// How long a back-end may take to open its pool and listen.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How to start a back-end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendConfig {
    /// The `vhost-famfs` program.
    pub program: PathBuf,
    /// The pool.
    pub pool: PathBuf,
    /// Whether to accept a pool of another user.
    pub foreign: bool,
    /// The part of the pool that the VM sees: first byte and number of bytes. `None` for all.
    pub part: Option<(u64, u64)>,
    /// The socket that it creates; nothing exists there yet.
    pub socket: PathBuf,
    /// File for its messages; it is kept.
    pub log: PathBuf,
    /// Whether it writes them to the log's pipe, which already has a reader.
    pub piped: bool,
}

impl BackendConfig {
    /// Program and arguments.
    #[must_use]
    pub fn command_line(&self) -> Vec<OsString> {
        let mut name: Vec<OsString> = vec!["--pool".into(), self.pool.clone().into()];
        if self.foreign {
            name.push("--foreign-pool".into());
        }
        self.with_pool(name)
    }

    /// Like [`BackendConfig::command_line`], with the pool as standard input.
    fn with_open_pool(&self) -> Vec<OsString> {
        self.with_pool(vec!["--pool-fd".into(), "0".into()])
    }

    fn with_pool(&self, pool: Vec<OsString>) -> Vec<OsString> {
        let mut argv: Vec<OsString> = vec![self.program.clone().into(), "device".into()];
        argv.extend(pool);
        if let Some((offset, length)) = self.part {
            argv.extend(["--offset".into(), offset.to_string().into()]);
            argv.extend(["--length".into(), length.to_string().into()]);
        }
        argv.extend(["--socket-path".into(), self.socket.clone().into()]);
        argv
    }
}

/// `vhost-famfs device` for one VM. It ends together with its VM; dropping kills it.
#[derive(Debug)]
pub struct Backend {
    config: BackendConfig,
    child: Child,
    /// Whether it keeps running when this value is dropped.
    left: bool,
}

/// What went wrong with a back-end.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The log cannot be written.
    #[error("cannot write the back-end's log {}", log.display())]
    Log {
        /// The file.
        log: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It cannot be started.
    #[error("cannot start {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It ended before it was listening.
    #[error("the back-end of {} ended ({status}); its messages:\n{output}", pool.display())]
    Ended {
        /// The pool.
        pool: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// Its last messages.
        output: String,
    },
    /// It runs, but is not listening.
    #[error("the back-end of {} is not listening on {} after {START_LIMIT:?}; its \
             messages:\n{output}", pool.display(), socket.display())]
    NoSocket {
        /// The pool.
        pool: PathBuf,
        /// The socket.
        socket: PathBuf,
        /// Its last messages.
        output: String,
    },
    /// It is still running although its VM has ended.
    #[error("the back-end of {} has not ended after {limit:?}; its messages:\n{output}", pool.display())]
    StillRunning {
        /// The pool.
        pool: PathBuf,
        /// How long it was given.
        limit: Duration,
        /// Its last messages.
        output: String,
    },
}

impl Backend {
    /// Starts a back-end and returns once it is listening.
    ///
    /// # Errors
    /// What keeps it from listening, with its messages.
    pub fn start(config: BackendConfig) -> Result<Self, BackendError> {
        let mut backend = Self::spawn(config, Lifetime::Tied)?;
        backend.wait_listening()?;
        Ok(backend)
    }

    /// Starts a back-end without waiting for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(config: BackendConfig, lifetime: Lifetime) -> Result<Self, BackendError> {
        let log = open_for_writing(&config.log, config.piped)
            .map_err(|source| BackendError::Log { log: config.log.clone(), source })?;
        let argv = match lifetime {
            Lifetime::Detached { holds: Some(_), .. } => config.with_open_pool(),
            _ => config.command_line(),
        };
        let child = lifetime
            .start(&argv, log)
            .map_err(|source| BackendError::Spawn { program: config.program.clone(), source })?;
        Ok(Self { config, child, left: false })
    }

    /// Waits until it is listening.
    ///
    /// # Errors
    /// What keeps it from listening, with its messages.
    pub fn wait_listening(&mut self) -> Result<(), BackendError> {
        // Check without connecting: a back-end serves one connection, and that is for QEMU.
        let listens = Deadline::after(START_LIMIT).poll(|| match self.exit_status() {
            Some(status) => Err(self.ended(status)),
            None => Ok(listening(&self.config.socket).then_some(())),
        })?;
        listens.ok_or_else(|| BackendError::NoSocket {
            pool: self.config.pool.clone(),
            socket: self.config.socket.clone(),
            output: process::tail(&self.config.log),
        })
    }

    /// Lets it keep running after this value is dropped.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// The socket for the VM.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.config.socket
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for it to end after its VM.
    ///
    /// # Errors
    /// It ended with an error, or is still running after `limit`; then it is killed.
    pub fn finish(mut self, limit: Duration) -> Result<(), BackendError> {
        let ended = Deadline::after(limit)
            .poll(|| Ok::<_, std::convert::Infallible>(self.exit_status()))
            .unwrap_or_else(|never| match never {});
        match ended {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.ended(status)),
            None => Err(BackendError::StillRunning {
                pool: self.config.pool.clone(),
                limit,
                output: process::tail(&self.config.log),
            }),
        }
    }

    fn ended(&self, status: ExitStatus) -> BackendError {
        let output = process::tail(&self.config.log);
        BackendError::Ended { pool: self.config.pool.clone(), status, output }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        // Both fail only for a child that has already been reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.config.socket);
    }
}

/// Whether the kernel has a socket that listens on a path.
fn listening(socket: &Path) -> bool {
    let table = fs::read("/proc/net/unix").unwrap_or_default();
    let socket = socket.as_os_str().as_bytes();
    table.split(|&byte| byte == b'\n').any(|line| listens_on(line) == Some(socket))
}

/// The path in a line of /proc/net/unix, if that socket is listening.
///
/// The columns are `Num RefCount Protocol Flags Type St Inode Path`; flag 0x10000
/// (`__SO_ACCEPTCON`) marks a listening socket (proc(5), net/unix).
fn listens_on(line: &[u8]) -> Option<&[u8]> {
    let mut rest = line;
    let mut flags: &[u8] = b"";
    for column in 0..7 {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|&byte| byte == b' ')?;
        if column == 3 {
            flags = &rest[..end];
        }
        rest = &rest[end + 1..];
    }
    (flags == b"00010000").then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn config(dir: &Path, program: &str) -> BackendConfig {
        BackendConfig {
            program: program.into(),
            pool: dir.join("pool"),
            foreign: false,
            part: None,
            socket: dir.join("a socket"),
            log: dir.join("log"),
            piped: false,
        }
    }

    #[test]
    fn only_a_listening_socket_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a socket");
        assert!(!listening(&path));
        let listener = UnixListener::bind(&path).unwrap();
        assert!(listening(&path));
        let client = UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!listening(&path), "{client:?}");
        assert_eq!(listens_on(b"Num       RefCount Protocol Flags    Type St Inode Path"), None);
    }

    #[test]
    fn a_name_that_is_no_text_counts_when_it_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff socket"));
        assert!(!listening(&path));
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(listening(&path));
    }

    #[test]
    fn an_early_end_is_reported_with_what_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("back-end");
        fs::write(&program, "#!/bin/sh\necho \"no pool: $3\" >&2; exit 7\n").unwrap();
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let error = Backend::start(config(dir.path(), program.to_str().unwrap())).unwrap_err();
        let pool = dir.path().join("pool");
        let expected = format!(
            "the back-end of {0} ended (exit status: 7); its messages:\n  no pool: {0}",
            pool.display()
        );
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Backend::start(config(dir.path(), "/nonexistent/vhost-famfs")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/vhost-famfs"), "{error}");
    }
}
