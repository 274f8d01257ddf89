// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The program under test, as a process with a deadline for everything.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::FdFlags;
use tempfile::TempDir;

/// Longest wait for anything; generous, because the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(5);

pub const MIB: u64 = 1 << 20;

/// Waits until `ready` gives a value.
pub fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < end, "no {what} within {DEADLINE:?}");
        sleep(TICK);
    }
}

/// A pool in its own directory, which is removed with it.
pub struct TestPool {
    dir: TempDir,
    /// Not in `dir`, whose path may be too long for a socket.
    sockets: TempDir,
    pub size: u64,
}

impl TestPool {
    /// In memory.
    pub fn tmpfs(size: u64) -> Self {
        Self::new(TempDir::new_in("/dev/shm").unwrap(), size)
    }

    /// On disk: in cargo's directory, because /tmp is often a tmpfs.
    pub fn file(size: u64) -> Self {
        Self::new(TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), size)
    }

    fn new(dir: TempDir, size: u64) -> Self {
        let pool = Self { dir, sockets: TempDir::new().unwrap(), size };
        File::create_new(pool.path()).unwrap().set_len(size).unwrap();
        pool
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("pool")
    }

    pub fn open(&self) -> File {
        File::options().read(true).write(true).open(self.path()).unwrap()
    }

    /// A path for a socket.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.sockets.path().join(name)
    }

    /// A path next to the pool.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// `vhost-famfs device`.
pub struct Backend {
    child: Child,
    log: File,
    pub socket: PathBuf,
}

pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vhost-famfs"))
}

impl Backend {
    /// Serves `pool` with additional `arguments`, and waits until it is listening.
    pub fn start(pool: &TestPool, arguments: &[&str]) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let socket = pool.socket(&format!("{count}"));
        let mut command = program();
        command.arg("device").arg("--pool").arg(pool.path()).args(arguments);
        Self::spawn(command.arg("--socket-path").arg(&socket), &socket)
    }

    /// Runs a `device` command that listens on `socket`.
    pub fn spawn(command: &mut Command, socket: &Path) -> Self {
        let log = tempfile::tempfile().unwrap();
        let child = command.stderr(log.try_clone().unwrap()).spawn().unwrap();
        let mut backend = Self { child, log, socket: socket.to_owned() };
        until("listening back-end", || {
            if let Some(status) = backend.child.try_wait().unwrap() {
                panic!("ended before it listened, {status}: {}", backend.log());
            }
            backend.log().contains("listening").then_some(())
        });
        backend
    }

    /// Serves `pool`; its log goes to a pipe that nobody reads.
    pub fn start_unheard(pool: &TestPool) -> Self {
        let socket = pool.socket("unheard");
        let listener = UnixListener::bind(&socket).unwrap();
        let inherited = Inherited::new(&listener);
        let mut command = program();
        command.arg("device").arg("--pool").arg(pool.path());
        command.args(["--fd", &inherited.number()]).stderr(std::io::pipe().unwrap().1);
        Self { child: command.spawn().unwrap(), log: tempfile::tempfile().unwrap(), socket }
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        use std::os::unix::fs::FileExt;
        let mut text = vec![0; usize::try_from(self.log.metadata().unwrap().len()).unwrap()];
        self.log.read_exact_at(&mut text, 0).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Waits for a line that contains `text`.
    pub fn expect_log(&self, text: &str) {
        until(&format!("log of {text:?} in:\n{}", self.log()), || {
            self.log().contains(text).then_some(())
        });
    }

    /// A file in its /proc directory.
    pub fn proc_file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap()
    }

    /// A field of proc_pid_status(5).
    pub fn status(&self, field: &str) -> String {
        status_field(&self.proc_file("status"), field)
    }

    /// Its threads, as directories in /proc/PID.
    pub fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks.map(|t| format!("task/{}", t.unwrap().file_name().to_str().unwrap())).collect()
    }

    pub fn thread_status(&self, thread: &str, field: &str) -> String {
        status_field(&self.proc_file(&format!("{thread}/status")), field)
    }

    /// Its resident memory (`VmRSS`).
    pub fn resident_kib(&self) -> u64 {
        self.status("VmRSS").strip_suffix(" kB").unwrap().parse().unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        until("end of the back-end", || self.child.try_wait().unwrap())
    }

    /// Waits for its end, which must be successful.
    pub fn wait_for_success(&mut self) {
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.log());
    }
}

/// A field of the text of proc_pid_status(5).
pub fn status_field(status: &str, field: &str) -> String {
    let value = |line: &str| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned());
    status.lines().find_map(value).unwrap()
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Fails if it has already ended, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the back-end:\n{}", self.log());
        }
    }
}

/// While it exists, programs that are started inherit a descriptor.
pub struct Inherited<'a, T: AsFd>(&'a T);

impl<'a, T: AsFd> Inherited<'a, T> {
    pub fn new(fd: &'a T) -> Self {
        rustix::io::fcntl_setfd(fd, FdFlags::empty()).unwrap();
        Self(fd)
    }

    pub fn number(&self) -> String {
        self.0.as_fd().as_raw_fd().to_string()
    }
}

impl<T: AsFd> Drop for Inherited<'_, T> {
    fn drop(&mut self) {
        rustix::io::fcntl_setfd(self.0, FdFlags::CLOEXEC).unwrap();
    }
}
