// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the sandbox allows and what it does not. Each case runs this program again in the sandbox,
//! with the name of an action as its argument.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it is")]

mod sys;

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};
use std::thread;

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::net::SocketFlags;
use rustix::thread::SecureComputingMode;
use vhost_famfs::device::sandbox::{Sandbox, Violation};

/// SIGSYS, which ends a process that makes a forbidden system call.
const SIGSYS: i32 = 31;

type Deed = (&'static str, fn());

/// Actions that kill the process. Without a sandbox, each would succeed or fail harmlessly.
const FORBIDDEN: [Deed; 22] = [
    ("open a file", || drop(File::open("/dev/null"))),
    ("create a file", || drop(File::create("/dev/shm/vhost-famfs-forbidden"))),
    ("remove a file", || assert!(fs::remove_file("/nonexistent").is_err())),
    ("look at a file by its name", || drop(fs::metadata("/dev/null"))),
    ("look whether a name is there", || drop(fs::symlink_metadata("/dev/null"))),
    // The flags say that a descriptor is meant, but the name says otherwise, and the kernel follows
    // the name.
    ("look at a file by a name that should be empty", || {
        let flags = StatxFlags::BASIC_STATS;
        let _ = rustix::fs::statx(CWD, "/dev/null", AtFlags::EMPTY_PATH, flags);
    }),
    ("look at a file by a name that should be empty, the old way", || {
        let _ = rustix::fs::statat(CWD, "/dev/null", AtFlags::EMPTY_PATH);
    }),
    // What a front-end can send with a message.
    ("accept a connection of a socket that it was given", || {
        let _ = rustix::net::accept_with(io::stdin(), SocketFlags::CLOEXEC);
    }),
    ("change its filter", || {
        let filter = rustix::thread::set_secure_computing_mode(SecureComputingMode::Filter);
        let _ = filter;
    }),
    ("raise a limit", || {
        let limit = rustix::process::Rlimit { current: Some(1), maximum: Some(1) };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Core, limit);
    }),
    ("read a link", || drop(fs::read_link("/proc/self/exe"))),
    ("list a directory", || drop(fs::read_dir("/"))),
    ("connect by TCP", || drop(TcpStream::connect("127.0.0.1:1"))),
    ("make a UDP socket", || drop(UdpSocket::bind("127.0.0.1:0"))),
    ("connect to a socket", || drop(UnixStream::connect("/nonexistent"))),
    ("listen", || drop(UnixListener::bind("/nonexistent/socket"))),
    ("make a pair of sockets", || drop(UnixStream::pair())),
    ("run a program", || drop(Command::new("true").status())),
    ("make memory executable", || _ = sys::map_executable_page()),
    ("signal another process", || {
        let _ = rustix::process::kill_process(
            rustix::process::getppid().unwrap(),
            rustix::process::Signal::CONT,
        );
    }),
    ("ask for its capabilities", || {
        let _ = rustix::thread::capabilities(None);
    }),
    ("change its directory", || {
        let _ = rustix::process::chdir("/");
    }),
];

/// What a back-end and its libraries do.
const ALLOWED: [Deed; 8] = [
    ("nothing", || ()),
    ("log", || io::stderr().write_all(b"a line\n").unwrap()),
    ("start and end threads", || {
        for _ in 0..20 {
            let thread = thread::Builder::new().name("named".to_owned());
            thread.spawn(|| vec![0_u8; 1 << 20].len()).unwrap().join().unwrap();
        }
    }),
    ("take and give back memory", || {
        for shift in 10..27 {
            let block = vec![1_u8; 1 << shift];
            assert_eq!(block.iter().rev().copied().next(), Some(1));
        }
    }),
    ("make an event descriptor", || {
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
    }),
    ("tell the time and draw random numbers", || {
        let now = std::time::SystemTime::now();
        let map = std::collections::HashMap::from([(now, 1)]);
        assert_eq!(map.len(), 1);
    }),
    ("sleep", || thread::sleep(std::time::Duration::from_millis(1))),
    ("duplicate a descriptor", || {
        let copy = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3).unwrap();
        assert!(rustix::fs::fstat(copy).is_ok());
    }),
];

fn main() -> ExitCode {
    if let Some(name) =
        std::env::args().nth(1).and_then(|word| word.strip_prefix("do:").map(str::to_owned))
    {
        return locked_down(&name);
    }
    let mut failed = 0;
    let mut check = |name: &str, ok: bool, status: ExitStatus| {
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        if !ok {
            println!("  {status}");
            failed += 1;
        }
    };
    for (name, _) in FORBIDDEN {
        let status = run(name, &[]);
        check(
            &format!("a back-end that would {name} is killed"),
            status.signal() == Some(SIGSYS),
            status,
        );
    }
    for (name, _) in ALLOWED {
        let status = run(name, &[]);
        check(&format!("a back-end can {name}"), status.success(), status);
    }
    let (name, _) = FORBIDDEN[0];
    let status = run(name, &["log"]);
    check("the log mode lets a call through", status.success(), status);
    let total = FORBIDDEN.len() + ALLOWED.len() + 1;
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {} passed; {failed} failed; 0 ignored", total - failed);
    ExitCode::from(u8::from(failed > 0))
}

fn run(deed: &str, mode: &[&str]) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(format!("do:{deed}")).args(mode).status().unwrap()
}

fn locked_down(name: &str) -> ExitCode {
    let violation =
        if std::env::args().nth(2).is_some() { Violation::Log } else { Violation::Kill };
    let all = FORBIDDEN.iter().chain(&ALLOWED);
    let (_, deed) = all.into_iter().find(|(deed, _)| *deed == name).unwrap();
    let entered = Sandbox::prepare(violation).unwrap().enter().unwrap();
    entered.connecting().unwrap();
    entered.connected().unwrap();
    deed();
    ExitCode::SUCCESS
}
