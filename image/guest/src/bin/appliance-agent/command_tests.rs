// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;
use protocol::attach::Attach;
use protocol::exec::decode;
use protocol::line::Lines;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::watched::{LIMIT, is_running, wait_for_end};

/// Collects the output of an outlet.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn replies(&self) -> Vec<Reply> {
        let mut lines = Lines::default();
        lines.push(&self.0.lock().unwrap());
        std::iter::from_fn(|| lines.next_line())
            .filter(|line| line.as_ref().is_ok_and(|line| !line.is_empty()))
            .map(|line| decode(&line.unwrap()).unwrap())
            .filter(|reply| *reply != greeting() && !matches!(reply, Reply::Taken { .. }))
            .collect()
    }

    /// How many bytes of standard input were taken.
    fn taken(&self) -> u64 {
        let mut lines = Lines::default();
        lines.push(&self.0.lock().unwrap());
        std::iter::from_fn(|| lines.next_line())
            .filter(|line| line.as_ref().is_ok_and(|line| !line.is_empty()))
            .map(|line| match decode(&line.unwrap()).unwrap() {
                Reply::Taken { bytes, .. } => bytes,
                _ => 0,
            })
            .sum()
    }

    /// Waits for the last reply of a command.
    fn finished(&self) -> Vec<Reply> {
        let start = Instant::now();
        loop {
            let replies = self.replies();
            if let Some(Reply::Exit { .. }) = replies.last() {
                return replies;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "no end: {replies:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Stands in for a session's first reply.
fn greeting() -> Reply {
    Reply::Attach { attach: Attach::Off }
}

struct Bench {
    slot: Slot,
    outlet: Outlet,
    sink: Sink,
}

impl Bench {
    fn new() -> Self {
        let sink = Sink::default();
        let outlet = Outlet::new(sink.clone());
        outlet.open(1, greeting);
        Self { slot: Slot::default(), outlet, sink }
    }

    fn start(&self, id: u64, argv: &[&str], stdin: bool) -> Result<(), String> {
        let argv: Vec<String> = argv.iter().copied().map(Into::into).collect();
        self.slot.start(Exec { id, argv, stdin, ..Exec::default() }, 1, &self.outlet)
    }
}

fn text(replies: &[Reply], wanted: Stream) -> String {
    let bytes = replies.iter().filter_map(|reply| match reply {
        Reply::Output { stream, data, .. } if *stream == wanted => Some(data.0.clone()),
        _ => None,
    });
    String::from_utf8(bytes.flatten().collect()).unwrap()
}

#[test]
fn input_output_and_exit_code_arrive() {
    input_output(&Bench::new());
}

fn input_output(bench: &Bench) {
    bench.start(1, &["sh", "-c", "cat; echo oops >&2; exit 3"], true).unwrap();
    bench.slot.input(1, b"hello".to_vec());
    bench.slot.input(1, Vec::new());
    let replies = bench.sink.finished();
    assert_eq!(text(&replies, Stream::Stdout), "hello");
    assert_eq!(text(&replies, Stream::Stderr), "oops\n");
    assert_eq!(replies.last(), Some(&Reply::Exit { id: 1, status: Status::Code(3) }));
    bench.start(2, &["true"], false).expect("the slot is free again");
}

#[test]
fn one_command_at_a_time() {
    let bench = Bench::new();
    bench.start(1, &["sleep", "60"], false).unwrap();
    assert_eq!(bench.start(2, &["true"], false).unwrap_err(), "command 1 is still running");
    bench.slot.kill();
    let replies = bench.sink.finished();
    assert_eq!(replies, [Reply::Exit { id: 1, status: Status::Signal(9) }]);
}

#[test]
fn what_cannot_run_has_the_exit_code_of_shells_and_says_why() {
    let bench = Bench::new();
    let table = [
        ("/nonexistent", 127, "No such file"),
        ("no-such-program", 127, "No such file"),
        ("/dev/null", 126, "Permission denied"),
        ("/", 126, "Permission denied"),
    ];
    for (id, (program, code, why)) in (1..).zip(table) {
        bench.start(id, &[program], false).unwrap();
        let replies = bench.sink.finished();
        assert_eq!(replies.last(), Some(&Reply::Exit { id, status: Status::Code(code) }));
        let said = text(&replies, Stream::Stderr);
        let said = said.lines().last().unwrap();
        assert!(said.starts_with(&format!("cannot run {program}: {why}")), "{said}");
    }
    assert_eq!(bench.start(9, &[], false).unwrap_err(), "no program to run");
}

#[test]
fn an_earlier_session_is_not_heard() {
    let bench = Bench::new();
    bench.start(1, &["sh", "-c", "echo late; sleep 60"], false).unwrap();
    bench.outlet.close();
    bench.slot.kill();
    bench.outlet.open(2, greeting);
    // The same id, in the next session.
    let exec = Exec { id: 1, argv: ["echo", "new"].map(Into::into).into(), ..Exec::default() };
    bench.slot.start(exec, 2, &bench.outlet).unwrap();
    let replies = bench.sink.finished();
    assert!(text(&replies, Stream::Stdout).ends_with("new\n"), "{replies:?}");
    assert_eq!(replies.last(), Some(&Reply::Exit { id: 1, status: Status::Code(0) }));
    assert_eq!(replies.iter().filter(|reply| matches!(reply, Reply::Exit { .. })).count(), 1);
}

#[test]
fn input_that_is_not_taken_ends_the_command_beyond_the_window() {
    let bench = Bench::new();
    bench.start(1, &["sleep", "60"], true).unwrap();
    // A pipe takes 64 KiB of a program that does not read.
    for _ in 0..=WINDOW / CHUNK as u64 + 2 {
        bench.slot.input(1, vec![0; CHUNK]);
    }
    let replies = bench.sink.finished();
    assert_eq!(replies, [Reply::Exit { id: 1, status: Status::Signal(9) }]);
}

#[test]
fn every_byte_that_is_taken_is_reported() {
    const SENT: u64 = 4 * WINDOW;
    let bench = Bench::new();
    bench.start(1, &["wc", "-c"], true).unwrap();
    let taken = || bench.sink.taken();
    let (start, mut sent) = (Instant::now(), 0);
    while sent < SENT {
        if sent - taken() + CHUNK as u64 <= WINDOW {
            bench.slot.input(1, vec![0; CHUNK]);
            sent += CHUNK as u64;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "{} of {sent} are taken", taken());
    }
    bench.slot.input(1, Vec::new());
    assert_eq!(text(&bench.sink.finished(), Stream::Stdout).trim(), sent.to_string());
}

#[test]
fn a_command_that_does_not_read_stops_no_other() {
    let benches = [Bench::new(), Bench::new()];
    benches[0].start(1, &["sleep", "60"], true).unwrap();
    for _ in 0..WINDOW / CHUNK as u64 {
        benches[0].slot.input(1, vec![0; CHUNK]);
    }
    input_output(&benches[1]);
    benches[0].slot.kill();
}

/// The part of a text before its first carriage return; a terminal ends lines with one.
fn first_line(replies: &[Reply]) -> String {
    text(replies, Stream::Stdout).split('\r').next().unwrap_or_default().to_owned()
}

#[test]
fn a_terminal_has_a_size_that_changes_and_keys_that_interrupt() {
    let bench = Bench::new();
    let tty = Some(Size { rows: 33, columns: 99 });
    let exec = |id, script: &str| {
        let argv = ["sh", "-c", script].map(Into::into).into();
        Exec { id, argv, stdin: true, tty, ..Exec::default() }
    };
    let start = |exec| bench.slot.start(exec, 1, &bench.outlet).unwrap();
    start(exec(1, "stty size; tty >/dev/null && exit 3"));
    let replies = bench.sink.finished();
    assert_eq!(first_line(&replies), "33 99");
    assert_eq!(replies.last(), Some(&Reply::Exit { id: 1, status: Status::Code(3) }));

    let bench = Bench::new();
    let start = |exec| bench.slot.start(exec, 1, &bench.outlet).unwrap();
    start(exec(2, "until [ \"$(stty size)\" = '1 65535' ]; do :; done; exit 4"));
    bench.slot.resize(9, Size { rows: 7, columns: 7 });
    bench.slot.resize(2, Size { rows: 1, columns: u16::MAX });
    assert_eq!(bench.sink.finished().last(), Some(&Reply::Exit { id: 2, status: Status::Code(4) }));

    // What remains in the background does not keep the command from ending.
    let bench = Bench::new();
    let start = |exec| bench.slot.start(exec, 1, &bench.outlet).unwrap();
    start(exec(3, "trap 'exit 5' INT; sleep 1000 & echo on; while :; do sleep 0.1; done"));
    let begun = Instant::now();
    while bench.sink.replies().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no output");
        thread::sleep(Duration::from_millis(5));
    }
    bench.slot.input(3, vec![0x03]);
    let replies = bench.sink.finished();
    assert_eq!(first_line(&replies), "on");
    assert_eq!(replies.last(), Some(&Reply::Exit { id: 3, status: Status::Code(5) }));
}

#[test]
fn a_directory_or_user_that_is_not_there_is_named() {
    let bench = Bench::new();
    let exec = |id| Exec { id, argv: vec!["pwd".into()], ..Exec::default() };
    let table = [
        (Exec { workdir: Some("/proc/self".into()), ..exec(1) }, 0, "/proc/self"),
        (Exec { workdir: Some("/none".into()), ..exec(2) }, 126, "cannot enter /none: No such"),
        (
            Exec { workdir: Some("/dev/null".into()), ..exec(3) },
            126,
            "cannot enter /dev/null: Not a",
        ),
        (Exec { user: Some("no-such".into()), ..exec(4) }, 126, "no user no-such in the guest's"),
        (Exec { workdir: Some("/tmp\0x".into()), ..exec(5) }, 126, "cannot enter /tmp"),
        (
            Exec { argv: vec!["no-such-program".into()], workdir: Some("/".into()), ..exec(6) },
            127,
            "cannot run no-such-program",
        ),
    ];
    for (exec, code, words) in table {
        let id = exec.id;
        bench.slot.start(exec, 1, &bench.outlet).unwrap();
        let replies = bench.sink.finished();
        assert_eq!(replies.last(), Some(&Reply::Exit { id, status: Status::Code(code) }));
        let stream = if code == 0 { Stream::Stdout } else { Stream::Stderr };
        let said = text(&replies, stream);
        let said = said.lines().last().unwrap();
        assert!(said.starts_with(words) || code == 0 && said.starts_with("/proc/"), "{said}");
    }
}

/// An interactive shell on a terminal, with a job in the background; returns the job's process.
fn shell_with_a_job(bench: &Bench) -> u32 {
    let argv = ["bash", "--norc", "--noprofile", "-i"].map(Into::into).into();
    let tty = Some(Size { rows: 24, columns: 80 });
    bench
        .slot
        .start(Exec { id: 1, argv, stdin: true, tty, ..Exec::default() }, 1, &bench.outlet)
        .unwrap();
    bench.slot.input(1, b"sleep 1000 & echo \"<$!>\"\r".to_vec());
    let start = Instant::now();
    loop {
        let shown = text(&bench.sink.replies(), Stream::Stdout);
        let numbers = shown.split('<').skip(1).filter_map(|rest| rest.split_once('>'));
        if let Some(pid) = numbers.filter_map(|(number, _)| number.parse().ok()).next() {
            return pid;
        }
        assert!(start.elapsed() < LIMIT, "no job: {shown:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_shell_ends_while_its_job_runs_and_all_that_it_wrote_arrives() {
    let bench = Bench::new();
    let job = shell_with_a_job(&bench);
    bench.slot.input(1, b"seq 10000; echo at the end; exit 5\r".to_vec());
    let replies = bench.sink.finished();
    assert_eq!(replies.last(), Some(&Reply::Exit { id: 1, status: Status::Code(5) }));
    let shown = text(&replies, Stream::Stdout);
    assert!(shown.contains("\r\n10000\r\nat the end\r\n"), "{shown:?}");
    assert!(is_running(job), "the job has ended");
    kill_process(Pid::from_raw(job.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn the_end_of_a_session_ends_the_jobs_of_its_shell() {
    let bench = Bench::new();
    let job = shell_with_a_job(&bench);
    bench.slot.kill();
    wait_for_end(job);
    assert_eq!(
        bench.sink.finished().last(),
        Some(&Reply::Exit { id: 1, status: Status::Signal(9) })
    );
}

#[test]
fn output_without_end_in_the_background_does_not_keep_a_shell() {
    let bench = Bench::new();
    let argv = ["sh", "-c", "trap '' HUP; (while echo more; do :; done) & exit 6"];
    let argv = argv.map(Into::into).into();
    let tty = Some(Size { rows: 24, columns: 80 });
    bench.slot.start(Exec { id: 1, argv, tty, ..Exec::default() }, 1, &bench.outlet).unwrap();
    assert_eq!(bench.sink.finished().last(), Some(&Reply::Exit { id: 1, status: Status::Code(6) }));
}

/// Needs root, as the agent has.
#[test]
fn a_user_can_open_its_streams_but_not_enter_the_directory_of_another() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let bench = Bench::new();
    let user = Some("1234:1234".to_owned());
    let argv = ["sh", "-c", "cat /dev/stdin > /dev/stdout; echo no > /dev/stderr"];
    let argv = argv.map(Into::into).to_vec();
    let exec = Exec { id: 1, argv, stdin: true, user: user.clone(), ..Exec::default() };
    bench.slot.start(exec, 1, &bench.outlet).unwrap();
    bench.slot.input(1, b"yes".to_vec());
    bench.slot.input(1, Vec::new());
    let replies = bench.sink.finished();
    assert_eq!(
        replies.last(),
        Some(&Reply::Exit { id: 1, status: Status::Code(0) }),
        "{replies:?}"
    );
    assert_eq!(text(&replies, Stream::Stdout), "yes");
    assert_eq!(text(&replies, Stream::Stderr), "no\n");
    let bench = Bench::new();
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let workdir = Some(directory.path().to_str().unwrap().to_owned());
    let exec = Exec { id: 2, argv: vec!["true".into()], workdir, user, ..Exec::default() };
    bench.slot.start(exec, 1, &bench.outlet).unwrap();
    let replies = bench.sink.finished();
    assert_eq!(replies.last(), Some(&Reply::Exit { id: 2, status: Status::Code(126) }));
    let said = text(&replies, Stream::Stderr);
    assert!(said.ends_with(": Permission denied (os error 13)\n"), "{said}");
    assert!(said.starts_with("cannot enter /"), "{said}");
}

/// A command ends with the thread that started it; in the agent, that one lives as long as it.
#[test]
fn the_end_of_the_agent_ends_its_command() {
    for tty in [None, Some(Size { rows: 24, columns: 80 })] {
        let bench = Bench::new();
        let argv = ["sleep", "1000"].map(Into::into).to_vec();
        let exec = Exec { id: 1, argv, tty, ..Exec::default() };
        thread::scope(|scope| {
            scope.spawn(|| bench.slot.start(exec, 1, &bench.outlet).unwrap());
        });
        let end = [Reply::Exit { id: 1, status: Status::Signal(9) }];
        assert_eq!(bench.sink.finished(), end);
    }
}
