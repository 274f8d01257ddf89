// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Stands in for QEMU in tests of the launcher: it opens the sockets that its command line names,
//! greets like a guest's agent, and ends at `poweroff` and `quit`. The name under which it is
//! started selects its behaviour:
//!
//! - `qemu`: behaves correctly.
//! - `qemu-slow`: the guest takes a moment to boot.
//! - `qemu-deaf`: the guest does not power off; QEMU ends when asked to.
//! - `qemu-stuck`: QEMU does not end either, and must be killed.
//! - `qemu-rude`: guest and QEMU send [`RUDE`] wherever they can send any text.
//! - `qemu-failing`: like `qemu-rude`, and the guest cannot mount the pool.
//! - `qemu-mute`: the guest has no agent.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use protocol::attach::Attach;
use protocol::exec::{self, Bytes, Exec, Reply, Request, Status, Stream};
use serde_json::{Value, json};

use super::guest_copy;

/// Its maximum lifetime, so that a killed test leaves none behind.
const LIFETIME: Duration = Duration::from_secs(600);

/// How long a slow guest takes.
const SLOW: Duration = Duration::from_millis(150);

/// The exit code of QEMU after the trial of an accelerator.
const TRIAL: u8 = 85;

/// The names under which it can be started.
pub const NAMES: [&str; 7] =
    ["qemu", "qemu-slow", "qemu-deaf", "qemu-stuck", "qemu-rude", "qemu-failing", "qemu-mute"];

/// Control characters of all kinds: a title, a colour, an erased line and reversed text.
pub const RUDE: &str = "a\x1b]0;pwned\x07\x1b[2J\r\x08\x7f\u{9b}31m\u{202e}\u{2066}z";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Normal,
    Slow,
    Deaf,
    Stuck,
    Rude,
    Failing,
    Mute,
}

impl Mode {
    /// Text from a guest or from QEMU.
    fn text(self, polite: &str) -> String {
        let is_rude = matches!(self, Self::Rude | Self::Failing);
        if is_rude { RUDE.to_owned() } else { polite.to_owned() }
    }
}

/// Acts as QEMU until it is told to quit.
pub fn run(name: &str) -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().skip(1).collect();
    let has = |word: &str| argv.iter().any(|arg| arg.to_string_lossy().contains(word));
    if has("-version") {
        println!("QEMU emulator version 11.1.3");
        return ExitCode::SUCCESS;
    }
    if has("isa-debug-exit") {
        return ExitCode::from(TRIAL);
    }
    let mode = match name {
        "qemu" => Mode::Normal,
        "qemu-slow" => Mode::Slow,
        "qemu-deaf" => Mode::Deaf,
        "qemu-stuck" => Mode::Stuck,
        "qemu-rude" => Mode::Rude,
        "qemu-failing" => Mode::Failing,
        "qemu-mute" => Mode::Mute,
        _ => panic!("{name}: no such stand-in"),
    };
    // A started device holds the connection to its back-end.
    let pools = argv.iter().filter(|arg| is_chardev(arg, "pool"));
    let held: Vec<_> = pools.map(|arg| UnixStream::connect(path_in(arg)).unwrap()).collect();
    if let Some(console) = argv.iter().find(|arg| is_chardev(arg, "console")) {
        serve_console(console, mode);
    }
    eprint!("{}", mode.text(""));
    let qmp = argv.iter().find(|arg| arg.as_bytes().starts_with(b"unix:")).unwrap();
    serve(path_in(qmp), move |stream| monitor(stream, mode));
    for agent in argv.iter().filter(|arg| is_chardev(arg, "agent")) {
        serve(path_in(agent), move |stream| agent_of_guest(stream, mode));
    }
    thread::sleep(LIFETIME);
    drop(held);
    ExitCode::FAILURE
}

fn is_chardev(arg: &OsString, id: &str) -> bool {
    let text = arg.to_string_lossy();
    let of_id = text.contains(&format!(",id={id}"));
    of_id && ["socket,", "file,"].iter().any(|kind| text.starts_with(kind))
}

/// The path in an option list: after `path=` or `unix:`, up to a comma that is not doubled.
fn path_in(arg: &OsString) -> PathBuf {
    value_in(arg, "path=").or_else(|| value_in(arg, "unix:")).unwrap()
}

pub fn value_in(arg: &OsString, key: &str) -> Option<PathBuf> {
    let bytes = arg.as_bytes();
    let start = bytes.windows(key.len()).position(|part| part == key.as_bytes())? + key.len();
    let mut value = Vec::new();
    let mut rest = bytes[start..].iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte == b',' && rest.next_if_eq(&b',').is_none() {
            break;
        }
        value.push(byte);
    }
    Some(OsString::from_vec(value).into())
}

/// Serves one client after the other, like QEMU's character devices.
fn serve(path: PathBuf, client: impl Fn(UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(client));
}

/// A console that prints one line and discards input.
fn serve_console(console: &OsString, mode: Mode) {
    let line = mode.text("the stand-in for a guest is up") + "\r\n";
    if console.as_bytes().starts_with(b"file,") {
        fs::write(path_in(console), line).unwrap();
        return;
    }
    if let Some(log) = value_in(console, "logfile=") {
        fs::write(log, line).unwrap();
    }
    serve(path_in(console), |stream| {
        let _ = std::io::copy(&mut &stream, &mut std::io::sink());
    });
}

/// QEMU's control socket (QMP).
fn monitor(stream: UnixStream, mode: Mode) {
    let _ = (&stream).write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
    for line in BufReader::new(&stream).lines().map_while(Result::ok) {
        let request: Value = serde_json::from_str(&line).unwrap();
        let answer = match mode {
            Mode::Rude | Mode::Failing if request["execute"] != "qmp_capabilities" => {
                json!({"error": {"class": RUDE, "desc": RUDE}})
            }
            _ => json!({"return": {}}),
        };
        let _ = (&stream).write_all(format!("{answer}\r\n").as_bytes());
        if request["execute"] == "quit" && mode != Mode::Stuck {
            std::process::exit(0);
        }
    }
}

/// The agent in the guest. A command that it runs prints its arguments, but a shell's command and
/// copies are those of the host.
pub fn agent_of_guest(stream: UnixStream, mode: Mode) {
    let port = Port::new(&stream);
    let (mut copy, mut name) = (None, None);
    for line in BufReader::new(&stream).lines().map_while(Result::ok) {
        if line.is_empty() {
            continue;
        }
        match serde_json::from_str(&line).unwrap() {
            _ if mode == Mode::Mute => {}
            Request::Hello { session, .. } => {
                if mode == Mode::Slow {
                    thread::sleep(SLOW);
                }
                name = Some(session.clone());
                port.say(&hello(session, mode));
            }
            Request::Ping {} => port.say(&Reply::Pong { session: name.clone() }),
            Request::Exec(Exec { argv, .. }) if argv == ["nonsense"] => {
                let _ = (&stream).write_all((mode.text("nonsense") + "\n").as_bytes());
            }
            Request::Exec(Exec { id, argv, .. }) if argv == ["wait"] => {
                port.say(&Reply::Accepted { id });
            }
            Request::Exec(Exec { id, argv, .. }) if guest_copy::is_for(&argv) => {
                port.say(&Reply::Accepted { id });
                copy = guest_copy::start(port.clone(), id, &argv, mode == Mode::Rude);
            }
            Request::Exec(Exec { id, .. }) if mode == Mode::Rude => {
                port.say(&Reply::Refused { id: Some(id), reason: mode.text("") });
            }
            Request::Exec(Exec { id, argv, .. }) if argv.starts_with(&["sh".into()]) => {
                port.say(&Reply::Accepted { id });
                let status = Command::new(&argv[0]).args(&argv[1..]).status().unwrap();
                let status = Status::Code(status.code().unwrap());
                port.say(&Reply::Exit { id, status });
            }
            Request::Exec(Exec { id, argv, .. }) => {
                port.say(&Reply::Accepted { id });
                let data = Bytes((argv.join(" ") + "\n").into_bytes());
                port.say(&Reply::Output { id, stream: Stream::Stdout, data });
                port.say(&Reply::Exit { id, status: Status::Code(0) });
            }
            Request::Stdin { data: Bytes(data), .. } if data.is_empty() => copy = None,
            Request::Stdin { id, data: Bytes(data) } => {
                if let Some(input) = &mut copy {
                    // A copy that has failed has said so.
                    let _ = input.write_all(&data);
                    port.say(&Reply::Taken { id, bytes: data.len() as u64 });
                }
            }
            // Its commands need no start, and have no terminal.
            Request::Start { .. } | Request::Resize { .. } => {}
            Request::Poweroff {} if matches!(mode, Mode::Deaf | Mode::Stuck) => {}
            Request::Poweroff {} => std::process::exit(0),
        }
    }
}

/// The agent's end of a connection, for several threads.
#[derive(Clone)]
pub struct Port(Arc<Mutex<UnixStream>>);

impl Port {
    fn new(stream: &UnixStream) -> Self {
        Self(Arc::new(Mutex::new(stream.try_clone().unwrap())))
    }

    /// Sends a message, if the host still listens.
    pub fn say(&self, reply: &Reply) {
        let _ = self.0.lock().unwrap().write_all(&exec::encode(reply).unwrap());
    }
}

fn hello(session: String, mode: Mode) -> Reply {
    let attach = match mode {
        Mode::Failing => {
            Attach::Failed { result: mode.text(""), status: mode.text(""), uptime_ms: 4 }
        }
        _ => Attach::Mounted { uptime_ms: 4, took_ms: 1 },
    };
    Reply::Hello {
        version: exec::VERSION,
        session,
        boot_id: mode.text("a boot"),
        uptime_ms: 5,
        attach,
        ran: None,
    }
}
